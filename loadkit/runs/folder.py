"""Build a run folder from the workers' journals.

Everything is written into a hidden folder beside the final one and renamed as the last step, so a
run folder is either whole or not there.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from loadkit.core.errors import CannotMeasure, InputError, naming
from loadkit.runs.client_load import client_load, load_notes, loop_stalls
from loadkit.runs.context import RunContext
from loadkit.runs.goodput import goodput, stages
from loadkit.runs.histograms import write_histograms
from loadkit.runs.journal import read_journal
from loadkit.runs.latency import latency
from loadkit.runs.plausible import may_have_been_counted
from loadkit.runs.predicting import make_predictions
from loadkit.runs.prediction import OF_THE_LOG
from loadkit.runs.reconcile import confirmed_by_counters, reconcile
from loadkit.runs.record import Record
from loadkit.runs.sent import in_order_of_sending, write_sent
from loadkit.runs.splits import split_requests, total_split, unexplained_note
from loadkit.runs.summary import (
    common_errors,
    invalid_reasons,
    is_unsent,
    outcome_counts,
    phases,
    public_url,
    schedule_delay,
    totals,
)
from loadkit.runs.tables import write_requests, write_server_metrics
from loadkit.runs.view import Gathered, View, measured_view
from loadkit.runs.warm import warm_note

SCHEMA = "loadkit.run/1"
UNASKED = (
    "on {} connection(s) more came than was asked for; they were closed. An answer that comes late on a "
    "kept connection looks like the next request's: some answers may stand beside the wrong request"
)


def gather(work: Path) -> Gathered:
    """Read every journal of a working folder, in order of file name."""
    records: list[Record] = []
    torn_bytes, seen, duplicates = 0, set[bytes](), 0
    for path in sorted((work / "journals").glob("*.journal")):
        journal = read_journal(path)
        torn_bytes += journal.torn_bytes
        for record in journal.records:
            key = hashlib.blake2b(msgspec.msgpack.encode(record), digest_size=16).digest()
            duplicates += key in seen
            if key not in seen:
                records.append(record)
            seen.add(key)
    return Gathered(records, torn_bytes, duplicates)


def finish_run(work: Path, out: Path, context: RunContext) -> dict[str, Any]:
    """Write the run folder `out` from the working folder `work`; returns run.json's content.

    `out` may exist only as an empty folder (InputError otherwise: no result is overwritten).
    Raises CannotMeasure (too_few_samples) if no request was sent, after writing the folder.
    OSError (a full disk) leaves nothing of `out` behind, and `work` as it was.
    """
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with naming(building):
            run = _write(building, gather(work), context)
        building.replace(out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    if is_unsent(run["requests"]):
        raise CannotMeasure(
            "no request was sent",
            code="too_few_samples",
            remedy=f"look at the errors in {out / 'requests.parquet'}; is the endpoint up?",
        )
    return run


def check_free(out: Path) -> None:
    """InputError if `out` is there already and not an empty folder, or is a symbolic link."""
    if out.is_symlink():
        raise InputError(
            f"is a symbolic link to {out.readlink()}", where=out, remedy="name that folder itself"
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(
            "already exists", where=out, remedy="name a new folder, or remove this one first"
        )


def _write(folder: Path, gathered: Gathered, context: RunContext) -> dict[str, Any]:
    """Everything that was answered is predicted, in order; the figures are of the measured phase."""
    everything = in_order_of_sending(gathered.records)
    sent = folder / "sent.jsonl.gz"
    write_sent(everything, sent)
    unseen = [record for record in gathered.records if may_have_been_counted(record)]
    made = make_predictions(sent, everything, context, unseen)
    predictions = made.predictions
    confirmed = confirmed_by_counters(gathered.records, everything, predictions, context)
    best = predictions.best if predictions else None
    splits = split_requests(everything, best, confirmed=confirmed)
    view = measured_view(gathered, everything, splits, predictions)
    run = _run_json(view, context)
    run["tokenizer"] = msgspec.to_builtins(made.tokenizer)
    run["prompt_ids"] = msgspec.to_builtins(made.prompt_ids)
    run["template"] = msgspec.to_builtins(made.template)
    warm = warm_note(gathered.records, view.answered, run["reconciliation"])
    late = [UNASKED.format(context.unasked)] if context.unasked else []
    slow = load_notes(context.stalls)
    split = run["split"]
    lost = unexplained_note(
        split["miss_unexplained"], split["prompt_tokens"], split["miss_unexplained_why"]
    )
    found = [note for note in (lost, warm) if note]
    run["notes"] = [*context.notes, *made.notes, *found, *late, *slow]
    write_requests(gathered.records, everything, splits, best, folder / "requests.parquet")
    write_server_metrics(context, folder / "server_metrics.parquet")
    write_histograms(view.answered, view.records, folder / "histograms.json")
    text = msgspec.json.format(msgspec.json.encode(run), indent=2)
    (folder / "run.json").write_bytes(text + b"\n")
    return run


def _run_json(view: View, context: RunContext) -> dict[str, Any]:
    counts = outcome_counts(view.records, context.scheduled)
    left = sum(record.left for record in view.records)
    delay = schedule_delay(view.records)
    errors = common_errors(view.records)
    reasons = invalid_reasons(counts, left, errors, delay, view.gathered.torn_bytes, context)
    return {
        "schema": SCHEMA,
        "status": "invalid" if reasons else "ok",
        "reasons": reasons,
        **_setting(context),
        "requests": counts,
        "left": left,
        "retries": sum(record.attempts - 1 for record in view.records),
        "phases": phases(view.gathered.records, context),
        "errors": errors,
        "sessions": len({record.session for record in view.answered}),
        "wraps": context.wraps,
        "truncations": context.truncations,
        "freshness": context.freshness,
        "mutations": context.mutations,
        "compactions": context.compactions,
        "torn_bytes": view.gathered.torn_bytes,
        "duplicate_records": view.gathered.duplicates,
        "missing_workers": context.missing_workers,
        "schedule_delay_s": delay,
        "loop_stalls": loop_stalls(context.stalls),
        "client": client_load(context.stalls, view.records),
        "goodput": goodput(view.records, context),
        "stages": stages(view.records, context),
        "totals": totals(view.answered),
        "split": total_split(view.splits, view.answered),
        "latency": latency(view.answered, view.splits.splits),
        **(view.predictions.log if view.predictions else OF_THE_LOG),
        "reconciliation": reconcile(view, context),
    }


def _setting(context: RunContext) -> dict[str, Any]:
    return {
        "profile": context.profile,
        "seed": context.seed,
        "versions": context.versions,
        "endpoint": {
            "url": public_url(context.url),
            "model": context.model,
            "block_size": context.block_size,
            "capacity_blocks": context.capacity_blocks,
            "engines": context.engines,
            "prefix_caching": context.prefix_caching,
            "kept_blocks": list(context.kept_blocks),
            "tokenizer_fingerprint": context.server_tokenizer_fingerprint,
        },
        "block_size": context.block_size,
        "capacity_blocks": context.capacity_blocks,
        "started_unix_s": context.started_unix_s,
        "duration_s": context.duration_s,
        "processes": context.processes,
        "cache": context.cache,
        "loop": context.loop,
        "kind": context.kind,
    }
