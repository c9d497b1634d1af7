"""Block ids for a log that is shared: numbers of one file, or hashes that key holders can link.

A hash of a guessable prompt is found by hashing guesses, and a salt that stands beside it changes
nothing. So an id is a number in order of appearance; with an outside key the blocks that at least
MIN_SESSIONS sessions sent are keyed hashes (blake2b, keyed, of the chained hash of the tokens),
equal in every file written with that key. What fewer sessions sent is nobody's but theirs and
stays a number, so not even the key holder finds it by guessing.

Keyed ids are negative and numbers are not: the two never meet.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import numpy as np

from loadkit.core.errors import InputError
from loadkit.core.trace import UNKNOWN, IntArray, Trace
from loadkit.traces.interning import dense_by_appearance

MIN_SESSIONS = 5
_MIN_KEY_BYTES = 32
_LOWEST = -(2**63)


def read_key(path: Path) -> bytes:
    """The key of a file of at least 32 bytes, white space around it left out. InputError if not."""
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    if len(content) < _MIN_KEY_BYTES:
        raise InputError(
            f"{len(content)} bytes are no key that withstands guessing",
            where=path,
            remedy="32 random bytes: openssl rand -hex 32 > FILE",
        )
    return hashlib.blake2b(content).digest()


def check_linkable(trace: Trace) -> None:
    """InputError for a log whose ids cannot be linked to another's."""
    if trace.block_hashes is None:
        raise InputError(
            "the log has block ids and no tokens: there is nothing to hash with a key",
            where="--hash-key",
            remedy="leave it out, or give the log of texts or token ids",
        )
    if trace.sessions_inferred:
        raise InputError(
            f"which blocks {MIN_SESSIONS} sessions sent is not known: the log's sessions are inferred",
            where="--hash-key",
            remedy="leave it out, or log sessions",
        )


def first_number(key: bytes | None) -> int:
    """Where a file's own numbers start: 0, or with a key far from where any other file's do.

    Files of one key can then be read as one log, without their numbers meaning each other.
    """
    return 0 if key is None else secrets.randbits(62)


def written_ids(trace: Trace, key: bytes | None, first: int) -> IntArray:
    """(num_ids,) the id to write for every id; UNKNOWN for one that no request has.

    Numbers go up from `first` as blocks appear, those of replies after those of prompts.
    """
    ids = trace.block_ids
    if trace.resident_ids is not None:
        ids = np.concatenate([ids, trace.resident_ids])
    written = np.full(trace.num_ids, UNKNOWN, np.int64)
    written[ids] = first + dense_by_appearance(ids)
    if key is not None and trace.block_hashes is not None:
        common = np.flatnonzero(_num_sessions(trace) >= MIN_SESSIONS)
        written[common] = [_keyed(value, key) for value in trace.block_hashes[common].tolist()]
    return written


def _num_sessions(trace: Trace) -> IntArray:
    """(num_ids,) sessions that sent the block in a prompt; its parents have at least as many."""
    sent_by = np.repeat(trace.session, np.diff(trace.block_ptr))
    pairs = np.unique(trace.block_ids * trace.num_sessions + sent_by)
    return np.bincount(pairs // trace.num_sessions, minlength=trace.num_ids)


def _keyed(value: int, key: bytes) -> int:
    """63 bits of the keyed hash, as a negative number."""
    content = value.to_bytes(8, "little", signed=True)
    digest = hashlib.blake2b(content, key=key, digest_size=8).digest()
    return _LOWEST | (int.from_bytes(digest, "little") >> 1)
