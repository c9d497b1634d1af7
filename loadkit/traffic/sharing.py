"""Texts that several sessions have in common on purpose."""

from __future__ import annotations

from loadkit.corpora import What
from loadkit.profiles import SystemPrompts
from loadkit.traffic.writing import FRESH_TRIES, Writer


def system_prompts(writer: Writer, shared: SystemPrompts) -> list[str]:
    """The distinct system prompts, the most popular first."""
    return distinct(
        writer,
        "system",
        shared.count,
        pieces=None if shared.tokens else shared.sentences,
        tokens=shared.tokens,
    )


def distinct(
    writer: Writer, what: What, count: int, *, pieces: int | None, tokens: int | None
) -> list[str]:
    """`count` different texts; after many tries in vain the last ones may be alike."""
    texts: dict[str, None] = {}
    spare: list[str] = []
    while len(texts) + len(spare) < count:
        text = _new_text(writer, what, texts, pieces=pieces, tokens=tokens)
        if text in texts:
            spare.append(text)
        texts[text] = None
    return [*texts, *spare]


def _new_text(
    writer: Writer, what: What, known: dict[str, None], *, pieces: int | None, tokens: int | None
) -> str:
    for _ in range(FRESH_TRIES):
        text = writer.text(what, pieces=pieces, tokens=tokens)
        if text not in known:
            break
    return text
