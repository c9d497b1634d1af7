"""What is known of what was sent: kept by the run, read again only for old folders and for text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
from report_builders import Example, make_run, production_records

from loadkit.report import build, render
from loadkit.report.sent import sent


def test_what_was_sent_is_known_without_reading_it_again_and_of_old_folders_by_reading_it(
    example: Example, tmp_path: Path
) -> None:
    run = json.loads((example.staging / "run.json").read_text())
    kept = sent("Staging", tmp_path / "gone", run, show_text=False)
    old = {name: run[name] for name in ("tokenizer", "block_size")}
    read = sent("Staging", example.staging, old, show_text=False)
    there = f"{example.staging}/".encode()
    assert msgspec.json.encode(kept) == msgspec.json.encode(read).replace(there, b"")
    assert kept.diversity == run["diversity"]
    assert kept.why_not is None


def test_a_run_names_places_of_its_log_without_the_folder_it_was_made_in(
    example: Example, tmp_path: Path
) -> None:
    records = [
        msgspec.structs.replace(record, messages=[{"role": "system", "content": f"word{n}"},
                                                  *record.messages])
        for n, record in enumerate(production_records(8, 3))
    ]  # fmt: skip
    run = make_run(tmp_path / "run", records, tokenizer=example.tokenizer, capacity_blocks=900)
    assert run["append_only"]["causes"]
    assert str(tmp_path) not in json.dumps(run["append_only"])


def test_a_damaged_sent_log_is_told_and_the_rest_is_shown(example: Example, tmp_path: Path) -> None:
    shutil.copytree(example.staging, tmp_path / "run")
    (tmp_path / "run" / "sent.jsonl.gz").write_bytes(b"\x1f\x8bnope")
    assert "was not read again" not in render(build(tmp_path / "run"))
    assert "the sent log was not read again" in render(build(tmp_path / "run", show_text=True))
