"""A workload made from a slice of a public trace gives the forecast back within a point."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from public_data import CONVERSATION, DATA, missing
from secret_chats import make_tokenizer

from loadkit import corpora
from loadkit.analysis import analyze
from loadkit.analysis.nodes import node_stream
from loadkit.analysis.weighted import weighted_hits
from loadkit.core.trace import Trace
from loadkit.forecast import forecast
from loadkit.forecast.sample import sample_of
from loadkit.forecast.superpose import superpose, template_of
from loadkit.synthesize import synthesize_chats, synthesize_token_ids
from loadkit.traces import read_log

pytestmark = pytest.mark.skipif(missing(CONVERSATION), reason=f"{CONVERSATION} is not there")


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Trace]:
    """So many sessions over the whole half hour, read from a file of their own."""
    whole = read_log([DATA / CONVERSATION]).trace
    order = np.random.default_rng(5).permutation(whole.num_sessions)
    lines = gzip.decompress((DATA / CONVERSATION).read_bytes()).splitlines(keepends=True)
    folder = tmp_path_factory.mktemp("slices")

    def slice_of(num_sessions: int) -> Trace:
        picked = np.isin(whole.session, order[:num_sessions])
        path = folder / f"{num_sessions}.jsonl"
        path.write_bytes(b"".join(line for line, keep in zip(lines, picked, strict=True) if keep))
        return read_log([path]).trace

    return slice_of


@pytest.mark.parametrize("traffic", [1, 3])
def test_token_ids_of_mooncake_give_the_forecast_back(
    slices: Callable[[int], Trace], tmp_path: Path, traffic: float
) -> None:
    log = slices(300)
    made = synthesize_token_ids(log, traffic, tmp_path / "out.jsonl")
    assert (made.lost_blocks, made.wrong_lengths) == (0, 0)
    expected = forecast(log, traffic)
    sizes = [point.capacity_blocks for point in expected.curve]
    found = analyze(read_log([tmp_path / "out.jsonl"], block_size=512).trace, [None, *sizes])
    assert found.infinite.hit_rate == pytest.approx(expected.hit_rate.estimate, abs=0.01)
    assert len(sizes) > 8
    for point, again in zip(expected.curve, found.curve[1:], strict=True):
        assert again.hit_rate == pytest.approx(point.hit_rate, abs=0.01)


@pytest.mark.parametrize("traffic", [1, 3])
def test_chats_of_mooncake_give_the_superposition_back(
    slices: Callable[[int], Trace], tmp_path: Path, traffic: float
) -> None:
    """Too few sessions for a forecast, but their superposition can be counted all the same."""
    log, tokenizer = slices(50), make_tokenizer()
    made = synthesize_chats(
        log, traffic, tmp_path / "out.jsonl", tokenizer, corpora.load("assistant-chat")
    )
    assert (made.lost_blocks, made.wrong_lengths) == (0, 0)
    assert made.longer_requests <= 0.01 * made.requests
    sizes = [None, 300, 1000, 3000]
    template = template_of(sample_of(node_stream(log)))
    stream = superpose(template, traffic, np.random.default_rng([0, 0])).stream
    back = read_log([tmp_path / "out.jsonl"], tokenizer=tokenizer, block_size=512).trace
    found = [point.hit_rate for point in analyze(back, sizes).curve]
    assert found == pytest.approx(weighted_hits(stream, sizes).hit_rates().tolist(), abs=0.01)
