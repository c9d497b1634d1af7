"""The control plane of an endpoint: models, metrics, cache reset. Never on the timed path.

Its answers come through the same door as the load's: an `Exchange` with a total deadline and a
number of bytes that is enough, then `foreign.read_json`, without our key.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import msgspec
import orjson

from loadkit.client.cache_setup import CacheSetup, parse_cache_setup
from loadkit.client.connection import ConnectionPool
from loadkit.client.endpoint import Endpoint, ignored_proxy
from loadkit.client.exchange import Exchange
from loadkit.client.foreign import (
    MAX_NAME_CHARS,
    Malformed,
    Strip,
    count_of,
    printable,
    read_json,
    unchanged,
)
from loadkit.client.prometheus import PrefixCounters, parse_prefix_counters
from loadkit.client.pump import choose_pump
from loadkit.client.receipt import Receipt
from loadkit.client.secret import Secret
from loadkit.client.timeouts import Timeouts
from loadkit.core.errors import InputError

CONTROL_TIMEOUT_S = 10.0  # of a call, from the first byte sent to the last received
MAX_CONTROL_BYTES = 16 << 20  # of an answer: the metrics page of many engines has some 100 KB each
logger = logging.getLogger(__name__)
Reset = Literal["reset", "unsupported", "refused"]


class ModelCard(msgspec.Struct, frozen=True):
    """A model that an endpoint lists. None: not told. block_size, num_blocks and kept_blocks (see
    `core.trace.Trace`) describe its cache."""

    id: str
    max_model_len: int | None = None
    block_size: int | None = None
    num_blocks: int | None = None
    tokenizer_fingerprint: str | None = None
    returns_token_ids: bool = False
    kept_blocks: tuple[int, ...] = ()


class NotListed(InputError):
    """The server is there, but its list of models cannot be had: with a model's name it can be done
    without."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one call gave, whatever its status."""

    path: str
    status: int
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class ControlPlane:
    """The few calls around a run. Goes direct, as the load does, and warns when the environment names
    a proxy.

    models_unread, metrics_unread: why the models or metrics, the last time that they were asked for, could
    not be read; None when they could, or the server has none.
    """

    def __init__(self, endpoint: Endpoint, *, key: Secret | None = None):
        self.endpoint, self._key = endpoint, key
        self._strip = unchanged if key is None else key.strip_from
        self.metrics_refused = False  # the last time that they were asked for
        self.models_unread: str | None = None
        self.metrics_unread: str | None = None
        self._proxy_note = ignored_proxy(endpoint)
        if self._proxy_note is not None:
            logger.warning("loadkit: %s", self._proxy_note)
        self._pool = ConnectionPool(
            endpoint, connect_timeout_s=CONTROL_TIMEOUT_S, kernel_stamps=False
        )

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._pool.close()

    def list_models(self) -> list[ModelCard]:
        """Models of /v1/models; [] when the server does not list any.

        InputError when there is no server or the key is wrong; NotListed when it answers with an
        error, with what is no list of models, or not to its end.
        """
        path = "/v1/models"
        try:
            answer = self._request("GET", path)
        except _Unanswered as error:
            raise self._not_listed(str(error)) from error
        if answer.status == 404:
            return []
        self._check_key(answer)
        if not answer.is_success:
            raise self._not_listed(self._said(answer))
        try:
            rows = _json_object(answer).get("data")
        except Malformed as error:
            raise self._not_listed(f"{path}: {error}") from error
        rows = [row for row in rows if _has_id(row)] if isinstance(rows, list) else []
        if any(self._strip(row["id"]) != row["id"] for row in rows):
            raise self._not_listed("a model's name repeats the API key, or 8 characters of it")
        return [_card(row, self._strip) for row in rows]

    def prefix_counters(self) -> PrefixCounters | None:
        """Counters of /metrics; None when the server has none, does not show them to us (then
        `metrics_refused`), or they cannot be read (then `metrics_unread`)."""
        page = self._metrics()
        return None if page is None else parse_prefix_counters(page)

    def cache_setup(self) -> CacheSetup | None:
        """What /metrics say of block size, blocks and engines; None as for `prefix_counters`."""
        page = self._metrics()
        return None if page is None else parse_cache_setup(page)

    def num_slots(self) -> int | None:
        """llama.cpp's slots (/props); None for a server that tells of none."""
        try:
            return _positive(_json_object(self._request("GET", "/props")).get("total_slots"))
        except (InputError, Malformed):
            return None

    def reset_prefix_cache(self) -> Reset:
        """Empty the server's prefix cache.

        refused: the server knows the call but its answer says that it did not do it (blocks in
        use). unsupported: it knows neither /reset_prefix_cache nor /flush_cache. InputError: no
        answer.
        """
        for path in ("/reset_prefix_cache", "/flush_cache"):
            answer = self._request("POST", path)
            if answer.status not in (404, 405, 501):
                self._check_key(answer)
                return "reset" if answer.is_success and _says_success(answer) else "refused"
        return "unsupported"

    def num_tokens(self, body: Mapping[str, Any]) -> int | None:
        """Tokens of a `prompt` or of `messages`, as /tokenize counts them; None without that call.
        InputError: no answer, or none that can be read."""
        answer = self._request("POST", "/tokenize", body)
        if answer.status in (404, 405, 501):
            return None
        self._check_key(answer)
        try:
            if not answer.is_success:
                raise Malformed(self._said(answer))
            return count_of(_json_object(answer).get("count"))
        except Malformed as error:
            raise self._error(str(error), "is this an OpenAI-compatible server?") from error

    def _metrics(self) -> str | None:
        self.metrics_unread = None
        try:
            answer = self._request("GET", "/metrics")
        except InputError as error:
            self.metrics_unread = error.what
            return None
        self.metrics_refused = answer.status in (401, 403)
        if answer.status == 200:
            return self._strip(answer.body.decode("utf-8", "replace"))
        if answer.status not in (401, 403, 404, 405, 501):
            self.metrics_unread = self._said(answer)
        return None

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> _Answer:
        """One call on a connection of its own, all of it within CONTROL_TIMEOUT_S and
        MAX_CONTROL_BYTES. InputError: nobody there. _Unanswered: no whole answer."""
        payload = b"" if body is None else orjson.dumps(body)
        try:
            connection = self._pool.open()
        except OSError as error:
            raise self._unanswered(str(error)) from error
        receipt = Receipt()
        exchange = Exchange(
            connection,
            receipt,
            Timeouts(total_s=CONTROL_TIMEOUT_S),
            has_token=lambda _: False,
            max_bytes=MAX_CONTROL_BYTES,
        )
        try:
            exchange.begin(self._head(method, path, len(payload)) + payload)
            choose_pump()(exchange)
        finally:
            exchange.finish()
            self._pool.drop(connection)
        coding = receipt.headers.get(b"content-encoding", b"identity").lower()
        if receipt.ended not in ("complete", "closed") or receipt.status is None:
            raise self._unanswered(f"{path}: {receipt.error}", _Unanswered)
        if coding != b"identity":
            said = f"{path}: content-encoding {coding.decode('latin-1')}, which nobody asked for"
            raise self._unanswered(said, _Unanswered)
        return _Answer(path, receipt.status, b"".join(receipt.pieces))

    def _head(self, method: str, path: str, num_bytes: int) -> bytes:
        lines = [
            f"{method} {self.endpoint.base_path}{path} HTTP/1.1",
            f"Host: {self.endpoint.authority}",
            "User-Agent: loadkit",
            "Accept: */*",
            "Accept-Encoding: identity",
            "Connection: close",
        ]
        if self._key is not None:
            lines.append(f"Authorization: Bearer {self._key.reveal()}")
        if method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {num_bytes}"]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _unanswered(self, why: str, kind: type[InputError] = InputError) -> InputError:
        return kind(
            f"no answer from the server: {printable(why, self._strip)}",
            where=self.endpoint.url,
            remedy=self._proxy_note or "is it running, and is the address right?",
        )

    def _not_listed(self, why: str) -> NotListed:
        self.models_unread = printable(why, self._strip)
        return NotListed(
            f"no list of models: {self.models_unread}",
            where=self.endpoint.url,
            remedy="is this an OpenAI-compatible server, and is it ready? "
            "With --model the list is not needed",
        )

    def _error(self, why: str, remedy: str) -> InputError:
        return InputError(printable(why, self._strip), where=self.endpoint.url, remedy=remedy)

    def _said(self, answer: _Answer) -> str:
        """A refusal in the server's words."""
        text = answer.body[:4096].decode("utf-8", "replace")
        return printable(f"{answer.path} answered {answer.status}: {text}", self._strip)[:160]

    def _check_key(self, answer: _Answer) -> None:
        if answer.status in (401, 403):
            raise InputError(
                f"the server refused the API key ({answer.status})",
                where=self.endpoint.url,
                remedy="set LOADKIT_API_KEY, or give --api-key-file",
            )


class _Unanswered(InputError):
    """The server is there, and no whole answer came from it."""


def _json_object(answer: _Answer) -> Mapping[str, Any]:
    value = read_json(answer.body)
    if not answer.is_success or not isinstance(value, dict):
        raise Malformed(f"{answer.path} did not answer with a JSON object")
    return value


def _has_id(row: object) -> bool:
    """Whether it is a model with a name: what is longer, or not to be printed, is none."""
    name = row.get("id") if isinstance(row, dict) else None
    return isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME_CHARS


def _card(row: Mapping[str, Any], strip: Strip) -> ModelCard:
    own = row.get("loadkit") if isinstance(row.get("loadkit"), dict) else {}
    fingerprint = own.get("tokenizer_fingerprint") if own else None
    return ModelCard(
        id=row["id"],
        max_model_len=_positive(row.get("max_model_len")),
        block_size=_positive(own.get("block_size")) if own else None,
        num_blocks=_positive(own.get("num_blocks")) if own else None,
        tokenizer_fingerprint=strip(fingerprint[:MAX_NAME_CHARS])
        if isinstance(fingerprint, str)
        else None,
        returns_token_ids=bool(own) or row.get("owned_by") == "vllm",
    )


def _positive(value: object) -> int | None:
    return count_of(value) or None


def _says_success(answer: _Answer) -> bool:
    """An empty or plain body of a 2xx counts; a JSON body must not say otherwise."""
    try:
        body = read_json(answer.body)
    except Malformed:
        return True
    return not isinstance(body, dict) or body.get("success", body.get("status", True)) not in (
        False,
        "error",
        "failed",
    )
