"""`synthesize`: a log's sharing structure at R times its traffic, as a workload without its text."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import numpy as np

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.core.units import plural
from loadkit.corpora import Corpus
from loadkit.forecast.refuse import MIN_SESSIONS
from loadkit.synthesize.check import Check
from loadkit.synthesize.paths import Plan, plan_requests
from loadkit.synthesize.words import single_token_words
from loadkit.synthesize.writers import (
    FIRST_TOKEN_ID,
    ChatWriter,
    TokenIdWriter,
    Writer,
    Written,
)

SCHEMA = "loadkit.synthesis/1"
DEFAULT_VOCAB_SIZE = 32_000
_ROWS_AT_ONCE = 64


class Synthesis(msgspec.Struct, frozen=True):
    """What was written, and where it is not what was planned.

    form: "messages" or "token_ids". longer_requests had to leave the blocks that they share to end
    as the chat template ends, and are added_tokens longer in all. lost_blocks: full prompt blocks
    whose text is not one-to-one with the log's block, out of prompt_blocks; lost_prompts and
    wrong_lengths alike, of requests. All are 0 in a workload that is exactly as planned.
    """

    requests: int
    sessions: int
    prompt_tokens: int
    block_size: int
    traffic: float
    form: str
    seed: int
    has_times: bool
    has_replies: bool
    prompt_blocks: int
    longer_requests: int
    added_tokens: int
    lost_blocks: int
    lost_prompts: int
    wrong_lengths: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object `loadkit.synthesis/1`."""
        return {"schema": SCHEMA, **msgspec.to_builtins(self)}


def synthesize_chats(
    trace: Trace, traffic: float, out: Path, tokenizer: Tokenizer, corpus: Corpus, seed: int = 0
) -> Synthesis:
    """Write chats made of the corpus's words, of exactly as many tokens as planned.

    `tokenizer` with its chat template should be the served one: under another, lengths and blocks
    are others. InputError if text of exact length cannot be written with it.
    """
    _check(trace, traffic)
    plan = plan_requests(trace, traffic, seed)
    writer = ChatWriter(plan, tokenizer, single_token_words(tokenizer, corpus), seed)
    return _synthesis(trace, plan, writer, out, (traffic, "messages", seed))


def synthesize_token_ids(
    trace: Trace, traffic: float, out: Path, vocab_size: int = DEFAULT_VOCAB_SIZE, seed: int = 0
) -> Synthesis:
    """Write prompts as random token ids from 1000 to below `vocab_size`, which needs no tokenizer."""
    _check(trace, traffic)
    if vocab_size < 2 * FIRST_TOKEN_ID:
        raise InputError(
            f"{vocab_size} token ids are too few", where="--vocab-size", remedy="at least 2000"
        )
    plan = plan_requests(trace, traffic, seed)
    writer = TokenIdWriter(plan, vocab_size, seed)
    return _synthesis(trace, plan, writer, out, (traffic, "token_ids", seed))


def _check(trace: Trace, traffic: float) -> None:
    if not trace.num_requests:
        raise InputError("the log is empty")
    if not traffic > 0 or not math.isfinite(traffic):
        raise InputError(f"traffic {traffic} is not above 0", where="--traffic")


def _synthesis(
    trace: Trace, plan: Plan, writer: Writer, out: Path, asked: tuple[float, str, int]
) -> Synthesis:
    check = Check(plan.block_size)
    with _WholeFile(out) as file:
        tokens, blocks = _write(plan, writer, check, file)
    traffic, form, seed = asked
    found = Synthesis(
        requests=len(plan.prompt_tokens),
        sessions=len(np.unique(plan.session)),
        prompt_tokens=tokens,
        block_size=plan.block_size,
        traffic=traffic,
        form=form,
        seed=seed,
        has_times=plan.arrival_s is not None,
        has_replies=bool((plan.reply_tokens >= 0).any()),
        prompt_blocks=blocks,
        longer_requests=writer.longer_requests,
        added_tokens=writer.added_tokens,
        lost_blocks=check.lost_blocks,
        lost_prompts=check.lost_prompts,
        wrong_lengths=check.wrong_lengths,
        warnings=trace.warnings,
    )
    made = (*_small(trace, traffic), *_warnings(found))
    return msgspec.structs.replace(found, warnings=(*trace.warnings, *made))


def _small(trace: Trace, traffic: float) -> Iterator[str]:
    """What `forecast` refuses to grow is grown here, but not without a word."""
    if traffic != 1 and trace.num_sessions < MIN_SESSIONS:
        yield (
            f"the log has {plural(trace.num_sessions, 'session')}, fewer than {MIN_SESSIONS}: nobody"
            " knows what others production has, and `loadkit forecast` refuses at this traffic. Take"
            " the workload for what these sessions share, not for production"
        )


def _write(plan: Plan, writer: Writer, check: Check, file: BinaryIO) -> tuple[int, int]:
    """Write all rows; prompt tokens and full prompt blocks written."""
    names: dict[int, str] = {}
    num_tokens = num_blocks = 0
    for start in range(0, len(plan.prompt_tokens), _ROWS_AT_ONCE):
        rows = range(start, min(start + _ROWS_AT_ONCE, len(plan.prompt_tokens)))
        written = [writer.write(row) for row in rows]
        prompts = writer.tokens([each.body for each in written])
        for row, each, ids in zip(rows, written, prompts, strict=True):
            check.add(ids, each.prompt_tokens, each.keys.tolist(), int(plan.prompt_key[row]))
            name = names.setdefault(int(plan.session[row]), f"session-{len(names):06d}")
            file.write(msgspec.json.encode(_row(plan, row, name, each)) + b"\n")
            num_tokens += each.prompt_tokens
            num_blocks += each.prompt_tokens // plan.block_size
    return num_tokens, num_blocks


def _row(plan: Plan, row: int, name: str, written: Written) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if plan.arrival_s is not None:
        out["timestamp"] = round(float(plan.arrival_s[row]), 6)
    out |= {"session_id": name, **written.body}
    if plan.asked_tokens[row] > 0:
        out["max_tokens"] = int(plan.asked_tokens[row])
    if written.response is not None:
        out["response"] = {**written.response, "finish_reason": "stop"}
        if np.isfinite(plan.latency_s[row]):
            out["response"]["latency_s"] = round(float(plan.latency_s[row]), 6)
    return out


def _warnings(found: Synthesis) -> Iterator[str]:
    if found.longer_requests:
        yield (
            f"{found.longer_requests:,} of {found.requests:,} prompts are longer by"
            f" {found.added_tokens / found.longer_requests:.1f} tokens on average: the chat"
            " template's end did not fit into blocks that they share"
        )
    if found.lost_blocks:
        yield (
            f"{found.lost_blocks:,} of {found.prompt_blocks:,} prompt blocks are not shared as in"
            " the log: too little of them is left beside the chat template"
        )
    if found.lost_prompts:
        yield f"not repeated as in the log: {plural(found.lost_prompts, 'prompt')}"
    if found.wrong_lengths:
        yield (
            f"of another number of tokens than planned: {plural(found.wrong_lengths, 'prompt')}; this"
            " tokenizer joins words across spaces"
        )


class _WholeFile:
    """A file written to a temporary name and renamed when done; gzip if its name says so."""

    def __init__(self, path: Path):
        self.path = path
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> BinaryIO:
        try:
            opener = gzip.open if self.path.suffix == ".gz" else open
            self._file = cast(BinaryIO, opener(self._unfinished, "wb"))
        except OSError as error:
            raise self._failed(error) from error
        return self._file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._file.close()
            if error is None:
                self._unfinished.replace(self.path)
        except OSError as failure:
            raise self._failed(failure) from failure
        finally:
            with suppress(OSError):
                self._unfinished.unlink()
        if isinstance(error, OSError):
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> InputError:
        return InputError(f"cannot be written: {error.strerror}", where=self.path)
