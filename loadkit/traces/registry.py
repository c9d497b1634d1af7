"""Which reader a log needs: detected from its first rows, or named by the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from loadkit.core.errors import FormatError, InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.traces import (
    anthropic,
    bailian,
    chats,
    gemini,
    hashed,
    lmcache,
    longbench,
    mooncake,
    openai,
    openai_batch,
    otel,
    responses,
    sharegpt,
    tau_bench,
    weka,
)
from loadkit.traces.id_rows import IdRow
from loadkit.traces.reading import Progress, Reading
from loadkit.traces.texts import DEFAULT_BLOCK_SIZE, HashedTexts, Requests, text_trace

_DETECT_ROWS = 20
_CHAT_BODIES = (openai.NAME, anthropic.NAME)
# In the order in which they are tried: the ones with the most telling keys first.
_ID_FORMATS: dict[str, ModuleType] = {
    module.NAME: module for module in (hashed, bailian, mooncake, weka)
}
_TEXT_FORMATS: dict[str, ModuleType] = {
    module.NAME: module
    for module in (
        openai_batch,
        otel,
        sharegpt,
        tau_bench,
        chats,
        longbench,
        lmcache,
        gemini,
        anthropic,
        responses,
        openai,
    )
}
FORMATS = tuple((_ID_FORMATS | _TEXT_FORMATS).keys())
TEXT_FORMATS = tuple(_TEXT_FORMATS)
# Their rows are whole sessions, which get numbers as they are read.
SESSION_ROWS = (weka.NAME, sharegpt.NAME, tau_bench.NAME, chats.NAME)


@dataclass(frozen=True, slots=True)
class Log:
    """A log as read. tokenizer_fingerprint is None where the log came as ids."""

    trace: Trace
    format: str
    paths: tuple[Path, ...]
    tokenizer_fingerprint: str | None = None


def read_log(
    paths: Sequence[Path],
    *,
    format: str = "auto",
    tokenizer: Tokenizer | None = None,
    block_size: int | None = None,
    strict: bool = False,
    skip_bad: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Log:
    """Read files as one log, in the order given.

    A path may be JSONL, a JSON array, either with .gz or .zst, a .parquet file, or `hf:NAME[:split]`
    for a dataset. block_size None: what the log says, else the format's own (16 for text).
    skip_bad: rows that do not fit are skipped, and counted and listed in the trace's warnings; ids
    with two parents still refuse the log. strict: any warning is an error. Raises InputError
    (FormatError with file and line for a row) for everything a user can correct.
    """
    _check_options(block_size, strict, skip_bad)
    name = detect(paths, skip_bad=skip_bad) if format == "auto" else _known(format)
    reading = Reading(paths, skip_bad=skip_bad, on_progress=on_progress, recognise=other_than(name))
    if name in _ID_FORMATS:
        trace = _ID_FORMATS[name].read(reading, block_size)
    else:
        requests, notes = text_requests(name, reading)
        trace = text_trace(reading, requests, tokenizer, block_size, notes)
    if strict and trace.warnings:
        raise InputError(
            "; ".join(trace.warnings),
            where=", ".join(map(str, paths)),
            remedy="correct the log, or read it without --strict",
        )
    tokenised = tokenizer is not None and name in _TEXT_FORMATS
    return Log(
        trace, name, tuple(paths), tokenizer.fingerprint if tokenised and tokenizer else None
    )


@dataclass(frozen=True, slots=True)
class IdStream:
    """A log of any format as block ids, one request after another, in bounded memory.

    notes: warnings of the format, asked for once all rows are read. one_clock False: rows out of
    time are no fault.
    """

    rows: Iterator[IdRow]
    default_block_size: int
    notes: Callable[[], Sequence[str]] = tuple
    one_clock: bool = True


def id_stream(
    name: str,
    reading: Reading,
    tokenizer: Tokenizer | None = None,
    block_size: int | None = None,
) -> IdStream:
    """The prompts of a log in the format `name`. Text is tokenised on the way (InputError if it
    needs a tokenizer and there is none); replies are left out."""
    _check_options(block_size, strict=False, skip_bad=False)
    if _known(name) == weka.NAME:
        sessions = weka.Sessions()
        rows = sessions.id_rows(reading)
        return IdStream(rows, weka.DEFAULT_BLOCK_SIZE, sessions.notes, one_clock=False)
    if name in _ID_FORMATS:
        module = _ID_FORMATS[name]
        return IdStream(module.id_rows(reading), module.DEFAULT_BLOCK_SIZE)
    size = block_size or DEFAULT_BLOCK_SIZE
    requests, notes = text_requests(name, reading)
    texts = HashedTexts(reading, requests, tokenizer, size)
    return IdStream(texts.id_rows(), size, lambda: [*notes(), *texts.notes()])


def read_trace(
    paths: Sequence[Path],
    *,
    format: str = "auto",
    tokenizer: Tokenizer | None = None,
    block_size: int | None = None,
) -> Trace:
    """`read_log` for callers that need the Trace alone."""
    return read_log(paths, format=format, tokenizer=tokenizer, block_size=block_size).trace


def detect(paths: Sequence[Path], *, skip_bad: bool = False) -> str:
    """Name of the format that the first rows fit. FormatError names the keys if none does.

    The first row says it, with skip_bad the first of 20 that any format fits. Messages alone may be
    OpenAI's or Anthropic's, which the first of 20 rows that has more decides.
    """
    reading = Reading(paths, skip_bad=skip_bad)
    unknown: FormatError | None = None
    found: str | None = None
    for place, row in islice(reading.rows(dict[str, Any]), _DETECT_ROWS):
        name = recognise(row)
        if name is not None and (name != openai.NAME or not openai.may_be_anthropic(row)):
            return found if found and name not in _CHAT_BODIES else name
        found = found or name
        remedy = f"known formats: {', '.join(FORMATS)}; --format overrides the detection"
        unknown = unknown or (None if name else place.error(_unknown(row), remedy))
        if not skip_bad and not found:
            break
    if found:
        return found
    raise unknown or reading.empty()


def recognise(row: dict[str, Any]) -> str | None:
    """Name of the format that a row looks like."""
    for name, module in (_ID_FORMATS | _TEXT_FORMATS).items():
        if module.matches(row):
            return name
    return None


def other_than(format: str) -> Callable[[dict[str, Any]], str | None]:
    """`recognise` for a log in this format: None for a row that looks like its own."""

    def other(row: dict[str, Any]) -> str | None:
        name = recognise(row)
        return None if name == format else name

    return other


def text_requests(name: str, reading: Reading) -> tuple[Requests, Callable[[], Sequence[str]]]:
    """The requests of a log in the text format `name`, and its warnings once they are all read.

    What the prompts hold that is not counted is told to the reading's `gaps`.
    """
    rows, notes = _requests_and_notes(name, reading)
    return _with_gaps(rows, reading), notes


def _requests_and_notes(
    name: str, reading: Reading
) -> tuple[Requests, Callable[[], Sequence[str]]]:
    if name == otel.NAME:
        spans = otel.Spans()
        return spans.requests(reading), spans.notes
    if name == sharegpt.NAME:
        talks = sharegpt.Conversations()
        return talks.requests(reading), talks.notes
    if name == responses.NAME:
        return responses.Conversations().requests(reading), tuple
    module = _TEXT_FORMATS[name]
    notes = [module.NOTE] if hasattr(module, "NOTE") else []
    return module.requests(reading), lambda: notes


def _with_gaps(rows: Requests, reading: Reading) -> Requests:
    for place, request in rows:
        if request.prompt_ids is None:  # else the server's own ids are the prompt, with all it had
            reading.gaps.messages(place, request.messages or ())
            for what in request.missing:
                reading.gaps.missing(place, what)
        yield place, request


def _check_options(block_size: int | None, strict: bool, skip_bad: bool) -> None:
    if block_size is not None and block_size < 1:
        raise InputError(f"block size {block_size} is below 1", where="--block-size")
    if strict and skip_bad:
        raise InputError(
            "--strict refuses what --skip-bad lets pass",
            where="--strict",
            remedy="give one of them",
        )


def _unknown(row: dict[str, Any]) -> str:
    keys = ", ".join(sorted(map(str, row))[:8])
    return f"unknown log format with the keys: {keys or 'none'}"


def _known(name: str) -> str:
    if name not in FORMATS:
        raise InputError(
            f"unknown format {name!r}", where="--format", remedy=f"one of {', '.join(FORMATS)}"
        )
    return name
