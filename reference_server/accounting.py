"""Why each prompt token hit or missed: what this server has seen, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from loadkit.core.blocks import max_hit_blocks
from loadkit.core.split import Split, attribute
from reference_server.bounded import BoundedSet
from reference_server.request import Request

MAX_PROMPTS = 200_000
MAX_SESSIONS = 20_000
MAX_OWN_BLOCKS = 500_000


class OwnBlocks:
    """The blocks that each session had in its chains; the session used longest ago is forgotten.

    At most `max_sessions` sessions and `max_blocks` block hashes over all of them.
    """

    def __init__(self, max_sessions: int = MAX_SESSIONS, max_blocks: int = MAX_OWN_BLOCKS):
        self.max_sessions, self.max_blocks = max_sessions, max_blocks
        self.num_blocks = 0
        self._sessions: OrderedDict[str, set[bytes]] = OrderedDict()

    def num_prefix(self, session: str, hashes: Sequence[bytes]) -> int:
        """How many blocks from the start of a chain the session had before."""
        own: AbstractSet[bytes] = self._sessions.get(session, frozenset())
        for index, block_hash in enumerate(hashes):
            if block_hash not in own:
                return index
        return len(hashes)

    def add(self, session: str, hashes: Iterable[bytes]) -> None:
        own = self._sessions.setdefault(session, set())
        self._sessions.move_to_end(session)
        before = len(own)
        own.update(hashes)
        self.num_blocks += len(own) - before
        while len(self._sessions) > self.max_sessions or self.num_blocks > self.max_blocks:
            _, forgotten = self._sessions.popitem(last=False)
            self.num_blocks -= len(forgotten)

    def clear(self) -> None:
        self._sessions.clear()
        self.num_blocks = 0


class History:
    """What was admitted before, to tell replay, continuation and shared apart.

    A request without a session is its own session: nothing of it is kept as anyone's own.
    """

    def __init__(self, max_prompts: int = MAX_PROMPTS):
        self._prompts: BoundedSet[bytes] = BoundedSet(max_prompts)
        self._prompts_by_session: BoundedSet[tuple[bytes, str]] = BoundedSet(max_prompts)
        self._own = OwnBlocks()

    def admit(self, request: Request, *, num_cached: int, num_evicted: int) -> Split:
        """The split of a request at first admission, which is also noted as seen.

        `num_cached` tokens hit; `num_evicted` tokens of blocks after them were resident once.
        """
        usable = request.hashes[: max_hit_blocks(request.num_prompt, request.block_size)]
        own_blocks = self._own.num_prefix(request.session, usable) if request.session else 0
        split = attribute(
            num_cached,
            prompt_tokens=request.num_prompt,
            own_prefix_tokens=own_blocks * request.block_size,
            replay=self._replay(request),
        )
        self._note(request)
        return msgspec.structs.replace(split, miss_capacity=num_evicted)

    def finish(self, request: Request) -> None:
        """The reply's full blocks are the session's own from now on."""
        if request.session:
            self._own.add(request.session, [n.hash for n in request.nodes if n.hash is not None])

    def is_replay(self, request: Request) -> bool:
        """Whether the identical prompt was admitted before."""
        return request.prompt_key in self._prompts

    def clear(self) -> None:
        self._prompts.clear()
        self._prompts_by_session.clear()
        self._own.clear()

    def _replay(self, request: Request) -> str | None:
        if request.prompt_key not in self._prompts:
            return None
        same = (request.prompt_key, request.session) in self._prompts_by_session
        return "same_session" if same else "cross_session"

    def _note(self, request: Request) -> None:
        self._prompts.add(request.prompt_key)
        if request.session:
            self._prompts_by_session.add((request.prompt_key, request.session))
            self._own.add(request.session, request.hashes)
