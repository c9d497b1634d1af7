"""What the engine needs of a model, and what it tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reference_server.request import Chunk, Request, Sample
from reference_server.tiers import Pages


class ModelRunner(Protocol):
    """Computes chunks. Pages and blocks are the scheduler's business; the runner only obeys.

    `execute` writes the K/V of each chunk through its request's page table and returns, in the
    same order, for a chunk that `samples` what follows its last token and each drafted one, and
    nothing for the others. It may be asked for the same chunk again after it raised. `probe` raises
    if the model cannot run at all. `pages` None: K/V cannot be copied or moved between tiers.
    """

    vocab_size: int
    max_model_len: int

    @property
    def pages(self) -> Pages | None: ...

    def execute(self, chunks: Sequence[Chunk]) -> Sequence[Sequence[Sample]]: ...

    def probe(self) -> None: ...


class Listener:
    """What the engine tells; all calls come from the engine's thread. Does nothing by itself.

    Of the choices of one request (n > 1) only the first is told as admitted.
    """

    def admitted(self, request: Request) -> None: ...

    def token(self, request: Request, since_last_s: float | None) -> None:
        """`since_last_s` is None for the first token."""

    def finished(self, request: Request) -> None: ...

    def step(self, num_tokens: int) -> None:
        """A forward pass over that many tokens begins."""
