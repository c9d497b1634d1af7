"""`compiled`: numba's njit with a type that mypy can follow. Importing this module imports numba.

Compiled code is cached on disk beside the source. A cached function does not notice a change in a
compiled function of another file, so kernels that call each other share one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., object])


def compiled(function: AnyFunction) -> AnyFunction:
    """Compile `function` on its first call (about a second), from the disk cache afterwards."""
    return cast(AnyFunction, njit(cache=True)(function))
