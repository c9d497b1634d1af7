"""llama.cpp's prompt cache in host memory (`--cache-ram`, 8192 MiB unless said otherwise, 0: off).

The rule, read off the trace lines of a live server (`-lv 5`) and checked against it in tests/e2e:

- A slot about to take a prompt that it does not continue (chosen by LRU, or with less than half of
  its tokens kept) is saved first. Then the saved sequence that keeps the largest share of itself and
  covers the most of the prompt is moved into the slot, if it beats the slot in both; sequences that
  would keep less than a quarter of themselves are left alone.
- Idle slots are saved whenever a request starts elsewhere, and emptied too if all slots share one
  buffer (`--kv-unified`, the default where the number of slots is not given).
- A sequence that is the beginning of a saved one is not saved; saved ones that are the beginning of
  a new one are dropped.

Not modelled: the limit in bytes, which no endpoint tells; nothing is ever pushed out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from loadkit.core.trace import IntArray

KEPT_WITHOUT_SAVING = 0.5  # share of a slot's tokens that its next prompt must keep
MIN_KEPT_OF_SAVED = 0.25  # share of a saved sequence that must be of use


class HostCache:
    """Saved sequences. empties_idle: saved slots lose what they held.

    No saved one begins with another, and they lie in the order of a dictionary: what shares most with
    a sequence is beside its place, found in logarithmic time.
    """

    def __init__(self, *, empties_idle: bool = False):
        self.empties_idle = empties_idle
        self._rows: list[_Saved] = []
        self._num_saves = 0

    @property
    def saved(self) -> list[IntArray]:
        """What is kept, oldest first."""
        return [row.sequence for row in sorted(self._rows, key=lambda row: row.age)]

    def save(self, sequence: IntArray) -> None:
        """Keep a copy, unless a saved one begins with it; an empty one is nothing to keep."""
        place, rows = self._place(sequence), self._rows
        if not len(sequence) or (
            place < len(rows) and rows[place].shared(sequence) == len(sequence)
        ):
            return
        if place and rows[place - 1].shared(sequence) == len(rows[place - 1].sequence):
            place -= 1
            del rows[place]
        rows.insert(place, _Saved(sequence, self._num_saves))
        self._num_saves += 1

    def take_for(self, prompt: IntArray, held: IntArray) -> IntArray:
        """What the slot holds after looking for better: `held`, or a saved one, saved no more."""
        shared = common_prefix(held, prompt)
        best, best_row = (shared / len(held) if len(held) else -1.0, shared), -1
        for _, row, length in sorted(self._sharing_more(prompt, shared)):
            kept = length / len(self._rows[row].sequence)
            if kept >= MIN_KEPT_OF_SAVED and kept > best[0] and length > best[1]:
                best, best_row = (kept, length), row
        return held if best_row < 0 else self._rows.pop(best_row).sequence

    def _place(self, sequence: IntArray) -> int:
        """The first row that does not come before `sequence`."""
        return bisect_left(self._rows, 0, key=lambda row: row.compare(sequence))

    def _sharing_more(self, prompt: IntArray, least: int) -> Iterator[tuple[int, int, int]]:
        """(age, row, shared ids) of the rows that share more than `least` ids with `prompt`."""
        rows, place = self._rows, self._place(prompt)
        for step, row in ((-1, place - 1), (1, place)):
            while 0 <= row < len(rows) and (length := rows[row].shared(prompt)) > least:
                end = self._end_of_equals(prompt, row, step, length)
                for each in range(row, end, step):
                    yield rows[each].age, each, length
                row = end

    def _end_of_equals(self, prompt: IntArray, row: int, step: int, length: int) -> int:
        """Away from the prompt's place rows share less and less: the first that has fewer ids."""
        rows = self._rows
        if step > 0:
            return bisect_left(rows, True, row, key=lambda other: other.shared(prompt) < length)
        return bisect_left(rows, length, 0, row, key=lambda other: other.shared(prompt)) - 1


@dataclass(frozen=True, slots=True)
class _Saved:
    """age: how many were saved before it."""

    sequence: IntArray
    age: int

    def shared(self, other: IntArray) -> int:
        return common_prefix(self.sequence, other)

    def compare(self, other: IntArray) -> int:
        """-1, 0 or 1: before, equal, after `other` in the order of a dictionary."""
        one, length = self.sequence, self.shared(other)
        if length == len(one) or length == len(other):
            return (len(one) > len(other)) - (len(one) < len(other))
        return 1 if one[length] > other[length] else -1


def common_prefix(one: IntArray, other: IntArray) -> int:
    """Equal leading ids. Ids are chained, so where two agree, all before them do too."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[middle - 1] == other[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
