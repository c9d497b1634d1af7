"""One request in the engine, and the chunk of it that one forward pass computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from loadkit.core.blocks import block_hashes, prompt_hash
from loadkit.core.split import Split
from reference_server.node import Node

STOP, LENGTH, ABORT, ERROR = "stop", "length", "abort", "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """temperature 0 is greedy. `max_tokens` counts the token that ends the reply; `min_tokens` bans
    EOS and stop ids before. top_k 0: all tokens. num_logprobs: how many alternatives to report with
    each token's own log probability; None reports nothing."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    eos_ids: frozenset[int] = frozenset()
    top_k: int = 0
    stop_ids: frozenset[int] = frozenset()
    num_logprobs: int | None = None

    @property
    def ending_ids(self) -> frozenset[int]:
        """Tokens that end the reply."""
        return self.stop_ids if self.ignore_eos else self.stop_ids | self.eos_ids


@dataclass(frozen=True, slots=True)
class Sample:
    """A token that the model gave. logprob and top ((token, log probability), most likely first)
    are natural logarithms under the model, before temperature; None and () if not asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


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

    tenant: whose blocks these are, for quotas; the isolation domain unless given.
    leader: another request with the same prompt, of which this is one more choice (n > 1): it waits
    for the leader's prompt, takes its pages, and is not counted as a request of its own.
    num_kept_tail: prompt tokens behind the hit blocks whose K/V was copied; not part of the hit.
    tier_tokens: hit tokens by tier, (device, host, disk). samples: what was sampled, if logprobs
    were asked for.
    """

    tokens: list[int]
    block_size: int
    root: bytes
    params: SamplingParams
    session: str | None = None
    observe: Callable[[int, str | None], bool] = _observe_nothing
    on_finish: Callable[[Request], None] = _finish_silently
    arrival_s: float = field(default_factory=time.monotonic)
    tenant: bytes = b""
    leader: Request | None = None

    num_prompt: int = field(init=False)
    prompt_key: bytes = field(init=False)
    hashes: list[bytes] = field(init=False)
    nodes: list[Node] = field(default_factory=list, init=False)
    pages: list[int] = field(default_factory=list, init=False)
    num_reserved_end: int = field(default=0, init=False)
    num_computed: int = field(default=0, init=False)
    num_preemptions: int = field(default=0, init=False)
    num_blocks_used: int = field(default=0, init=False)  # leading blocks whose use was counted
    num_kept_tail: int = field(default=0, init=False)
    num_drafted: int = field(default=0, init=False)
    num_accepted: int = field(default=0, init=False)
    tier_tokens: tuple[int, int, int] = field(default=(0, 0, 0), init=False)
    samples: list[Sample] = field(default_factory=list, init=False)
    is_new_prompt: bool = field(default=True, init=False)
    split: Split | None = field(default=None, init=False)
    aborted: bool = field(default=False, init=False)
    finish_reason: str | None = field(default=None, init=False)
    admitted_s: float | None = field(default=None, init=False)
    first_token_s: float | None = field(default=None, init=False)
    last_token_s: float | None = field(default=None, init=False)
    sampler_state: object = field(default=None, init=False)  # the model runner's, opaque here

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)
        self.prompt_key = prompt_hash(self.tokens, self.root)
        self.hashes = block_hashes(self.tokens, self.block_size, self.root)
        self.tenant = self.tenant or self.root

    def another_choice(
        self,
        index: int,
        observe: Callable[[int, str | None], bool] = _observe_nothing,
        on_finish: Callable[[Request], None] = _finish_silently,
    ) -> Request:
        """Choice `index` (1, 2, ...) of this request, before it runs: same prompt, and a seed of
        its own if there is one. Submit this request first."""
        seed = self.params.seed
        params = self.params if seed is None else replace(self.params, seed=seed + index)
        return Request(
            self.tokens[: self.num_prompt],
            self.block_size,
            self.root,
            params,
            session=self.session,
            observe=observe,
            on_finish=on_finish,
            tenant=self.tenant,
            leader=self,
        )

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
            parent = self.prefix_hash(len(self.hashes))
            self.hashes += block_hashes(
                self.block_tokens(len(self.hashes)), self.block_size, parent
            )
        return self.hashes[index]

    def prefix_hash(self, index: int) -> bytes:
        """Hash of what is before block `index`: the root for the first."""
        return self.hashes[index - 1] if index else self.root

    def block_tokens(self, index: int) -> list[int]:
        """Tokens of block `index`, fewer than block_size if they end there."""
        return self.tokens[index * self.block_size : (index + 1) * self.block_size]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens start..start + num_tokens of a request, to be computed in one forward pass.

    Positions below `first_writable` belong to blocks that are resident already: their K/V is read
    from the page table and what is computed for them goes to the scratch page. `draft` are tokens
    that may follow the last one: they are computed behind it, in the same block.
    """

    request: Request
    start: int
    num_tokens: int
    draft: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """Without the draft."""
        return self.start + self.num_tokens

    @property
    def end_computed(self) -> int:
        """With the draft."""
        return self.end + len(self.draft)

    @property
    def token_ids(self) -> list[int]:
        """What is computed, draft included."""
        return [*self.request.tokens[self.start : self.end], *self.draft]

    @property
    def samples(self) -> bool:
        """Whether the chunk reaches the last token, so that a next one is sampled."""
        return self.end == len(self.request.tokens)

    @property
    def first_writable(self) -> int:
        return len(self.request.nodes) * self.request.block_size

    @property
    def banned_ids(self) -> frozenset[int]:
        """Tokens that must not be sampled, since they would end the reply too early."""
        params = self.request.params
        return params.ending_ids if self.request.num_output < params.min_tokens else frozenset()


def accepted(chunk: Chunk, tokens: Sequence[int]) -> int:
    """How many drafted tokens the model agrees with: `tokens` are what it says at each place."""
    num = 0
    while num < len(chunk.draft) and chunk.draft[num] == tokens[num]:
        num += 1
    return num
