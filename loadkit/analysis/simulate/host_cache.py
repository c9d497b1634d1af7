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

from loadkit.core.trace import IntArray

KEPT_WITHOUT_SAVING = 0.5  # share of a slot's tokens that its next prompt must keep
MIN_KEPT_OF_SAVED = 0.25  # share of a saved sequence that must be of use


class HostCache:
    """Saved sequences, oldest first. empties_idle: saved slots lose what they held."""

    def __init__(self, *, empties_idle: bool = False):
        self.empties_idle = empties_idle
        self.saved: list[IntArray] = []

    def save(self, sequence: IntArray) -> None:
        """Keep a copy, unless a saved one begins with it; an empty one is nothing to keep."""
        if any(common_prefix(saved, sequence) == len(sequence) for saved in self.saved):
            return
        if len(sequence):
            longer = [s for s in self.saved if common_prefix(s, sequence) < len(s)]
            self.saved = [*longer, sequence]

    def take_for(self, prompt: IntArray, held: IntArray) -> IntArray:
        """What the slot holds after looking for better: `held`, or a saved one, saved no more."""
        shared = common_prefix(held, prompt)
        best, best_row = (shared / len(held) if len(held) else -1.0, shared), -1
        for row, saved in enumerate(self.saved):
            length = common_prefix(saved, prompt)
            kept = length / len(saved)
            if kept >= MIN_KEPT_OF_SAVED and kept > best[0] and length > best[1]:
                best, best_row = (kept, length), row
        return held if best_row < 0 else self.saved.pop(best_row)


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
