"""Which shared prefixes carry the hits, and the log's diversity in a few lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadkit.cli.rate_tables import count, percent, table

if TYPE_CHECKING:
    from loadkit.analysis import Analysis
    from loadkit.analysis.diversity.leaderboard import SharedPrefix

_SHOWN = 5
_WORTH_A_LINE = 0.001
# Characters of a line beside its words.
_NUMBERS = 52
_TIMES = ((86400, "d"), (3600, "h"), (60, "min"))


def show(out: Console, analysis: Analysis) -> None:
    """The top of the leaderboard; nothing if no session hits what another put there."""
    prefixes = analysis.diversity.leaderboard
    if not prefixes:
        return
    out.print("\nShared prefixes, by their share of the hits between sessions", style="bold")
    worth = [prefix for prefix in prefixes if prefix.hit_share >= _WORTH_A_LINE]
    out.print(_table((worth or prefixes[:1])[:_SHOWN], out.width - _NUMBERS))


def _table(prefixes: Sequence[SharedPrefix], width: int) -> Table:
    made = table(("share", "tokens", "at token", "sessions", "requests"), "right", no_wrap=True)
    made.add_column("begins", no_wrap=True, overflow="ellipsis", max_width=width)
    for prefix in prefixes:
        made.add_row(
            percent(prefix.hit_share).rjust(7),
            f"{prefix.tokens:,}",
            f"{prefix.start_token:,}",
            f"{prefix.sessions:,}",
            f"{prefix.requests:,}",
            _begins(prefix),
        )
    return made


def _begins(prefix: SharedPrefix) -> Text:
    place = f"in request {prefix.first_request:,}"
    if prefix.message_index is not None:
        place += f", message {prefix.message_index + 1}"
    return Text(place if prefix.words is None else prefix.words)


def diversity_rows(analysis: Analysis) -> list[tuple[str, str]]:
    """Prompts, prefixes, popularity, reuse over time: a label and a sentence each."""
    found = analysis.diversity
    rows = [
        (
            "prompts",
            f"{found.distinct_prompts:,} distinct ({percent(found.distinct_share)} of requests),"
            f" effectively {_rounded(found.effective_prompts)}",
        ),
        (
            "near replays",
            f"{found.near_replay.near_replays:,} requests that open a session with a new prompt,"
            " of which other sessions had 90%",
        ),
        (
            "prefixes",
            f"{found.shared_prefixes:,} shared between sessions;"
            f" the next block is a known one in {percent(found.prefix_coverage)} (Good-Turing)"
            + (f"; Zipf exponent {found.zipf.exponent:.2f}" if found.zipf else ""),
        ),
    ]
    if found.reuse_times:
        rows.append(
            ("reused within", _listed((t.seconds, percent(t.share)) for t in found.reuse_times))
        )
    if found.working_set:
        sizes = ((t.seconds, count(round(t.mean_blocks))) for t in found.working_set)
        rows.append(("blocks in use", _listed(sizes)))
    return rows


def _listed(values: Iterable[tuple[float, str]]) -> str:
    return ", ".join(f"{_time(seconds)} {value}" for seconds, value in values)


def _rounded(number: float | None) -> str:
    return "n/a" if number is None else f"{number:,.0f}"


def _time(seconds: float) -> str:
    for size, unit in _TIMES:
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
