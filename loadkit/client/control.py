"""The control plane of an endpoint: models, metrics, cache reset. Never on the timed path."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

import httpx
import msgspec

from loadkit.client.answer import printable
from loadkit.client.cache_setup import CacheSetup, parse_cache_setup
from loadkit.client.endpoint import Endpoint, ignored_proxy
from loadkit.client.prometheus import PrefixCounters, parse_prefix_counters
from loadkit.client.secret import Secret
from loadkit.client.tls import tls_context
from loadkit.core.errors import InputError

CONTROL_TIMEOUT_S = 10.0
logger = logging.getLogger(__name__)
Reset = Literal["reset", "unsupported", "refused"]


class ModelCard(msgspec.Struct, frozen=True):
    """A model that an endpoint lists. None: not told. block_size, num_blocks and kept_blocks (see
    `core.trace.Trace`) describe its cache."""

    id: str
    max_model_len: int | None = None
    block_size: int | None = None
    num_blocks: int | None = None
    kept_blocks: tuple[int, ...] = ()
    tokenizer_fingerprint: str | None = None
    returns_token_ids: bool = False


class ControlPlane:
    """httpx client for the few calls around a run. Goes direct, as the load does, and warns when the
    environment names a proxy."""

    def __init__(self, endpoint: Endpoint, *, key: Secret | None = None):
        self.endpoint, self._key = endpoint, key
        self.metrics_refused = False  # the last time that they were asked for
        self._proxy_note = ignored_proxy(endpoint)
        if self._proxy_note is not None:
            logger.warning("loadkit: %s", self._proxy_note)
        headers = {} if key is None else {"Authorization": f"Bearer {key.reveal()}"}
        self._client = httpx.Client(
            base_url=endpoint.url,
            headers=headers,
            timeout=CONTROL_TIMEOUT_S,
            trust_env=False,
            verify=tls_context(),
        )

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._client.close()

    def list_models(self) -> list[ModelCard]:
        """Models of /v1/models; [] when the server does not list any.

        InputError when there is no server, the key is wrong, or it answers with an error.
        """
        answer = self._request("GET", "/v1/models")
        if answer.status_code == 404:
            return []
        self._check(answer)
        rows = _json_object(answer).get("data")
        return [_card(row) for row in rows if _has_id(row)] if isinstance(rows, list) else []

    def prefix_counters(self) -> PrefixCounters | None:
        """Counters of /metrics; None when the server has none, or does not show them to us (then
        `metrics_refused`)."""
        page = self._metrics()
        return None if page is None else parse_prefix_counters(page)

    def cache_setup(self) -> CacheSetup | None:
        """What /metrics say of block size, blocks and engines; None as for `prefix_counters`."""
        page = self._metrics()
        return None if page is None else parse_cache_setup(page)

    def num_slots(self) -> int | None:
        """llama.cpp's slots (/props); None for a server that tells of none."""
        try:
            answer = self._request("GET", "/props")
            return _positive(_json_object(answer).get("total_slots"))
        except InputError:
            return None

    def reset_prefix_cache(self) -> Reset:
        """Empty the server's prefix cache.

        refused: the server knows the call but its answer says that it did not do it (blocks in
        use). unsupported: it knows neither /reset_prefix_cache nor /flush_cache.
        """
        for path in ("/reset_prefix_cache", "/flush_cache"):
            answer = self._request("POST", path)
            if answer.status_code not in (404, 405, 501):
                self._check_key(answer)
                return "reset" if answer.is_success and _says_success(answer) else "refused"
        return "unsupported"

    def num_tokens(self, body: Mapping[str, Any]) -> int | None:
        """Tokens of a `prompt` or of `messages`, as /tokenize counts them; None without that call."""
        answer = self._request("POST", "/tokenize", body)
        if answer.status_code in (404, 405, 501):
            return None
        self._check(answer)
        count = _json_object(answer).get("count")
        return count if isinstance(count, int) and count >= 0 else None

    def _metrics(self) -> str | None:
        try:
            answer = self._request("GET", "/metrics")
        except InputError:
            return None
        self.metrics_refused = answer.status_code in (401, 403)
        return answer.text if answer.status_code == 200 else None

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise InputError(
                f"no answer from the server: {printable(str(error)) or type(error).__name__}",
                where=self.endpoint.url,
                remedy=self._proxy_note or "is it running, and is the address right?",
            ) from error

    def _check(self, answer: httpx.Response) -> None:
        self._check_key(answer)
        if not answer.is_success:
            said = answer.text if self._key is None else self._key.strip_from(answer.text)
            raise InputError(
                f"{answer.request.url.path} answered {answer.status_code}: {printable(said)[:120]}",
                where=self.endpoint.url,
                remedy="is this an OpenAI-compatible server, and is it ready?",
            )

    def _check_key(self, answer: httpx.Response) -> None:
        if answer.status_code in (401, 403):
            raise InputError(
                f"the server refused the API key ({answer.status_code})",
                where=self.endpoint.url,
                remedy="set LOADKIT_API_KEY, or give --api-key-file",
            )


def _json_object(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        value = answer.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(
            f"{answer.request.url.path} did not answer with a JSON object",
            where=str(answer.request.url),
            remedy="is this an OpenAI-compatible server?",
        )
    return value


def _has_id(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("id"), str)


def _card(row: Mapping[str, Any]) -> ModelCard:
    own = row.get("loadkit") if isinstance(row.get("loadkit"), dict) else {}
    fingerprint = own.get("tokenizer_fingerprint") if own else None
    return ModelCard(
        id=row["id"],
        max_model_len=_positive(row.get("max_model_len")),
        block_size=_positive(own.get("block_size")) if own else None,
        num_blocks=_positive(own.get("num_blocks")) if own else None,
        tokenizer_fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        returns_token_ids=bool(own) or row.get("owned_by") == "vllm",
    )


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _says_success(answer: httpx.Response) -> bool:
    """An empty or plain body of a 2xx counts; a JSON body must not say otherwise."""
    try:
        body = answer.json()
    except ValueError:
        return True
    return not isinstance(body, dict) or body.get("success", body.get("status", True)) not in (
        False,
        "error",
        "failed",
    )
