"""When bytes arrived, as the kernel saw it: exact also while this process was busy elsewhere.

Linux stamps each received segment (SO_TIMESTAMPNS) and hands the stamp over beside the data. The
stamp is on the wall clock. It is carried over to the monotonic clock by its age at the moment of
reading, so no offset between the clocks is kept that a step or slew could make wrong. A stamp that
would lie before the bytes could have come, or in the future, is not believed.

Segments that arrived between two reads come in one piece, and its stamp is the last one's: the
first of them is then stamped too late, by no more than we were late to read.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the same on x86, ARM and RISC-V
ANCILLARY_BYTES = socket.CMSG_SPACE(16) if hasattr(socket, "CMSG_SPACE") else 0
_unpack = struct.Struct("@qq").unpack  # struct timespec of a 64-bit system
_SIZE = 16


def enable(sock: Any) -> bool:
    """Ask for stamps on a TCP socket. False where there are none to be had."""
    if not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def arrived_at(
    stamp: bytes, earliest: float, now: float, clock: Callable[[], float] = time.monotonic
) -> float:
    """Monotonic time of the stamp; `now` when it is not between `earliest` and `now`.

    stamp: the ancillary data of a receive that has just returned. now: monotonic time, read just
    before this call. The wall clock is read before the monotonic one, so whatever passes between
    the two makes the result late, never earlier than the bytes came.
    """
    if len(stamp) != _SIZE:
        return now
    seconds, nanoseconds = _unpack(stamp)
    age_ns = time.time_ns() - (seconds * 1_000_000_000 + nanoseconds)
    at = clock() - age_ns * 1e-9
    return min(at, now) if earliest <= at else now
