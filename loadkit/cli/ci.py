"""What the deciding verbs leave for a CI: files it names, annotations in its log."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadkit.gate import Verdict


def write_verdict(
    verdict: Verdict, *, name: str, junit: Path | None = None, markdown: Path | None = None
) -> None:
    """JUnit and Markdown where they were asked for, and on GitHub the run's summary and
    annotations. InputError if a file cannot be written."""
    from loadkit.gate.junit import to_junit
    from loadkit.gate.markdown import to_markdown
    from loadkit.report.files import write_whole

    if junit is not None:
        write_whole(junit, to_junit(verdict))
    if markdown is not None:
        write_whole(markdown, to_markdown(verdict, name))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        _append(Path(summary), to_markdown(verdict, name))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from loadkit.gate.annotations import to_annotations

        for line in to_annotations(verdict):
            print(line, file=sys.stderr)


def _append(path: Path, text: str) -> None:
    """The summary is the CI's file, shared by the steps of a job: added to, never replaced."""
    from loadkit.core.errors import InputError

    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise InputError(what, where=f"GITHUB_STEP_SUMMARY={path}") from error
