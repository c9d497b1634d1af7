"""A prefix cache emptied before a run, and the proof that it was."""

from __future__ import annotations

from loadkit.client.answer import Response
from loadkit.client.bodies import request_body
from loadkit.client.control import ControlPlane
from loadkit.client.secret import Secret
from loadkit.client.stream import StreamClient
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.locust_users.settings import Settings

# Long enough to fill blocks of 64 tokens with any tokenizer.
PROBE = "loadkit asks whether the prefix cache is empty. " + " ".join(
    f"Line {number}: the quick brown fox jumps over the lazy dog." for number in range(24)
)


def reset_and_verify(control: ControlPlane, settings: Settings, key: Secret | None) -> list[str]:
    """Empty the cache, and see by a prompt sent before and after that it was emptied.

    Returns notes for the run. InputError: the server has no such call. CannotMeasure: it refused,
    or what was sent before the reset was still there after it, or got no answer.
    """
    url = control.endpoint.url
    client = StreamClient(control.endpoint, key=key, timeouts=settings.timeouts)
    try:
        _probe(client, settings)
        _reset(control, url)
        cached = _probe(client, settings).usage.cached_tokens
    finally:
        client.close()
    if cached:
        raise CannotMeasure(
            f"after the reset {cached} tokens of a prompt from before it were still cached",
            remedy="leave out --reset and use cache: salt, or start the server again",
        )
    _reset(control, url)  # of the probe
    if cached is None:
        return ["cache: reset, as the server says; it did not report cached tokens to show it"]
    return ["cache: reset, as the server says and as a prompt sent before and after it shows"]


def _probe(client: StreamClient, settings: Settings) -> Response:
    path, body = request_body(
        "chat",
        model=settings.model,
        messages=[{"role": "user", "content": PROBE}],
        max_tokens=1,
        max_tokens_field=settings.max_tokens_field,
        ask_usage=settings.ask_usage,
    )
    request = client.prepare(body, session="loadkit-reset-probe", path=path)
    try:
        response = client.send(client.connect(), request)
    except OSError as error:
        raise InputError(f"no connection: {error}", where=settings.url) from error
    if response.outcome != "ok":
        raise CannotMeasure(
            f"the prompt that shows whether the cache is empty got no answer: {response.error}",
            remedy="leave out --reset, or look at the server",
        )
    return response


def _reset(control: ControlPlane, url: str) -> None:
    outcome = control.reset_prefix_cache()
    if outcome == "unsupported":
        raise InputError(
            "the server cannot reset its prefix cache", where=url, remedy="leave out --reset"
        )
    if outcome == "refused":
        raise CannotMeasure(
            "the server did not reset its prefix cache", remedy="are requests still running on it?"
        )
