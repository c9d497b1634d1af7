"""Make the predictions for a run with the analyzer's own code: the sent log in, columns out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadkit import analysis
from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.concurrent import simulate_concurrent
from loadkit.core.errors import LoadkitError
from loadkit.core.tokenizer import Tokenizer, load_tokenizer
from loadkit.core.trace import Trace
from loadkit.runs.context import RunContext
from loadkit.runs.prediction import Prediction, Predictions
from loadkit.runs.record import Record
from loadkit.runs.sent import write_sent
from loadkit.traces import read_log

REPLAY_KINDS: tuple[str | None, ...] = (None, "same_session", "cross_session")


class TokenizerFacts(msgspec.Struct, frozen=True):
    """The tokenizer that the prediction was made with."""

    name: str
    fingerprint: str


Outcome = tuple[TokenizerFacts | None, Predictions | None, list[str]]


def make_predictions(sent: Path, answered: Sequence[Record], context: RunContext) -> Outcome:
    """Tokenizer, predictions and notes for the log `sent`, which has a row per answered request.

    None with a note that says why, if there is no tokenizer or block size, the tokenizer is not the
    server's, or the analyzer refuses the log: a finished run is kept whatever the prediction does.
    """
    if not answered:
        return None, None, []
    if context.tokenizer is None or context.block_size is None:
        return None, None, ["no prediction: it needs the served tokenizer and the block size"]
    try:
        tokenizer = load_tokenizer(context.tokenizer)
        facts = TokenizerFacts(tokenizer.name, tokenizer.fingerprint)
        if context.server_tokenizer_fingerprint not in (None, facts.fingerprint):
            return facts, None, ["no prediction: the server has another tokenizer than this one"]
        return facts, _both(sent, answered, tokenizer, context), []
    except LoadkitError as error:
        return None, None, [f"no prediction: {error}"]


def _both(
    sent: Path, answered: Sequence[Record], tokenizer: Tokenizer, context: RunContext
) -> Predictions:
    trace = _read(sent, tokenizer, context)
    best = _predict(trace, context.capacity_blocks)
    curve = analysis.analyze(trace).to_dict()["curve"]
    overlap = _overlap_tokens(trace, best, context.capacity_blocks)
    if all(record.reply_token_ids is None for record in answered):
        return Predictions(best, None, curve, overlap)
    handle, name = tempfile.mkstemp(suffix=".jsonl.gz", dir=sent.parent)
    os.close(handle)
    try:
        write_sent(answered, Path(name), token_ids=False)
        from_text = _predict(_read(Path(name), tokenizer, context), context.capacity_blocks)
    finally:
        Path(name).unlink()
    return Predictions(best, from_text, curve, overlap)


def _overlap_tokens(trace: Trace, best: Prediction, capacity_blocks: int | None) -> int | None:
    """Hit tokens with the blocks of running requests pinned. Latencies are the client's, time in
    the server's queue included, so blocks are held for rather longer than they are."""
    if capacity_blocks is None or trace.completed_s is None:
        return None
    if trace.num_ids + trace.num_requests <= capacity_blocks:  # all blocks and unfinished pages fit
        return int(best.expected_tokens.sum())
    overlap = simulate_concurrent(reuse_of(trace), capacity_blocks, "wait")
    return int(overlap.requests.resident_tokens.sum())


def _read(log: Path, tokenizer: Tokenizer, context: RunContext) -> Trace:
    size = context.block_size
    return read_log([log], format="openai", tokenizer=tokenizer, block_size=size).trace


def _predict(trace: Trace, capacity_blocks: int | None) -> Prediction:
    requests = analysis.per_request(trace, capacity_blocks)
    return Prediction(
        prompt_tokens=trace.prompt_tokens,
        replay=tuple(REPLAY_KINDS[kind] for kind in requests.replay),
        own_prefix_tokens=requests.own_prefix_tokens,
        reusable_tokens=requests.reusable_tokens,
        resident_tokens=None if capacity_blocks is None else requests.resident_tokens,
    )
