"""Do the witnesses of one run agree? Usage fields, Prometheus counters, the analyzer's prediction.

All figures are tokens. What two of them differ by is split into named parts in `gaps.py`; there is
no tolerance. A pair agrees (True) when the difference is 0 for cached and for prompt tokens, or the
prediction is an interval that holds the other; False when it is not; None when nobody can tell: a
witness is missing, requests that the server may have counted never gave their usage, or the
prediction depends on what no client sees (which slot or engine took a request) and the server reused
no more than it could. `agrees` of all: two that agree are enough where the third is missing. `says`
is the same in one line, for whoever started the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import msgspec
import numpy as np

from loadkit.core.units import plural
from loadkit.runs.context import PrefixCounters, RunContext
from loadkit.runs.gaps import difference, prometheus_gap, usage_gap
from loadkit.runs.plausible import (
    CounterDoubts,
    Impossible,
    impossible_answers,
    judge_counters,
    may_have_been_counted,
)
from loadkit.runs.predicting import block_rule, one_capacity
from loadkit.runs.prediction import Prediction, Predictions
from loadkit.runs.record import Record
from loadkit.runs.splits import has_usable_usage
from loadkit.runs.view import View

Pair = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Witness:
    """What one source says about the whole run; None: it does not say."""

    cached_tokens: int | None
    prompt_tokens: int | None


def usage_witness(answered: Sequence[Record]) -> Witness:
    """Sums of the usage fields over answered requests; None if not one reported."""
    usable = [record for record in answered if has_usable_usage(record)]
    if not usable:
        return Witness(None, None)
    return Witness(
        sum(record.cached_tokens or 0 for record in usable),
        sum(record.prompt_tokens or 0 for record in usable),
    )


def prometheus_witness(before: PrefixCounters | None, after: PrefixCounters | None) -> Witness:
    """Growth of the server's counters over the run; None if one is missing, or another process
    showed them (the server was started again in between, which a counter that fell says too)."""
    if before is None or after is None or before.started_unix_s != after.started_unix_s:
        return Witness(None, None)
    hits, queries = round(after.hits - before.hits), round(after.queries - before.queries)
    return Witness(None, None) if min(hits, queries) < 0 else Witness(hits, queries)


def prediction_witness(prediction: Prediction | None) -> Witness:
    """Expected hit tokens at the server's capacity (infinite if not known), tokenizer's count."""
    if prediction is None:
        return Witness(None, None)
    return Witness(int(prediction.expected_tokens.sum()), int(prediction.prompt_tokens.sum()))


def num_unanswered(records: Sequence[Record]) -> int:
    """Requests that reached the server, perhaps its counters too, but whose usage we never saw: with
    the first copies of those that were sent again."""
    return sum(_unanswered(record) + record.resent for record in records)


def _unanswered(record: Record) -> bool:
    if record.outcome == "ok" and record.sent_s is not None:
        return not has_usable_usage(record)
    return may_have_been_counted(record)


def interval_of(predictions: Predictions | None) -> tuple[int, int] | None:
    """Least and most hit tokens that the prediction allows; equal where there is one. None: there is no
    prediction, or no exact one.

    Orders of the engine's work that the client cannot tell apart make the interval where they were
    drawn. Elsewhere running requests hold their blocks for as long as nobody but the server knows: one
    after another, and held until the answer came, are the two ends.
    """
    if predictions is None or not predictions.best.exact:
        return None
    best = predictions.best
    if best.drawn_tokens is not None:
        return best.range_tokens
    served = int(best.expected_tokens.sum())
    overlap = served if predictions.overlap_tokens is None else predictions.overlap_tokens
    return min(served, overlap), max(served, overlap)


def confirmed_by_counters(
    records: Sequence[Record],
    answered: Sequence[Record],
    predictions: Predictions | None,
    context: RunContext,
) -> bool:
    """Whether the prediction may stand for usage that no answer reported: the server's counters grew
    by what the tokenizer counts, and by as many hits as the prediction allows.

    Not where an answer said something that cannot be: that is no missing field.
    """
    if any(has_usable_usage(record) or record.usage_doubt for record in answered):
        return False
    counted = prometheus_witness(context.counters_before, context.counters_after)
    allowed = interval_of(predictions)
    if counted.cached_tokens is None or allowed is None or predictions is None:
        return False
    doubts = _counter_doubts(records, answered, predictions, context)
    if doubts.restarted or doubts.queries_short or doubts.queries_over:
        return False
    more = sum(len(record.prompt_key) for record in records if may_have_been_counted(record))
    return allowed[0] <= counted.cached_tokens <= allowed[1] + more


def _counter_doubts(
    records: Sequence[Record],
    answered: Sequence[Record],
    predictions: Predictions | None,
    context: RunContext,
) -> CounterDoubts:
    """Bounds by usage's prompt and cached tokens, else by the tokenizer's and the prediction's."""
    counted: dict[int, int] = {}
    hits: dict[int, tuple[int, int]] = {}
    if predictions is not None:
        best = predictions.best
        counted = {id(record): int(best.prompt_tokens[row]) for row, record in enumerate(answered)}
        most = best.reusable_tokens if best.possible_tokens is None else best.possible_tokens
        least = best.expected_tokens if best.exact else np.zeros_like(best.expected_tokens)
        hits = {id(one): (int(least[row]), int(most[row])) for row, one in enumerate(answered)}
    prompts = [
        record.prompt_tokens if record.prompt_tokens is not None else counted.get(id(record))
        for record in records
    ]
    by_row = {row: hits[id(one)] for row, one in enumerate(records) if id(one) in hits}
    return judge_counters(records, prompts, context, by_row)


def retokenised_tokens(predictions: Predictions | None) -> int | None:
    """Tokens that a text-only prediction expects to hit but that cannot: the reply, tokenised again
    as part of the next prompt, is not the ids that were generated. None: not to be told apart."""
    if predictions is None or predictions.from_text is None:
        return None
    from_text = prediction_witness(predictions.from_text).cached_tokens
    best = prediction_witness(predictions.best).cached_tokens
    assert from_text is not None
    assert best is not None
    return from_text - best


def reconcile(view: View, context: RunContext) -> dict[str, Any]:
    """The `reconciliation` section of run.json. The measured phase, except for `prometheus` and
    what it is compared with: the server's counters know no phases."""
    predictions = view.predictions
    best = predictions.best if predictions else None
    usage = usage_witness(view.answered)
    whole = usage_witness(view.everything)
    prometheus = prometheus_witness(context.counters_before, context.counters_after)
    prediction = prediction_witness(best)
    predicted = view.whole_predictions
    all_predicted = prediction_witness(predicted.best if predicted else None)
    unanswered = num_unanswered(view.gathered.records)
    maybe = sum(may_have_been_counted(r) or r.resent for r in view.gathered.records)
    allowed, all_allowed = interval_of(predictions), interval_of(predicted)
    pairs = {
        "usage_vs_prometheus": _compare(whole, prometheus, unanswered),
        "usage_vs_prediction": _compare(usage, prediction, unanswered, allowed, _at_most(best)),
        "prometheus_vs_prediction": _compare(
            prometheus,
            all_predicted,
            maybe,
            all_allowed,
            _at_most(predicted.best if predicted else None),
        ),
    }
    retokenised = retokenised_tokens(predictions)
    low, high = (best.range_tokens if best else None) or (None, None)
    impossible = impossible_answers(view.answered, best, block_rule(context))
    doubts = _counter_doubts(view.gathered.records, view.everything, predicted, context)
    found = {
        "usage": asdict(usage),
        "usage_all_phases": asdict(whole),
        "prometheus": asdict(prometheus),
        "prediction": asdict(prediction),
        "prediction_all_phases": asdict(all_predicted),
        "prediction_low_tokens": low,
        "prediction_high_tokens": high,
        "prediction_capacity_blocks": one_capacity(context) if best else None,
        "prediction_infinite_tokens": int(best.reusable_tokens.sum()) if best else None,
        "prediction_overlap_tokens": predictions.overlap_tokens if predictions else None,
        "prediction_from_text_tokens": _plus(prediction.cached_tokens, retokenised or 0),
        "retokenised_tokens": retokenised,
        "unanswered_requests": unanswered,
        **pairs,
        "usage_gap": usage_gap(
            view, by_place=bool(context.kept_blocks) and context.prefix_caching is not False
        ),
        "prometheus_gap": prometheus_gap(astuple(whole), astuple(prometheus), unanswered),
        "impossible": msgspec.json.decode(msgspec.json.encode(impossible)),
        "counters": msgspec.to_builtins(doubts),
        "agrees": _all_agree(list(pairs.values())),
    }
    witnesses = {"usage": whole, "Prometheus": prometheus, "prediction": all_predicted}
    reasons = [*_of_answers(impossible), *_of_counters(doubts), *_of_prediction(pairs, maybe)]
    return {**found, "says": _says(witnesses, all_allowed, found["agrees"], reasons)}


def _says(
    witnesses: dict[str, Witness],
    allowed: tuple[int, int] | None,
    agrees: bool | None,
    reasons: list[str],
) -> str:
    """Who says what of the whole run, whether they agree, and why not."""
    known = {name: one for name, one in witnesses.items() if one.cached_tokens is not None}
    if not known:
        return "no witness: neither usage, Prometheus nor a prediction says what was cached"
    said = ", ".join(_figure(name, one, allowed) for name, one in known.items())
    if len(known) == 1:
        missing = " and ".join(name for name in witnesses if name not in known)
        return f"one witness only, {said}: nothing confirms it, {missing} say nothing"
    why = ", because " + "; ".join(reasons) if reasons else ""
    if agrees and not reasons:
        return f"witnesses agree: {said}"
    tokens = [one.cached_tokens or 0 for one in known.values()]
    gap = max(tokens) - min(tokens)
    if agrees is None and not reasons:
        why = ", which is no contradiction: nobody sees who took which request"
    elif not reasons:
        why = ", and nothing that loadkit knows explains it"
    verb = "agree in sum, but not in detail" if agrees or not gap else f"differ by {gap:,} tokens"
    return f"witnesses {verb}: {said}{why}"


def _figure(name: str, one: Witness, allowed: tuple[int, int] | None) -> str:
    tokens = f"{one.cached_tokens:,}"
    if name == "prediction" and allowed and allowed[0] != allowed[1]:
        tokens = f"{allowed[0]:,} to {allowed[1]:,}"
    return f"{name} {tokens} of {one.prompt_tokens:,} prompt tokens"


def _of_answers(found: Impossible) -> list[str]:
    named = (
        (found.beyond, "more cached than could have been there"),
        (found.off_grid, "a part of a block cached"),
        (found.unreadable, "a cached count that cannot be"),
    )
    return [f"{plural(count, 'answer')} reported {what}" for count, what in named if count]


def _of_counters(found: CounterDoubts) -> list[str]:
    """By what the readings show: each of them may have more than one cause."""
    if found.restarted:
        return ["the server's counters started again during the run"]
    if found.silent:
        return ["the server's counters stand still"]
    reasons = []
    if found.queries_short:
        reasons.append(
            f"the counters lack {found.queries_short:,} prompt tokens that were answered"
        )
    if found.queries_over:
        reasons.append(
            f"the counters have {found.queries_over:,} prompt tokens that nobody here sent"
        )
    if found.hits_short or found.hits_over:
        off = max(found.hits_short or 0, found.hits_over or 0)
        reasons.append(
            f"in mid-run the counters were {off:,} cached tokens off what answers reported"
        )
    return reasons


def _of_prediction(pairs: dict[str, Pair], maybe_counted: int) -> list[str]:
    reasons = []
    if any(pair["agrees"] is not True for pair in pairs.values()) and maybe_counted:
        reasons.append(
            f"{plural(maybe_counted, 'request')} without an answer may have been counted"
        )
    prompts = pairs["usage_vs_prediction"]["unexplained_prompt_tokens"]
    if prompts:
        reasons.append(f"the server counts {prompts:+,} prompt tokens against the tokenizer")
    return reasons


def _plus(left: int | None, right: int) -> int | None:
    return None if left is None else left + right


def _at_most(prediction: Prediction | None) -> int | None:
    """What the server may have reused at most, where the prediction cannot be exact; else None."""
    if prediction is None or prediction.exact:
        return None
    return int(prediction.reusable_tokens.sum())


def _compare(
    one: Witness,
    other: Witness,
    unanswered: int,
    allowed: tuple[int, int] | None = None,
    at_most: int | None = None,
) -> Pair:
    """Unexplained tokens: one minus the other. Retokenised tokens are already outside: the prediction
    is made from the generated ids. allowed: what the other allows in place of its one figure. at_most:
    cached tokens that the other cannot rule out; up to them a difference leaves agreement open."""
    cached = difference(one.cached_tokens, other.cached_tokens)
    prompt = difference(one.prompt_tokens, other.prompt_tokens)
    agrees: bool | None
    if cached is None or prompt is None or one.cached_tokens is None:
        agrees = None
    elif prompt == 0 and (cached == 0 or _lies(one.cached_tokens, allowed)):
        agrees = True
    else:
        possible = prompt == 0 and at_most is not None and one.cached_tokens <= at_most
        agrees = None if unanswered or possible else False
    return {
        "unexplained_cached_tokens": cached,
        "unexplained_prompt_tokens": prompt,
        "agrees": agrees,
    }


def _lies(tokens: int, between: tuple[int, int] | None) -> bool:
    return between is not None and between[0] <= tokens <= between[1]


def _all_agree(pairs: Sequence[Pair]) -> bool | None:
    """False outweighs open outweighs True; pairs that lack a witness say nothing."""
    known = [pair["agrees"] for pair in pairs if pair["unexplained_cached_tokens"] is not None]
    if False in known:
        return False
    return None if None in known or not known else True
