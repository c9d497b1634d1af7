"""How diverse the traffic is right now."""

from __future__ import annotations

from collections import deque

WINDOW_REQUESTS = 10_000


class DiversityIndex:
    """Share of new prompts among the last `window` requests: 1 is all different, near 0 a replay.

    A prompt is new if it was never sent before in its isolation domain. `loadkit analyze
    --policy diversity` looks back on the same window.
    """

    def __init__(self, window: int = WINDOW_REQUESTS):
        self._window = window
        self._recent: deque[bool] = deque()
        self._num_new = 0
        self.value: float | None = None  # 0..1; None before the first request

    def add(self, *, is_replay: bool) -> None:
        self._recent.append(not is_replay)
        self._num_new += not is_replay
        if len(self._recent) > self._window:
            self._num_new -= self._recent.popleft()
        self.value = self._num_new / len(self._recent)

    def clear(self) -> None:
        self._recent.clear()
        self._num_new, self.value = 0, None
