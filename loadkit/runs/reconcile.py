"""Do three witnesses of one run agree? Usage fields, Prometheus counters, the analyzer's prediction.

All figures are tokens. What two of them differ by is split into named parts in `gaps.py`; there is
no tolerance. `agrees` is True when the difference is 0 for cached and for prompt tokens (a prediction
with an interval: when the cached tokens lie in it), False when it is not, None when nobody can tell: a witness is missing, requests that the server may have counted
never gave their usage, or the prediction depends on what no client sees (which slot or engine took a
request) and the server reused no more than it could.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from loadkit.runs.context import PrefixCounters, RunContext
from loadkit.runs.gaps import difference, prometheus_gap, usage_gap
from loadkit.runs.predicting import one_capacity
from loadkit.runs.prediction import Prediction, Predictions
from loadkit.runs.record import Record
from loadkit.runs.splits import has_usable_usage
from loadkit.runs.view import View

_MAYBE_COUNTED = ("cut", "timeout", "malformed", "cancelled")


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
    if record.sent_s is None:
        return False
    if record.outcome == "ok":
        return not has_usable_usage(record)
    failed_inside = record.outcome == "http_error" and (record.status or 0) >= 500
    return failed_inside or record.outcome in _MAYBE_COUNTED


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
    unanswered = num_unanswered(view.gathered.records)
    pairs = {
        "usage_vs_prometheus": _compare(whole, prometheus, unanswered),
        "usage_vs_prediction": _compare(
            usage, prediction, unanswered, _at_most(best), best.range_tokens if best else None
        ),
    }
    retokenised = retokenised_tokens(predictions)
    low, high = (best.range_tokens if best else None) or (None, None)
    return {
        "usage": asdict(usage),
        "usage_all_phases": asdict(whole),
        "prometheus": asdict(prometheus),
        "prediction": asdict(prediction),
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
        "agrees": _all_agree([pair["agrees"] for pair in pairs.values()]),
    }


def _plus(left: int | None, right: int) -> int | None:
    return None if left is None else left + right


def _at_most(prediction: Prediction | None) -> int | None:
    """What the server may have reused at most, where the prediction cannot be exact; else None."""
    if prediction is None or prediction.exact:
        return None
    return int(prediction.reusable_tokens.sum())


def _compare(
    usage: Witness,
    other: Witness,
    unanswered: int,
    at_most: int | None = None,
    between: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Unexplained tokens: usage minus the other witness. Retokenised tokens are already outside:
    the prediction is made from the generated ids. at_most: cached tokens that the other witness
    cannot rule out; up to them a difference leaves agreement open. between: the least and the most
    cached tokens that agree with the other witness."""
    cached = difference(usage.cached_tokens, other.cached_tokens)
    prompt = difference(usage.prompt_tokens, other.prompt_tokens)
    agrees: bool | None
    if cached is None or prompt is None:
        agrees = None
    elif prompt == 0 and (cached == 0 or _lies(usage.cached_tokens, between)):
        agrees = True
    else:
        possible = prompt == 0 and at_most is not None and (usage.cached_tokens or 0) <= at_most
        agrees = None if unanswered or possible else False
    return {
        "unexplained_cached_tokens": cached,
        "unexplained_prompt_tokens": prompt,
        "agrees": agrees,
    }


def _lies(tokens: int | None, between: tuple[int, int] | None) -> bool:
    return tokens is not None and between is not None and between[0] <= tokens <= between[1]


def _all_agree(answers: Sequence[bool | None]) -> bool | None:
    if False in answers:
        return False
    return None if None in answers else True
