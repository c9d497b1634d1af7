"""The audit on a terminal: widths, hostile excerpts, small shares."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from loadkit.analysis.audit import CAUSES, AppendOnly, BrokenBy, Example
from loadkit.cli import audit_view


def broken_by(
    code: str, tokens: int, before: str | None = None, places: tuple[str | None, ...] = (None, None)
) -> BrokenBy:
    example = Example(0, 7, 6, *places, tokens, 0, "system", 3, 10, 10, before, before)
    cause = CAUSES[code]
    return BrokenBy(code, cause.title, cause.remedy, 2, tokens, tokens / 100_000, example)


def shown(
    *causes: BrokenBy, width: int = 80, pairs: int = 9, between: tuple[BrokenBy, ...] = ()
) -> str:
    lost = sum(cause.tokens_lost for cause in causes)
    audit = AppendOnly(pairs, pairs - 4, 3, 1, lost, lost / 100_000, causes, between)
    out = io.StringIO()
    audit_view.show(Console(file=out, width=width, markup=False, highlight=False), audit)
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = shown(*(broken_by(code, 9000) for code in sorted(CAUSES)[:5]), width=width)
    assert max(map(len, text.splitlines())) <= width


def test_a_cause_has_its_share_its_remedy_and_its_place() -> None:
    text = shown(broken_by("tools_reordered", 9000))
    assert "  9.0%  the same tools came in another order  9,000 tokens in 2 pairs" in text
    assert "fix: Sort the tools by name before every request." in text
    assert "e.g. request 7 after 6, message 1 (system), from character 4" in text


def test_an_example_from_a_file_is_told_by_file_and_line() -> None:
    same = broken_by("tools_reordered", 9000, places=("/logs/a.jsonl:12", "/logs/a.jsonl:9"))
    other = broken_by("tools_reordered", 9000, places=("/logs/b.jsonl:1", "/logs/a.jsonl:9"))
    assert "e.g. a.jsonl:12 after :9, message 1" in shown(same)
    assert "e.g. b.jsonl:1 after a.jsonl:9, message 1" in shown(other)


def test_markup_in_an_excerpt_stays_text() -> None:
    text = shown(broken_by("whitespace", 9000, "[bold]x[/bold]"))
    assert "- [bold]x[/bold]" in text
    assert "+ [bold]x[/bold]" in text


def test_a_share_that_rounds_to_nothing_is_not_shown_as_nothing() -> None:
    assert "<0.1%" in shown(broken_by("whitespace", 10))


def test_causes_beyond_the_first_few_and_free_ones_are_named() -> None:
    codes = ("whitespace", "tools_changed", "message_edited", "messages_dropped", "tools_reordered")
    text = shown(*(broken_by(code, 900) for code in codes), broken_by("rolled_back", 0))
    assert "also, nothing lost: rolled_back (2)" in text
    more = shown(*(broken_by(code, 900) for code in (*codes, "reply_changed")))
    assert "also, 900 tokens lost: reply_changed (2)" in more


def test_nothing_lost_is_said() -> None:
    assert "Append-only: no token was lost to a changed prefix" in shown()


def test_what_keeps_sessions_from_sharing_is_shown_without_any_turn_pair() -> None:
    text = shown(pairs=0, between=(broken_by("tools_reordered", 9000),))
    assert "ppend-only" not in text
    assert "What kept sessions from sharing their system prompt: 9,000 prompt tokens" in text
    assert "9,000 tokens in 2 sessions" in text
    assert shown(pairs=0, between=(broken_by("tools_reordered", 49),)) == ""
