"""Where messages begin and end in a path, so that requests that share a block have it laid out alike.

A block that several requests share must have its template tokens at the same places in all of them.
So layouts belong to block keys: the shortest request that passes a block decides it, longer ones
inherit. A prompt ends with the template's closing; whoever goes on from there goes on as the reply,
then as the next user message, as chats do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from loadkit.core.trace import IntArray
from loadkit.synthesize.chat_form import ChatForm


class Mark(NamedTuple):
    """Template tokens inside a path. closes: user -> reply, else reply -> user. `reply`: tokens that
    the reply after a closing shall have, 0 if unknown."""

    at: int
    closes: bool
    reply: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """A prompt's marks, the last one being its own closing, and its length. A `detached` prompt could
    not end in its last block as laid out: that block is its own, and it may be longer than asked."""

    marks: tuple[Mark, ...]
    prompt_tokens: int
    detached: bool = False


class Layout:
    """Layouts of blocks, decided by the requests in the order in which `place` is called."""

    def __init__(self, form: ChatForm, block_size: int, num_keys: int):
        self.form, self.size = form, block_size
        self._decided = np.zeros(num_keys, np.int32)  # tokens of each block, from its first
        self._marks: dict[int, list[Mark]] = {}
        self._has_marks = np.zeros(num_keys, np.bool_)

    def place(self, path: IntArray, prompt: int, reply: int, asked: int) -> Placed:
        """Lay a request out: path keys, prompt tokens, reply tokens in the path (0 for none), and
        tokens that a reply of unknown content shall take in later prompts (0 if unknown)."""
        if self.form.between is None:
            return self._place_alone(prompt)
        decided, marks = self._inherited(path)
        own = self._own(decided, marks, prompt, reply or asked)
        if own is None:
            return self._detach(path, prompt)
        self._decide(path, decided, prompt + reply, own)
        last = prompt - self.form.closing
        return Placed((*(mark for mark in marks if mark.at <= last), *own), prompt)

    def _inherited(self, path: IntArray) -> tuple[int, list[Mark]]:
        """Tokens that are decided, and the marks among them."""
        lengths = self._decided[path]
        open_blocks = np.flatnonzero(lengths < self.size)
        whole = int(open_blocks[0]) if len(open_blocks) else len(path)
        decided = whole * self.size + (int(lengths[whole]) if whole < len(path) else 0)
        marked = path[: whole + 1][self._has_marks[path[: whole + 1]]]
        return decided, [mark for key in marked.tolist() for mark in self._marks[key]]

    def _own(
        self, decided: int, marks: list[Mark], prompt: int, reply: int
    ) -> tuple[Mark, ...] | None:
        """Marks to add so that the prompt ends with a closing; None if there is no room for them."""
        last = prompt - self.form.closing
        if any(mark.at == last and mark.closes for mark in marks):
            return ()
        if decided > last:
            return None
        closing = Mark(last, True, reply)
        start, replying = self._message(marks)
        if not replying:
            return (closing,) if last > start else None
        low, high = max(decided, start + 1), last - 1 - self.width(Mark(0, False))
        if low > high:
            return None
        wanted = start + marks[-1].reply if marks[-1].reply else (low + high) // 2
        return Mark(min(max(wanted, low), high), False), closing

    def _message(self, marks: list[Mark]) -> tuple[int, bool]:
        """Where the last message's words start, and whether it is a reply."""
        if not marks:
            return self.form.opening, False
        return marks[-1].at + self.width(marks[-1]), marks[-1].closes

    def width(self, mark: Mark) -> int:
        """Template tokens at a mark."""
        return self.form.closing if mark.closes else self.form.between or 0

    def _decide(self, path: IntArray, start: int, end: int, marks: tuple[Mark, ...]) -> None:
        if end > start:
            lengths = np.minimum(end - np.arange(len(path)) * self.size, self.size)
            self._decided[path] = np.maximum(self._decided[path], lengths)
        for mark in marks:
            key = int(path[mark.at // self.size])
            self._marks.setdefault(key, []).append(mark)
            self._has_marks[key] = True

    def _detach(self, path: IntArray, prompt: int) -> Placed:
        """Leave the path after the prompt's full blocks; longer only if the template needs it."""
        full = prompt // self.size * self.size
        decided, marks = self._inherited(path[: prompt // self.size])
        self._decide(path[: prompt // self.size], decided, full, ())
        start, replying = self._message(marks)
        at = max(full, start + 1)
        if replying:
            marks.append(Mark(at, False))
            at += self.width(marks[-1]) + 1
        at = max(at, prompt - self.form.closing)
        return Placed((*marks, Mark(at, True)), at + self.form.closing, detached=True)

    def _place_alone(self, prompt: int) -> Placed:
        """One user message: where turns cannot extend each other no full block may hold a closing."""
        full, last = prompt // self.size * self.size, prompt - self.form.closing
        at = max(full, last, self.form.opening + 1)
        return Placed((Mark(at, True),), at + self.form.closing, detached=at != last)
