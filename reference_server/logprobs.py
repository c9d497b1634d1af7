"""Log probabilities in the two shapes of OpenAI's API: one entry a token, the ending one too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reference_server.request import Sample
from reference_server.token_texts import TokenTexts

LEAST = -9999.0  # JSON has no -inf; vLLM's number for it


def chat_logprobs(samples: Sequence[Sample], texts: TokenTexts) -> dict[str, Any]:
    content = [
        _entry(s.token, s.logprob, texts)
        | {"top_logprobs": [_entry(token, logprob, texts) for token, logprob in s.top]}
        for s in samples
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    samples: Sequence[Sample], offsets: Sequence[int], texts: TokenTexts
) -> dict[str, Any]:
    """`offsets`: characters of the answer that were there before each token. The sampled token is
    always among the alternatives, so that there may be one more of them than asked for."""
    return {
        "tokens": [texts.of(s.token)[0] for s in samples],
        "token_logprobs": [_finite(s.logprob) for s in samples],
        "top_logprobs": [
            {texts.of(token)[0]: _finite(logprob) for token, logprob in (*s.top, _own(s))}
            for s in samples
        ],
        "text_offset": list(offsets),
    }


def _own(sample: Sample) -> tuple[int, float | None]:
    return sample.token, sample.logprob


def _entry(token: int, logprob: float | None, texts: TokenTexts) -> dict[str, Any]:
    text, raw = texts.of(token)
    return {"token": text, "logprob": _finite(logprob), "bytes": raw}


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, LEAST)
