"""Are a plan's prompts as fresh as its profile says? Counted by the analyzer, before sending.

Every request that the plan comes to is tokenised and put through the analyzer's exact pass with an
infinite cache. What hits is held against what the plan declares: a session's own history, shared
system prompts, tools and documents, repeats on purpose. The rest is accidental, and refused.

A live reply is not known yet: a text of its own stands for it. Nothing behind a reply can be shared
by accident unless two sessions were given the same prompt, which is found at that prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from loadkit.analysis import per_request
from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import IntArray
from loadkit.traces import TokenRequest, token_trace
from loadkit.traffic.plan import Message, SessionPlan, TrafficPlan, Turn
from loadkit.traffic.requests import PlannedRequest, ReplyText, requests_of

NUM_EXAMPLES = 5
_AT_ONCE = 256
_PROBES = ("0 first", "z second")


@dataclass(frozen=True)
class FreshnessReport:
    """Prompt tokens that will hit in an infinite cache which starts empty, by what declared them.

    continuation: the session's own history. retries: its own request sent again. shared: system
    prompts, tools, documents, what sub-agents inherit, and the chat template's own words. repeats:
    requests sent again on purpose (wraps, common questions, priming, a replayed log).
    edge: in the block where a declared prefix ends and the first words behind it happen to agree;
    fewer than a block a request. accidental: in blocks that hold nothing declared; 0 if fresh.
    openings_only: later turns were not looked at, and are in none of the figures.
    """

    block_size: int
    requests: int
    prompt_tokens: int
    continuation: int
    retries: int
    shared: int
    repeats: int
    edge: int
    accidental: int
    examples: tuple[str, ...] = ()
    openings_only: bool = False

    @property
    def is_fresh(self) -> bool:
        return self.accidental == 0

    @property
    def hit_rate(self) -> float | None:
        """All hit tokens / prompt tokens, infinite cache; None without a prompt token."""
        hits = self.continuation + self.retries + self.shared + self.repeats + self.edge
        return (hits + self.accidental) / self.prompt_tokens if self.prompt_tokens else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"hit_rate": self.hit_rate}

    def require_fresh(self, where: str) -> None:
        """InputError if prompts share blocks that the profile declares nothing of."""
        if self.is_fresh:
            return
        raise InputError(
            f"{self.accidental:,} of {self.prompt_tokens:,} prompt tokens would hit by accident, "
            f"not by anything that the profile declares: {'; '.join(self.examples)}",
            where=where,
            remedy="take a richer corpus, fewer sessions, or longer messages; or declare the "
            "reuse as system_prompts, repeat_share or wrap",
        )


def check_fresh(
    plan: TrafficPlan,
    tokenizer: Tokenizer,
    block_size: int,
    *,
    openings_only: bool = False,
    reply: ReplyText | None = None,
) -> FreshnessReport:
    """Count what a plan's requests share, by cause, under the served tokenizer and block size.

    openings_only: look at requests that begin a history, which are the only ones that can share by
    accident: a later turn stands behind its session's own opening. Much faster for long sessions;
    continuation is not counted then. (An opening shorter than a block behind what is declared, with
    recorded replies that agree, is seen by the full check alone.)
    reply: texts that stand for live replies; None: a short one each. Their length moves hit_rate.
    """
    requests = sorted(
        requests_of(plan, reply=reply or _reply_text), key=lambda request: request.at_s
    )
    if openings_only:
        requests = [request for request in requests if _opens(request)]
    declared = _Declared(tokenizer)
    trace = token_trace(_token_requests(requests, tokenizer), block_size)
    prefixes = np.array([declared.tokens(request) for request in requests], np.int64)
    repeat = np.array([_is_repeat(request) for request in requests], bool)
    prefixes = np.maximum(prefixes, _repeated_before(requests, repeat, trace.prompt_tokens))
    found = per_request(trace, None)
    hits, own = found.reusable_tokens, found.own_prefix_tokens
    retry = np.array([request.turn.retry for request in requests], bool)
    repeat &= ~retry
    rest = ~retry & ~repeat
    inside = np.minimum(hits, np.maximum(own, prefixes))
    edges = np.maximum(own, -(-prefixes // block_size) * block_size)
    accidental = np.maximum(0, hits - edges) * rest
    return FreshnessReport(
        block_size=block_size,
        requests=len(requests),
        prompt_tokens=int(trace.prompt_tokens.sum()),
        continuation=int(np.minimum(hits, own)[rest].sum()),
        retries=int(hits[retry].sum()),
        shared=int((inside - np.minimum(hits, own))[rest].sum()),
        repeats=int(hits[repeat].sum()),
        edge=int((np.minimum(hits, edges) - inside)[rest].sum()),
        accidental=int(accidental.sum()),
        examples=_examples(requests, accidental),
        openings_only=openings_only,
    )


def _reply_text(session: SessionPlan, number: int, turn: Turn) -> str:
    if session.replies == "recorded" and turn.recorded_reply is not None:
        return turn.recorded_reply
    digest = blake2b(f"{session.session} {number}".encode(), digest_size=8).hexdigest()
    return f"{digest} stands for a live reply"


def _opens(request: PlannedRequest) -> bool:
    """Whether it begins a history: a session's first request, a compaction, or a bare prompt."""
    turn, first = request.turn, request.number == request.session.first_turn
    return (first or turn.compacts or turn.prompt is not None) and not turn.retry


def _is_repeat(request: PlannedRequest) -> bool:
    """A replayed log's rows all are; else the first request of a session that says so."""
    session = request.session
    return session.repeats and (not session.guarded or request.number == session.first_turn)


def _repeated_before(
    requests: Sequence[PlannedRequest], repeat: Any, prompt_tokens: IntArray
) -> IntArray:
    """Tokens (n,) of the repeated prompt that a session's later turns begin with; 0 without one."""
    first: dict[str, int] = {}
    for row in np.flatnonzero(repeat).tolist():
        first.setdefault(requests[row].session.session, int(prompt_tokens[row]))
    return np.array([first.get(request.session.session, 0) for request in requests], np.int64)


def _examples(requests: Sequence[PlannedRequest], accidental: Any) -> tuple[str, ...]:
    rows = islice(np.flatnonzero(accidental), NUM_EXAMPLES)
    return tuple(
        f"{requests[row].session.session} turn {requests[row].number}: {int(accidental[row])} tokens"
        for row in map(int, rows)
    )


def _token_requests(
    requests: Sequence[PlannedRequest], tokenizer: Tokenizer
) -> Iterator[TokenRequest]:
    waiting = iter(requests)
    while batch := list(islice(waiting, _AT_ONCE)):
        yield from _encoded(batch, tokenizer)


def _encoded(batch: Iterable[PlannedRequest], tokenizer: Tokenizer) -> Iterator[TokenRequest]:
    chats = [one for one in batch if one.turn.prompt is None]
    texts = [tokenizer.render_chat(one.messages, one.session.tools) for one in chats]
    ids = iter(tokenizer.encode_batch(texts))
    for one in batch:
        prompt = one.turn.prompt
        if prompt is None:
            tokens: Sequence[int] = next(ids)
        else:
            tokens = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        yield TokenRequest(tokens, session=one.session.session)


class _Declared:
    """How many leading tokens of a request its session shares with others on purpose."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._known: dict[bytes, int] = {}
        self._inherited: dict[str, int] = {}

    def tokens(self, request: PlannedRequest) -> int:
        session, prompt = request.session, request.turn.prompt
        if isinstance(prompt, tuple):
            return session.shared
        if isinstance(prompt, str):
            return self._remembered(prompt[: session.shared], (), session)
        if session.inherits_history:
            return self._of_parent(request)
        return self._remembered(None, tuple(request.messages[: session.shared]), session)

    def _of_parent(self, request: PlannedRequest) -> int:
        """Known from a sub-agent's first request, whose own messages stand behind what it has of
        its parent."""
        name = request.session.session
        if name not in self._inherited:
            before = request.messages[: len(request.messages) - len(request.turn.messages)]
            self._inherited[name] = self._common(None, before, request.session)
        return self._inherited[name]

    def _remembered(
        self, text: str | None, messages: tuple[Message, ...], session: SessionPlan
    ) -> int:
        key = msgspec.json.encode((text, messages, session.tools))
        if key not in self._known:
            self._known[key] = self._common(text, messages, session)
        return self._known[key]

    def _common(self, text: str | None, messages: Sequence[Message], session: SessionPlan) -> int:
        """Tokens that two prompts have in common which differ right behind the declared part."""
        if text is not None:
            first, second = (self._tokenizer.encode(text + probe) for probe in _PROBES)
        else:
            first, second = (
                self._tokenizer.encode_chat(
                    [*messages, {"role": "user", "content": probe}], session.tools
                )
                for probe in _PROBES
            )
        pairs = zip(first, second, strict=False)
        return next((at for at, (one, other) in enumerate(pairs) if one != other), len(first))
