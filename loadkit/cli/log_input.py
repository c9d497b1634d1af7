"""What the verbs that read a log share: which and how, reading it, giving the answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from loadkit.cli import options
from loadkit.cli.options import argument, flag, option
from loadkit.core.errors import InputError

if TYPE_CHECKING:
    from loadkit.traces import Log, Progress


@dataclass(frozen=True)
class Source:
    """Log files, and how they are read."""

    logs: Annotated[list[Path], argument("Log files, read as one.", "LOG")]
    format: Annotated[
        str, option("A log format's name; found from the first rows unless given.", "NAME")
    ] = "auto"
    tokenizer: Annotated[
        str | None, option("The served tokenizer, for text logs.", "PATH-OR-NAME")
    ] = None
    block_size: Annotated[
        int | None, option("Tokens a block; the format's own unless given.", "N")
    ] = None

    def read(self, **rows: bool) -> Log:
        """The log, with a progress bar on a terminal; the tokenizer is loaded only if named."""
        from loadkit.core.tokenizer import load_tokenizer
        from loadkit.corpora.public import tell_licences
        from loadkit.traces import read_log

        tell_licences(list(map(str, self.logs)))
        served = None if self.tokenizer is None else load_tokenizer(self.tokenizer)
        with progress_bar() as on_progress:
            return read_log(
                self.logs,
                format=self.format,
                tokenizer=served,
                block_size=self.block_size,
                on_progress=on_progress,
                **rows,
            )


@dataclass(frozen=True)
class CheckedSource(Source):
    """The same, where rows that do not fit may be a reason to stop, or none."""

    strict: Annotated[bool, flag("--strict", "Any warning about the log is an error.")] = False
    skip_bad: Annotated[
        bool, flag("--skip-bad", "Skip rows that do not fit; count and list them.")
    ] = False

    def read(self, **rows: bool) -> Log:
        return super().read(strict=self.strict, skip_bad=self.skip_bad, **rows)


@dataclass(frozen=True)
class Answer:
    """Where the answer goes."""

    json: options.AsJson = False
    output: options.JsonFile = None

    def give(self, data: Mapping[str, Any], show: Callable[[], None]) -> None:
        """To the file, if one was named, and to stdout: as JSON, else as a person reads it."""
        if self.output is not None:
            write_json(self.output, data)
        if self.json:
            print(as_json(data))
        else:
            show()


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None] | None]:
    """A bar on stderr while reading, gone afterwards; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading the log", total=None)

        def show(progress: Progress) -> None:
            total = None if progress.share is None else 1.0
            bar.update(
                task,
                total=total,
                completed=progress.share or 0.0,
                description=f"{progress.rows:,} rows read",
            )

        yield show


def check_folder(*files: Path | None) -> None:
    """InputError for the first file whose folder is not there, before work is done for it."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise InputError("no such folder", where=file.parent, remedy=f"make it for {file.name}")


def as_json(data: Mapping[str, Any]) -> str:
    """One JSON object as text. ValueError for NaN, which JSON does not have."""
    return json.dumps(data, indent=2, allow_nan=False)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write whole or not at all. InputError if the folder cannot be written to."""
    from loadkit.report.files import write_whole

    write_whole(path, as_json(data) + "\n")
