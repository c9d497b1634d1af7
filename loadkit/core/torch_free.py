"""`transformers` without torch, in loadkit's own commands: tokenising needs none of it, and
importing it takes longer than reading most logs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_is_forgone = False


def forgo_torch() -> None:
    """Said once by a process that tokenises but runs no model; a library's user never says it."""
    global _is_forgone
    _is_forgone = True


@contextmanager
def torch_hidden() -> Iterator[None]:
    """Inside, `transformers` is told that there is no torch, as after an install without it.

    It asks once and keeps the answer, so that its tokenizers load in a third of the time and its
    models not at all. `import torch` works again afterwards. Nothing is hidden where torch or
    `transformers` is loaded already, nor unless `forgo_torch` was called.
    """
    if not _is_forgone or not sys.modules.keys().isdisjoint({"torch", "transformers"}):
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # "not to be had", to every import
    try:
        yield
    finally:
        del sys.modules["torch"]
