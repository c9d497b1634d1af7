"""How many tokens a chat template puts around messages: what layouts must leave room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Message, Tokenizer


@dataclass(frozen=True, slots=True)
class ChatForm:
    """Tokens of a template's fixed parts.

    opening: before the first user message's first word, with the system message that `start` holds.
    closing: from a user message's last word to where the reply begins. between: from a reply's last
    word to the next user message's first; None if the template renders history in another way than
    it prompted for it (as those that drop reasoning may), so that no turn extends the one before.
    """

    start: tuple[Message, ...]
    opening: int
    closing: int
    between: int | None


def measure_form(tokenizer: Tokenizer, words: Sequence[str]) -> ChatForm:
    """Find the fixed parts with probes. A system message of one word is put in front where that
    keeps the template from adding a longer one of its own."""
    told = ({"role": "system", "content": words[0]},)
    forms = [_probe(tokenizer, words[1:], start) for start in ((), told)]
    possible = [form for form in forms if form is not None]
    if not possible:
        raise InputError(
            "the chat template moves or repeats the words of a message",
            where=tokenizer.name,
            remedy="--token-ids writes token ids instead of text",
        )
    return min(possible, key=lambda form: form.opening)


def _probe(
    tokenizer: Tokenizer, words: Sequence[str], start: tuple[Message, ...]
) -> ChatForm | None:
    try:
        bare = tokenizer.encode_chat([*start, _user(_words(words, 0))])
    except InputError:  # a template without a place for a system message
        return None
    first = _find(tokenizer, bare, words, 0)
    if first is None:
        return None
    closing = len(bare) - first - 2
    return ChatForm(start, first, closing, _between(tokenizer, bare, words, start))


def _between(
    tokenizer: Tokenizer, bare: list[int], words: Sequence[str], start: tuple[Message, ...]
) -> int | None:
    reply = {"role": "assistant", "content": _words(words, 1)}
    talk = [*start, _user(_words(words, 0)), reply, _user(_words(words, 2))]
    try:
        ids = tokenizer.encode_chat(talk)
    except InputError:
        return None
    replied, asked = _find(tokenizer, ids, words, 1), _find(tokenizer, ids, words, 2)
    if ids[: len(bare)] != bare or replied != len(bare) or asked is None:
        return None
    return asked - replied - 2


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _words(words: Sequence[str], number: int) -> str:
    return f"{words[2 * number]} {words[2 * number + 1]}"


def _find(tokenizer: Tokenizer, ids: list[int], words: Sequence[str], number: int) -> int | None:
    """Where the probe's first word stands: its second is looked for, whose token is known."""
    second = tokenizer.encode_batch([_words(words, number)])[0][1]
    return ids.index(second) - 1 if ids.count(second) == 1 else None
