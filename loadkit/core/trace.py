"""A log in memory: requests as columns, their block chains as one CSR array."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from loadkit.core.chats import Chats

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Places:
    """Where a log's rows stand. n = requests."""

    paths: tuple[str, ...]
    path: npt.NDArray[np.int32]  # (n,) which of the paths
    line: IntArray  # (n,) from 1; rows of a table

    def at(self, row: int) -> str:
        """`file:line` of a request."""
        return f"{self.paths[self.path[row]]}:{self.line[row]}"


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival. n = requests, m = block touches, u = distinct blocks.

    block_ids holds dense ids 0..u-1; equal id means equal prefix (ids are chained). A format that
    gives an id to the partial last block keeps it (Mooncake); others have full blocks only.

    The resident chain is what a request leaves in the cache when it completes: the prompt's blocks
    and the full blocks of the reply. None: replies are not in the log, prompt blocks stand for all.
    partial_page says that a request also occupied a page for its unfinished last block, which can
    never hit but takes room in an engine's LRU queue. chats are the requests' texts for the
    append-only audit; no figure is counted from them. tenants are who the log says shares nothing, or
    who pays: forecasts can be asked to grow them whole. block_hashes are what the ids stood for where
    loadkit hashed the tokens itself, so equal in every log that has the prefix. kept_blocks: of a model
    whose states or windows are kept at a few places only, see `analysis.kept`.
    """

    block_size: int
    prompt_tokens: IntArray  # (n,)
    block_ptr: IntArray  # (n + 1,)
    block_ids: IntArray  # (m,)
    prompt_key: IntArray  # (n,) equal for identical whole prompts
    session: IntArray  # (n,) dense ids
    num_sessions: int
    sessions_inferred: bool
    output_tokens: IntArray  # (n,) UNKNOWN where the log does not say
    arrival_s: FloatArray | None = None  # (n,) None: a corpus without time
    completed_s: FloatArray | None = None  # (n,) when replies entered the cache
    resident_ptr: IntArray | None = None  # (n + 1,)
    resident_ids: IntArray | None = None
    partial_page: npt.NDArray[np.bool_] | None = None  # (n,)
    warnings: tuple[str, ...] = ()
    chats: Chats | None = None  # n rows; None: the log has no text
    places: Places | None = None  # None: not read from files
    tenant: IntArray | None = None  # (n,) dense ids; None: the log names none
    block_hashes: IntArray | None = None  # (u,) by id; None: a log of ids
    kept_blocks: tuple[int, ...] = ()  # a kind of layer each; empty: every block is kept

    @property
    def num_requests(self) -> int:
        return len(self.prompt_tokens)

    def without_replies(self) -> Trace:
        """The prompts alone: what replies leave in the cache is forgotten. That is what a replay can
        hit, whose histories hold the log's replies, which the replaying server never computed."""
        return replace(self, resident_ptr=None, resident_ids=None)

    @property
    def num_blocks(self) -> int:
        """Block touches of prompts, m."""
        return len(self.block_ids)

    @property
    def num_unique_blocks(self) -> int:
        """Distinct prompt blocks (blocks only seen in replies do not count)."""
        seen = np.zeros(self.num_ids, np.bool_)  # sorting would take a copy of every touch
        seen[self.block_ids] = True
        return int(seen.sum())

    @property
    def num_ids(self) -> int:
        """Size of the id space, replies included."""
        top = int(self.block_ids.max(initial=-1))
        if self.resident_ids is not None:
            top = max(top, int(self.resident_ids.max(initial=-1)))
        return top + 1
