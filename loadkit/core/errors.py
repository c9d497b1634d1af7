"""The error tree. Every message says what is wrong, where, and what to do.

LoadkitError                 root; never raised itself
├── InputError       exit 2  a log, profile, option or endpoint that the user can correct
│   └── FormatError  exit 2  a row of a log that does not fit its format; carries file and line
├── CannotMeasure    exit 3  the input is fine but no honest figure can be made from it
├── InternalError    exit 3  loadkit found an impossible number of its own; nothing is printed
└── GateFailed       exit 1  the gate was asked and said FAIL
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LoadkitError(Exception):
    """Root of all errors that loadkit raises on purpose; `exit_code` is what the CLI returns."""

    exit_code = 2


class InputError(LoadkitError):
    """Bad usage, configuration or input. `where` is a file, `file:line`, option or URL."""

    exit_code = 2

    def __init__(self, what: str, *, where: str | Path | None = None, remedy: str | None = None):
        self.what, self.where, self.remedy = what, where, remedy
        place = f"{where}: " if where is not None else ""
        super().__init__(f"{place}{what}" + (f" ({remedy})" if remedy else ""))


class FormatError(InputError):
    """A row that does not fit its format. `line` counts from 1."""

    def __init__(self, what: str, *, path: str | Path, line: int, remedy: str | None = None):
        super().__init__(what, where=f"{path}:{line}", remedy=remedy)
        self.path, self.line = path, line


class CannotMeasure(LoadkitError):
    """Nothing honest can be said: too few samples, nothing reported, no request sent.

    `code` is one of the gate's codes where one applies, so a caller need not parse the text.
    """

    exit_code = 3

    def __init__(self, what: str, *, code: str | None = None, remedy: str | None = None):
        self.what, self.code, self.remedy = what, code, remedy
        super().__init__(what + (f" ({remedy})" if remedy else ""))


class InternalError(LoadkitError):
    """A figure that cannot be: a negative part, or a rate outside 0..1. A fault of loadkit.

    It is raised where results are made, so that such a figure is never printed or written.
    """

    exit_code = 3

    def __init__(self, what: str):
        super().__init__(
            f"{what}: this is a fault of loadkit, not of your input; nothing was reported (please"
            " report it, with the command and what it read)"
        )


class GateFailed(LoadkitError):
    """The gate's verdict is FAIL."""

    exit_code = 1


_REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT): "free some space there",
    (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
    ): "give yourself the right to it, or choose another place",
    (errno.ENOENT, errno.ENOTDIR, errno.ESTALE): "was it moved or removed meanwhile?",
    (errno.EMFILE, errno.ENFILE): "raise the limit of open files, `ulimit -n`",
    (errno.EAGAIN, errno.ENOMEM): "the machine has no more memory or processes to give",
    (errno.EADDRINUSE,): "another program listens there: choose another port",
    (errno.EIO,): "the disk reports a fault: look at the system's log",
}


def what_failed(error: OSError) -> str:
    """`PATH: No space left on device (ENOSPC)`. Where the system names no path, the place in the
    program that asked for it."""
    name = errno.errorcode.get(error.errno or 0)
    said = (error.strerror or str(error) or type(error).__name__) + (f" ({name})" if name else "")
    paths = [str(one) for one in (error.filename, error.filename2) if one is not None]
    if paths:
        return f"{' -> '.join(paths)}: {said}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "loadkit" in Path(frame.filename).parts]
    return f"{said}, in {Path(ours[-1].filename).stem}.{ours[-1].name}" if ours else said


def what_to_do(error: OSError) -> str:
    """In a few words, by the kind of error."""
    for kinds, remedy in _REMEDIES.items():
        if error.errno in kinds:
            return remedy
    return "see to that, then try again"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of what is done here carries this path if the system names none: a full disk is
    told by `write`, which knows no names."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
