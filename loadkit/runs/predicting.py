"""Make the predictions for a run with the analyzer's own code: the sent log in, columns out.

Prompts are the server's own token ids where all answers came with them, else what the tokenizer makes
of the messages.

The engine's rule goes by the dialect of its counters: llama.cpp and SGLang match token by token.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from loadkit import analysis
from loadkit.analysis.engines import TOKEN_GRANULAR
from loadkit.analysis.per_request import per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.engine_pools import POOLS
from loadkit.core.errors import LoadkitError
from loadkit.core.tokenizer import Tokenizer, load_tokenizer
from loadkit.core.trace import IntArray, Trace
from loadkit.core.units import plural
from loadkit.runs.context import RunContext
from loadkit.runs.plausible import possible_tokens
from loadkit.runs.prediction import OF_THE_LOG, Prediction, Predictions
from loadkit.runs.record import Record
from loadkit.runs.sent import num_with_prompt_ids, reply_ids, write_sent
from loadkit.runs.serving import DRAWS, pool_hits
from loadkit.runs.slots import overlap, predict_slots
from loadkit.runs.template import TemplateCheck, TemplateComparison
from loadkit.traces import read_log

# Blocks of one token take some 250 bytes each: half a GiB at most.
MAX_MATCHED_TOKENS = 2_000_000
REPLAY_KINDS: tuple[str | None, ...] = (None, "same_session", "cross_session")


class TokenizerFacts(msgspec.Struct, frozen=True):
    """The tokenizer that the prediction was made with."""

    name: str
    fingerprint: str


class PromptIds(msgspec.Struct, frozen=True):
    """Whose token ids of the prompts the prediction is made of (None: there is none), and how many of
    the answers came with the server's."""

    source: Literal["server", "tokenizer"] | None
    from_server: int
    answers: int


class Outcome(NamedTuple):
    """What the prediction was made with, the predictions, what to note, and what is known of the
    template: None without a tokenizer, or where the server tells nothing of its prompts."""

    tokenizer: TokenizerFacts | None
    predictions: Predictions | None
    notes: list[str]
    prompt_ids: PromptIds
    template: TemplateCheck | None


def make_predictions(
    sent: Path, answered: Sequence[Record], context: RunContext, unseen: Sequence[Record] = ()
) -> Outcome:
    """Tokenizer, predictions and notes for the log `sent`, which has a row per answered request.

    unseen: requests that the server may have computed although no answer came; what they left in its
    cache, others may have found there.

    None with a note that says why, if there is no tokenizer (needed unless all prompts and replies
    came with token ids) or block size, the tokenizer is not the server's, or the analyzer refuses the
    log: a finished run is kept whatever the prediction does.
    """
    ids = PromptIds(None, num_with_prompt_ids(answered), len(answered))
    if not answered:
        return Outcome(None, None, [], ids, None)
    facts = template = None
    try:
        tokenizer = load_tokenizer(context.tokenizer) if context.tokenizer is not None else None
        if tokenizer is not None:
            facts = TokenizerFacts(tokenizer.name, tokenizer.fingerprint)
            comparison = TemplateComparison(tokenizer)
            comparison.add(answered)
            template = comparison.result
        is_served = context.server_tokenizer_fingerprint in (None, facts and facts.fingerprint)
        differs = not is_served or (template is not None and template.different > 0)
        source, why_none = _source(answered, context, facts, differs)
        if source is None:
            return Outcome(facts, None, [why_none], ids, template)
        if source == "server" and differs:
            tokenizer = None  # its texts would be others
        predictions = _both(sent, answered, tokenizer, context, unseen)
        ids = msgspec.structs.replace(ids, source=source)
        notes = [
            *_of_the_ids(ids, template),
            *_of_the_calls(answered),
            *_doubts(predictions.best, context),
        ]
        return Outcome(facts, predictions, notes, ids, template)
    except LoadkitError as error:
        return Outcome(facts, None, [f"no prediction: {error}"], ids, template)


def _source(
    answered: Sequence[Record], context: RunContext, facts: TokenizerFacts | None, differs: bool
) -> tuple[Literal["server", "tokenizer"] | None, str]:
    """Whose token ids the prompts are, or None and why there can be no prediction. differs: the
    tokenizer, if there is one, is not the served one."""
    num_ids = num_with_prompt_ids(answered)
    if block_size_of(context) is None or (facts is None and not num_ids):
        return None, "no prediction: it needs the served tokenizer and the block size"
    num_replies = sum(reply_ids(record) is not None for record in answered)
    is_usable = facts is not None and not differs
    if num_ids == len(answered) and (is_usable or num_replies == num_ids):
        return "server", ""
    if facts is None or num_ids == len(answered):
        what, known = ("prompt", num_ids) if num_ids < len(answered) else ("reply", num_replies)
        return None, (
            f"no prediction: {len(answered) - known:,} of {plural(len(answered), 'answer')} came"
            f" without the server's token ids of the {what}, so it needs the served tokenizer"
        )
    if context.server_tokenizer_fingerprint not in (None, facts.fingerprint):
        return None, "no prediction: the server has another tokenizer than this one"
    return "tokenizer", ""


def _of_the_ids(ids: PromptIds, template: TemplateCheck | None) -> list[str]:
    """What to know of where the prompts' token ids come from."""
    notes = []
    if template is not None and template.different:
        what = "the prediction is made of the server's own token ids, so it holds"
        if ids.source == "tokenizer":
            what = "the prediction is made with this tokenizer, so it is wrong"
        notes.append(f"{template.message}; {what}")
    if ids.source == "tokenizer" and ids.from_server:
        notes.append(
            f"{ids.from_server:,} of {plural(ids.answers, 'answer')} came with the server's token ids"
            " of the prompt, the others without: the prediction is made with the tokenizer for all"
        )
    return notes


def _of_the_calls(answered: Sequence[Record]) -> list[str]:
    """What text says of a reply that calls tools is not what was generated."""
    calls = sum(bool(record.tool_calls) and reply_ids(record) is None for record in answered)
    if not calls:
        return []
    return [
        f"{calls:,} of {plural(len(answered), 'answer')} called tools and came without token ids: they"
        " are predicted as this template writes them, which need not be what was generated"
    ]


def engine_of(context: RunContext) -> str:
    """The engine's rule by the dialect of its counters; vLLM's for a server that shows none."""
    source = context.counters_before.source if context.counters_before else None
    return source if source in TOKEN_GRANULAR else "vllm"


def block_size_of(context: RunContext) -> int | None:
    """Tokens a block: what is known, else 1 for an engine that matches token by token."""
    if context.block_size is None and engine_of(context) in TOKEN_GRANULAR:
        return 1
    return context.block_size


def block_rule(context: RunContext) -> int | None:
    """Tokens a block where every hit must be whole blocks; None where that is not known for certain:
    the engine shows no counters, matches token by token, or a store outside it had hits."""
    after = context.counters_after
    if after is None or after.source != "vllm" or after.external_hits:
        return None
    return context.block_size


def _both(
    sent: Path,
    answered: Sequence[Record],
    tokenizer: Tokenizer | None,
    context: RunContext,
    unseen: Sequence[Record],
) -> Predictions:
    size = block_size_of(context)
    assert size is not None
    trace = _read(sent, tokenizer, size)
    found = analysis.analyze(trace, engine=engine_of(context)).to_dict()
    _place_in_the_folder(found["append_only"])
    best = replace(
        _predict(trace, answered, context, DRAWS),
        possible_tokens=_possible(sent.parent, trace, answered, unseen, tokenizer, context),
    )
    predictions = Predictions(
        best,
        from_text=_from_text(sent, answered, tokenizer, context),
        log={name: found[name] for name in OF_THE_LOG},
        overlap=_overlap(trace, best, context),
        unruled=_unruled_tokens(trace),
    )
    if int(trace.prompt_tokens.sum()) <= MAX_MATCHED_TOKENS:
        predictions.matched = _unruled_tokens(_read(sent, tokenizer, 1))
    return predictions


def _place_in_the_folder(append_only: dict[str, Any]) -> None:
    """Name the log's rows without the hidden folder that the log lies in until the run is whole."""
    for cause in (*append_only["causes"], *append_only["between_sessions"]):
        for key in ("place", "previous_place"):
            place = cause["example"][key]
            cause["example"][key] = place and Path(place).name


def _from_text(
    sent: Path, answered: Sequence[Record], tokenizer: Tokenizer | None, context: RunContext
) -> Prediction | None:
    """The prediction with every reply tokenised again; None if no reply came with token ids, or no
    served tokenizer is to be had."""
    if tokenizer is None or all(record.reply_token_ids is None for record in answered):
        return None
    trace = _trace_of(sent.parent, answered, tokenizer, context, token_ids=False)
    return _predict(trace, answered, context)


def _possible(
    scratch: Path,
    trace: Trace,
    answered: Sequence[Record],
    unseen: Sequence[Record],
    tokenizer: Tokenizer | None,
    context: RunContext,
) -> IntArray:
    """`possible_tokens` of the answered requests, with what the unseen ones may have left behind; their
    prompts never came back as token ids, so it takes a tokenizer to know them."""
    known = [record for record in unseen if record.prompt_key]
    if not known or tokenizer is None:
        return possible_tokens(reuse_of(trace, engine_of(context)), answered)
    both = sorted([*answered, *known], key=lambda record: record.sent_s or 0.0)
    whole = _trace_of(scratch, both, tokenizer, context)
    found = possible_tokens(reuse_of(whole, engine_of(context)), both)
    row_of = {id(record): row for row, record in enumerate(both)}
    return found[[row_of[id(record)] for record in answered]]


def _trace_of(
    scratch: Path,
    records: Sequence[Record],
    tokenizer: Tokenizer,
    context: RunContext,
    *,
    token_ids: bool = True,
) -> Trace:
    """These records as the analyzer reads them, by way of a file that goes away again."""
    handle, name = tempfile.mkstemp(suffix=".jsonl.gz", dir=scratch)
    os.close(handle)
    try:
        write_sent(records, Path(name), token_ids=token_ids)
        return _read(Path(name), tokenizer, block_size_of(context) or 1)
    finally:
        Path(name).unlink()


def _overlap(trace: Trace, best: Prediction, context: RunContext) -> IntArray | None:
    """Hit tokens where running requests hold their blocks: the prediction's own, if it is made so."""
    if one_capacity(context) is None or trace.completed_s is None:
        return None
    return None if best.drawn_tokens is None else best.resident_tokens


def _unruled_tokens(trace: Trace) -> IntArray:
    """Tokens (n,) of leading blocks seen before, whatever the engine's rule would let hit."""
    reuse = reuse_of(trace)
    return reuse.tokens(reuse.seen_blocks())


def _read(log: Path, tokenizer: Tokenizer | None, block_size: int) -> Trace:
    return read_log([log], format="openai", tokenizer=tokenizer, block_size=block_size).trace


def _predict(
    trace: Trace, answered: Sequence[Record], context: RunContext, draws: int = 0
) -> Prediction:
    engine = engine_of(context)
    reuse = reuse_of(trace, engine)
    capacity = one_capacity(context)
    requests = per_request_of(reuse, capacity)
    setup, resident = None, None if capacity is None else requests.resident_tokens
    drawn: IntArray | None = None
    if context.prefix_caching is False:
        resident = np.zeros(trace.num_requests, np.int64)
    elif engine == "llamacpp" and context.num_slots is not None:
        setup, resident, drawn = predict_slots(reuse, context.num_slots, answered, draws)
    elif context.kept_blocks:
        where_kept = replace(trace, kept_blocks=context.kept_blocks)
        resident = per_request_of(reuse_of(where_kept, engine), None).reusable_tokens
    is_exact = _is_exact(trace, setup, resident, context)
    server = server_of(context)
    if capacity is not None and not context.kept_blocks and server in POOLS:
        pool, whole = POOLS[server], server == "reference"
        hits = pool_hits(
            lambda chains: pool(chains, capacity), reuse, answered, draws, whole_steps=whole
        )
        if hits is not None:
            resident, drawn = hits.likeliest, hits.drawn
            is_exact &= drawn is not None
    return Prediction(
        prompt_tokens=trace.prompt_tokens,
        replay=tuple(REPLAY_KINDS[kind] for kind in requests.replay),
        own_prefix_tokens=requests.own_prefix_tokens,
        reusable_tokens=requests.reusable_tokens,
        resident_tokens=resident,
        setup=setup,
        exact=is_exact,
        drawn_tokens=drawn,
        caching_off=context.prefix_caching is False,
        several_caches=_several(context),
        by_place=bool(context.kept_blocks),
    )


def _is_exact(
    trace: Trace, setup: str | None, resident: IntArray | None, context: RunContext
) -> bool:
    if _several(context):
        return resident is not None and not context.kept_blocks
    known = setup is None and not context.kept_blocks and server_of(context) != "sglang"
    return known or not overlap(trace)


def server_of(context: RunContext) -> str:
    """Whose pool it is, by the counters; vLLM's names with causes are the reference server's, and no
    counters are taken for vLLM."""
    counters = context.counters_before
    if counters is None:
        return "vllm"
    return "reference" if counters.by_cause else counters.source


def one_capacity(context: RunContext) -> int | None:
    """Blocks of the server's cache if it is one cache, and in use; None: not known, or several, of
    which nobody sees who got which request."""
    if _several(context) or context.prefix_caching is False:
        return None
    return context.capacity_blocks


def _several(context: RunContext) -> bool:
    return (context.engines or 1) > 1


def _too_short(best: Prediction, context: RunContext) -> list[str]:
    """Prompts that are all shorter than a block cannot hit, whatever they share."""
    size = context.block_size
    longest = int(best.prompt_tokens.max(initial=0))
    if size is None or longest > size:
        return []
    return [
        f"no prompt reaches {size + 1:,} tokens, the shortest that can hit in the server's blocks of"
        f" {size:,} (the longest has {longest:,}): nothing that was sent can hit"
    ]


def _doubts(best: Prediction, context: RunContext) -> list[str]:
    """What the prediction assumes, and how far it can be right."""
    notes = []
    if context.prefix_caching is False:
        notes.append(
            "the server says that its prefix cache is off (enable_prefix_caching=False): nothing"
            " can hit, whatever is sent"
        )
    elif _several(context):
        notes.append(
            f"{context.engines} engines with a cache each answer at this address, and nobody tells"
            " which one answered: the prediction is what they could reuse at most"
        )
    if context.kept_blocks and context.prefix_caching is not False:
        notes.append(
            "the server keeps states or windows at a few places of a prompt only (vLLM's"
            " prefix_cache_retention_interval 0): the prediction is of those places, without eviction"
        )
    notes += _too_short(best, context)
    one_order = one_capacity(context) is not None and not context.kept_blocks
    if one_order and best.setup is None and not best.exact:
        notes.append(
            "prediction: the run is too long to try other orders of the engine's work than the likeliest"
            " one, so a difference in cached tokens is no disagreement"
        )
    if best.setup is not None:
        slots = "1 slot" if context.num_slots == 1 else f"{context.num_slots} slots"
        notes.append(
            f"prediction: llama.cpp with {slots} and {best.setup}, which it does not tell: of"
            " three setups no other's hits are nearer to what the answers report"
        )
    if best.setup is not None and not best.exact:
        notes.append(
            "requests overlapped, so who got which slot is known only as the client saw it: a"
            " difference in cached tokens is no disagreement"
        )
    return notes
