"""The Parquet files of a run folder: figures only, no text of any prompt or reply."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from loadkit.runs.context import PrefixCounters, RunContext
from loadkit.runs.latency import main_cause
from loadkit.runs.prediction import Prediction
from loadkit.runs.record import Record
from loadkit.runs.splits import RequestSplits

_F, _I, _S = pa.float64(), pa.int64(), pa.string()
_RECORD = {
    "session": _S,
    "turn": _I,
    "name": _S,
    "phase": _S,
    "worker": _I,
    "outcome": _S,
    "intended_s": _F,
    "sent_s": _F,
    "connect_s": _F,
    "first_token_s": _F,
    "last_token_s": _F,
    "completed_s": _F,
    "gaps_s": pa.list_(_F),
    "event_tokens": pa.list_(_I),
    "status": _I,
    "error": _S,
    "finish_reason": _S,
    "prompt_tokens": _I,
    "output_tokens": _I,
    "cached_tokens": _I,
    "ttft_s": _F,
    "tpot_s": _F,
    "e2e_s": _F,
    "schedule_delay_s": _F,
    "attempts": _I,
    "retry_after_s": _F,
    "compacted": pa.bool_(),
    "resent": pa.bool_(),
    "left": pa.bool_(),
    "usage_doubt": _S,
}
_SPLIT = {
    "replay_same_session": _I,
    "replay_cross_session": _I,
    "continuation": _I,
    "shared": _I,
    "miss_capacity": _I,
    "miss_unexplained": _I,
    "miss_compulsory": _I,
}
_PREDICTED = {
    "reusable_tokens": _I,
    "possible_tokens": _I,
    "resident_tokens": _I,
    "own_prefix_tokens": _I,
}
REQUESTS_SCHEMA = pa.schema(
    {**_RECORD, "replay": _S, "main_cause": _S, **_SPLIT, **_PREDICTED}.items()
)
METRICS_SCHEMA = pa.schema(
    {"moment": _S, "at_s": _F, "source": _S, "counter": _S, "tokens": _F}.items()
)


def write_requests(
    records: Sequence[Record],
    answered: Sequence[Record],
    splits: RequestSplits,
    prediction: Prediction | None,
    path: Path,
) -> None:
    """Write one row a record, in order of intended time. Columns that nobody knows are null.

    `answered`, `splits` and `prediction` run parallel; a record that was not answered has no split.
    """
    row_of = {id(record): row for row, record in enumerate(answered)}
    rows = [
        _record_columns(record) | _answer_columns(row_of.get(id(record)), splits, prediction)
        for record in sorted(records, key=lambda r: (r.intended_s, r.session, r.turn))
    ]
    _write_table(rows, REQUESTS_SCHEMA, path)


def _record_columns(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _RECORD}


def _answer_columns(
    row: int | None, splits: RequestSplits, prediction: Prediction | None
) -> dict[str, Any]:
    if row is None:
        return {}
    split = splits.splits[row]
    columns: dict[str, Any] = {"replay": splits.replay[row], "main_cause": main_cause(split)}
    if split is not None:
        columns |= {name: getattr(split, name) for name in _SPLIT}
    if prediction is not None:
        for name in _PREDICTED:
            values = getattr(prediction, name)
            columns[name] = None if values is None else int(values[row])
    return columns


def write_server_metrics(context: RunContext, path: Path) -> None:
    """Write the server's counters before, during and after the run, one row a counter; empty:
    unknown. at_s: seconds after the run's start of a reading in mid-run, else null."""
    rows = [
        *_counter_rows("before", context.counters_before),
        *(
            row
            for sample in context.counter_samples
            for row in _counter_rows("during", sample.counters, sample.got_s)
        ),
        *_counter_rows("after", context.counters_after),
    ]
    _write_table(rows, METRICS_SCHEMA, path)


def _write_table(rows: list[dict[str, Any]], schema: pa.Schema, path: Path) -> None:
    """With a checksum a page, so that a damaged byte is noticed by whoever reads and checks them."""
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def _counter_rows(
    moment: str, counters: PrefixCounters | None, at_s: float | None = None
) -> list[dict[str, Any]]:
    if counters is None:
        return []
    values = {"queries": counters.queries, "hits": counters.hits, **counters.by_cause}
    if counters.prompts is not None:
        values["prompts"] = counters.prompts
    return [
        {
            "moment": moment,
            "at_s": at_s,
            "source": counters.source,
            "counter": name,
            "tokens": value,
        }
        for name, value in values.items()
    ]
