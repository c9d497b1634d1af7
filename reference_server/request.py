"""One request in the engine, and the chunk of it that one forward pass computes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from loadkit.core.blocks import block_hashes, prompt_hash
from loadkit.core.split import Split
from reference_server.block_tree import Node

STOP, LENGTH, ABORT, ERROR = "stop", "length", "abort", "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """temperature 0 is greedy. `max_tokens` counts the EOS token; `min_tokens` bans EOS before."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    eos_ids: frozenset[int] = frozenset()


def _observe_nothing(token: int, reason: str | None) -> bool:
    return False


def _finish_silently(request: Request) -> None:
    return None


@dataclass(slots=True, eq=False)
class Request:
    """`tokens` is the prompt and then the reply; K/V exists for the first `num_computed` of them.

    `nodes` are the published (pinned) blocks of the chain, `pages` the page of every block so far;
    page i < num_reserved_end is resident or reserved, the one after it is the working page.
    `observe(token, reason)` is called on the engine thread for each new token and returns True to
    stop; `on_finish` once at the end. `split` is None until first admission and stays after it.
    """

    tokens: list[int]
    block_size: int
    root: bytes
    params: SamplingParams
    session: str | None = None
    observe: Callable[[int, str | None], bool] = _observe_nothing
    on_finish: Callable[[Request], None] = _finish_silently
    arrival_s: float = field(default_factory=time.monotonic)

    num_prompt: int = field(init=False)
    prompt_key: bytes = field(init=False)
    hashes: list[bytes] = field(init=False)
    nodes: list[Node] = field(default_factory=list, init=False)
    pages: list[int] = field(default_factory=list, init=False)
    num_reserved_end: int = field(default=0, init=False)
    num_computed: int = field(default=0, init=False)
    num_preemptions: int = field(default=0, init=False)
    split: Split | None = field(default=None, init=False)
    aborted: bool = field(default=False, init=False)
    finish_reason: str | None = field(default=None, init=False)
    first_token_s: float | None = field(default=None, init=False)
    last_token_s: float | None = field(default=None, init=False)
    sampler_state: object = field(default=None, init=False)  # the model runner's, opaque here

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)
        self.prompt_key = prompt_hash(self.tokens, self.root)
        self.hashes = block_hashes(self.tokens, self.block_size, self.root)

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def output(self) -> list[int]:
        return self.tokens[self.num_prompt :]

    @property
    def num_pending(self) -> int:
        """Tokens whose K/V is still to be computed."""
        return len(self.tokens) - self.num_computed

    def block_hash(self, index: int) -> bytes:
        """Hash of full block `index` of prompt and reply; extends the chain as needed."""
        while len(self.hashes) <= index:
            start = len(self.hashes) * self.block_size
            parent = self.hashes[-1] if self.hashes else self.root
            block = self.tokens[start : start + self.block_size]
            self.hashes += block_hashes(block, self.block_size, parent)
        return self.hashes[index]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens start..start + num_tokens of a request, to be computed in one forward pass.

    Positions below `first_writable` belong to blocks that are resident already: their K/V is read
    from the page table and what is computed for them goes to the scratch page.
    """

    request: Request
    start: int
    num_tokens: int

    @property
    def end(self) -> int:
        return self.start + self.num_tokens

    @property
    def samples(self) -> bool:
        """Whether the chunk reaches the last token, so that a next one is sampled."""
        return self.end == len(self.request.tokens)

    @property
    def first_writable(self) -> int:
        return len(self.request.nodes) * self.request.block_size

    @property
    def bans_eos(self) -> bool:
        params = self.request.params
        return self.request.num_output < params.min_tokens and not params.ignore_eos
