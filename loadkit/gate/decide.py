"""Put the checks together: FAIL outweighs INCONCLUSIVE outweighs PASS.

A fault that needs no sample size (a warm cache, a wrapped corpus) fails even a short run. Rates are
judged only if nothing forbids it; a PASS also needs a rate that is certain enough.
"""

from __future__ import annotations

from typing import Any

from loadkit.gate.blockers import blockers, too_uncertain, upper_bound_only
from loadkit.gate.failures import compare, hard_failures, rate_failures
from loadkit.gate.inputs import Expected, Measured, checked
from loadkit.gate.verdict import FAIL, INCONCLUSIVE, PASS, Verdict


def decide(run: dict[str, Any], expected: dict[str, Any]) -> Verdict:
    """Judge a run (`loadkit.run/1`) against a forecast (`loadkit.forecast/1`).

    InputError if one of them is not what it should be.
    """
    measured = checked(run, Measured, "--measured")
    forecast = checked(expected, Expected, "--expected")
    rates = compare(measured, forecast)
    hard, open_questions = list(hard_failures(measured)), list(blockers(measured, forecast))
    failures = [*([] if open_questions else rate_failures(measured, forecast, rates)), *hard]
    if failures:
        return Verdict(FAIL, (*failures, *open_questions), rates)
    if not open_questions:
        doubts = (too_uncertain(measured), upper_bound_only(measured, forecast, rates))
        open_questions = [doubt for doubt in doubts if doubt]
    if open_questions or rates.measured is None:
        return Verdict(INCONCLUSIVE, tuple(open_questions), rates)
    return Verdict(PASS, (), rates)
