"""Texts that several sessions have in common on purpose."""

from __future__ import annotations

from loadkit.profiles import SystemPrompts
from loadkit.traffic.writing import FRESH_TRIES, Writer


def system_prompts(writer: Writer, shared: SystemPrompts) -> list[str]:
    """The system prompts, the most popular first; number k is in the corpus's `language(k)`. They
    differ, unless the corpus seems to have no more of them."""
    made: list[str] = []
    known: set[str] = set()
    for number in range(shared.count):
        made.append(_new_text(writer, shared, number, known))
        known.add(made[-1])
    return made


def _new_text(writer: Writer, shared: SystemPrompts, number: int, known: set[str]) -> str:
    language = writer.corpus.language(number)
    for _ in range(FRESH_TRIES):
        pieces = None if shared.tokens else shared.sentences
        text = writer.text("system", pieces=pieces, tokens=shared.tokens, language=language)
        if text not in known:
            break
    return text
