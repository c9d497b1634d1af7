"""The verdict as JUnit XML: a test case a check, so that a CI shows which one said no.

FAIL is a failure, INCONCLUSIVE an error (the question could not be answered), what nobody asked
about is skipped. Both colour a pipeline red, as the exit code does.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from loadkit.gate.verdict import INCONCLUSIVE, Check, Reason, Verdict
from loadkit.report.words import clean

_OUTCOMES = {"failed": "failure", "inconclusive": "error", "skipped": "skipped"}


def to_junit(verdict: Verdict, name: str = "loadkit gate") -> str:
    """A whole XML document. Foreign text is cleaned (XML has no control characters) and escaped."""
    counts = dict.fromkeys(("failure", "error", "skipped"), 0)
    for check in verdict.checks:
        if check.outcome in _OUTCOMES:
            counts[_OUTCOMES[check.outcome]] += 1
    numbers = {
        "tests": str(len(verdict.checks)),
        "failures": str(counts["failure"]),
        "errors": str(counts["error"]),
        "skipped": str(counts["skipped"]),
    }
    root = ET.Element("testsuites", {"name": clean(name), **numbers})
    suite = ET.SubElement(root, "testsuite", {"name": clean(name), "time": "0", **numbers})
    for check in verdict.checks:
        _case(suite, check, [one for one in verdict.reasons if one.code == check.code])
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, check: Check, reasons: list[Reason]) -> None:
    words = f"{check.code}: {check.question}?"
    case = ET.SubElement(suite, "testcase", classname="loadkit.gate", name=clean(words), time="0")
    kind = _OUTCOMES.get(check.outcome)
    if kind is None:
        return
    inner = ET.SubElement(case, kind, message=clean(check.says))
    if kind != "skipped":
        inner.set("type", check.code if check.outcome == "failed" else INCONCLUSIVE)
        inner.text = "\n".join(_details(reason) for reason in reasons)


def _details(reason: Reason) -> str:
    figures = (("measured", reason.measured), ("expected", reason.expected))
    known = [f"{name} {value:g}" for name, value in figures if value is not None]
    if reason.interval is not None:
        known.append("interval {:g} to {:g}".format(*reason.interval))
    return f"{clean(reason.message)}. {', '.join(known)}. Do: {clean(reason.remedy)}"
