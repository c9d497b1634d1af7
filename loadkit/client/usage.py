"""Token counts out of an answer, in the dialects that servers speak. Not reported is None."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from loadkit.client.foreign import count_of

SPLIT_NAMES = (
    "replay",
    "replay_same_session",
    "replay_cross_session",
    "continuation",
    "shared",
    "miss_capacity",
    "miss_compulsory",
)


class Usage(NamedTuple):
    """Tokens of one request as the server counts them; prompt_tokens includes cached ones.

    doubt: what the server said of cached tokens that cannot be; None where it said nothing or a count.
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    server_split: dict[str, int] | None = None
    doubt: str | None = None


def read_usage(answer: Mapping[str, Any]) -> Usage:
    """Usage of a JSON answer or of a stream's last usage event.

    Anthropic's `input_tokens` leaves cached tokens out, so the prompt is the sum of three fields;
    llama.cpp's `timings.prompt_n` counts only tokens that were not cached.
    """
    usage = _mapping(answer, "usage") or _mapping(_mapping(answer, "x_groq"), "usage")
    if "input_tokens" in usage:
        return _anthropic(usage)
    prompt, output = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    cached = _count(_mapping(usage, "prompt_tokens_details"), "cached_tokens")
    for name in ("cached_tokens", "prompt_cache_hit_tokens"):  # Moonshot, DeepSeek
        if cached is None:
            cached = _count(usage, name)
    timings = _mapping(answer, "timings")  # llama.cpp
    if cached is None:
        cached = _count(timings, "cache_n")
    if prompt is None:
        prompt = _sum(_count(timings, "cache_n"), _count(timings, "prompt_n"))
    if output is None:
        output = _count(timings, "predicted_n")
    said = [(_mapping(usage, "prompt_tokens_details"), "cached_tokens")]
    said += [(usage, name) for name in ("cached_tokens", "prompt_cache_hit_tokens")]
    return Usage(prompt, output, cached, _server_split(usage), _unreadable(cached, *said))


def _anthropic(usage: Mapping[str, Any]) -> Usage:
    cached = _count(usage, "cache_read_input_tokens")
    created = _count(usage, "cache_creation_input_tokens")
    fresh = _count(usage, "input_tokens")
    prompt = None if fresh is None else fresh + (cached or 0) + (created or 0)
    doubt = _unreadable(cached, (usage, "cache_read_input_tokens"))
    return Usage(prompt, _count(usage, "output_tokens"), cached, _server_split(usage), doubt)


def _unreadable(cached: int | None, *said: tuple[Mapping[str, Any], str]) -> str | None:
    """Why there is no count although a field for one was filled: text, a fraction, less than 0.

    The value itself is not repeated: it may be anything that a server cares to send."""
    if cached is not None:
        return None
    for parent, key in said:
        if parent.get(key) is not None:
            return f"{key} of type {type(parent[key]).__name__} is no number of tokens"
    return None


def _server_split(usage: Mapping[str, Any]) -> dict[str, int] | None:
    """`usage.loadkit`: the reference server's own split by cause. Names that nobody reads stay out."""
    said = _mapping(usage, "loadkit")
    split = {key: count for key in SPLIT_NAMES if (count := _count(said, key)) is not None}
    return split or None


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def _count(parent: Mapping[str, Any], key: str) -> int | None:
    return count_of(parent.get(key))


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right
