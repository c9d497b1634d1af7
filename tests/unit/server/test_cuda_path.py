"""What runs on CUDA only: its inputs here on the CPU, the thing itself where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_greedy_equality import BLOCK, VOCABULARY, make_engine, random_prompt, run_all, submit
from tiny_model import make_model
from torch import Tensor

from reference_server.attention import VarlenBackend
from reference_server.cuda_graphs import DecodeGraphs, _Static
from reference_server.engine import Engine, EngineSettings
from reference_server.model_runner import TransformersRunner
from reference_server.page_pool import SCRATCH_PAGE
from reference_server.request import Chunk, Request, SamplingParams
from reference_server.tiers.host import HostSlab

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def sdpa_by_tables(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: None,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    seqused_k: Tensor,
    block_table: Tensor,
    **options: Any,
) -> Tensor:
    """torch's varlen_attn for one query a sequence, in plain operations."""
    out = torch.empty_like(query)
    group = query.shape[1] // keys.shape[2]
    for row, used in enumerate(seqused_k.tolist()):
        k, v = (part[block_table[row].long()].flatten(0, 1)[:used] for part in (keys, values))
        k, v = (part.repeat_interleave(group, 1).transpose(0, 1) for part in (k, v))
        weights = torch.softmax(query[row][:, None] @ k.transpose(1, 2) * scale, -1)
        out[row] = (weights @ v)[:, 0]
    return out


def call_again(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    work()
    return work


def test_graphs_of_padded_batches_say_what_the_plain_path_says() -> None:
    """Batches of 1 to 3 of different lengths, one of them over a resident last block."""
    torch.set_num_threads(1)
    plain, graphed = make_engine(), make_engine()
    runner: Any = graphed.runner
    backend = VarlenBackend(BLOCK)
    backend._attend = sdpa_by_tables  # type: ignore[assignment]
    steps = []

    class Counting(DecodeGraphs):
        def logits(self, chunks: Any) -> Tensor | None:
            made = super().logits(chunks)
            steps.append(None if made is None else len(chunks))
            return made

    runner.graphs = Counting(
        runner.forward,
        backend,
        runner.pages.layers,
        block_size=BLOCK,
        max_len=256,
        max_batch=4,
        device=runner.device,
        capture=call_again,
    )
    prompts = [random_prompt(seed, length) for seed, length in ((1, 20), (2, 48), (3, 33))]
    for batch in (prompts, prompts[1:2], prompts):
        answers = []
        for engine in (plain, graphed):
            requests = [submit(engine, p, min_tokens=12) for p in batch]
            run_all(engine)
            answers.append([r.output for r in requests])
        assert answers[0] == answers[1]
    assert {1, 3} <= set(steps)


def test_a_step_fills_only_the_columns_that_it_needs_and_idle_rows_read_the_scratch_page() -> None:
    """A context of 131,072 tokens has 8,192 columns a row: filling them all took longer than a
    step. What an earlier step left behind `seqused_k` is never read."""
    static = _Static(4, 8192, 131_072, torch.device("cpu"))
    table, used = static.state["block_table"], static.state["seqused_k"]
    table.fill_(77)
    request = Request([5] * 20, BLOCK, b"", SamplingParams(max_tokens=9))
    request.pages = [3, 9]
    static.fill([Chunk(request, 19, 1)], BLOCK)
    assert table[:, :3].tolist() == [[3, 9, 77], *[[SCRATCH_PAGE, SCRATCH_PAGE, 77]] * 3]
    assert used.tolist() == [20, 1, 1, 1]
    assert static.write.tolist() == [9 * BLOCK + 3, *[SCRATCH_PAGE * BLOCK] * 3]


def test_a_capture_that_fails_is_said_once_and_decoding_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    engine = make_engine()
    runner: Any = engine.runner
    runner.graphs = DecodeGraphs(
        runner.forward,
        runner.backend,
        runner.pages.layers,
        block_size=BLOCK,
        max_len=256,
        max_batch=4,
        device=runner.device,
        capture=no,
    )
    request = submit(engine, random_prompt(1, 20), min_tokens=12)
    run_all(engine)
    assert request.output == reply_without_graphs()
    assert capsys.readouterr().err.count("no CUDA graphs") == 1


def reply_without_graphs() -> list[int]:
    engine = make_engine()
    request = submit(engine, random_prompt(1, 20), min_tokens=12)
    run_all(engine)
    return request.output


@needs_cuda
def test_cuda_hits_equal_misses_token_for_token() -> None:
    settings = EngineSettings(BLOCK, 200, 40, max_num_seqs=4)
    model = make_model(VOCABULARY).to("cuda", torch.bfloat16)
    engine = Engine(TransformersRunner(model, num_pages=205, block_size=BLOCK), settings)
    prompt = random_prompt(1, 100)
    requests = []
    for _ in range(2):
        requests.append(submit(engine, prompt, min_tokens=12))
        run_all(engine)
    assert requests[0].output == requests[1].output
    assert requests[1].split is not None
    assert requests[1].split.hit == 96


@needs_cuda
def test_cuda_graphs_say_what_single_launches_say() -> None:
    replies = []
    for graphed in (True, False):
        model = make_model(VOCABULARY).to("cuda", torch.bfloat16)
        runner = TransformersRunner(model, num_pages=205, block_size=BLOCK)
        if graphed and runner.graphs is None:
            pytest.skip("no FlashAttention with block tables here, so no graphs")
        if not graphed:
            runner.graphs = None
        engine = Engine(runner, EngineSettings(BLOCK, 200, 40, max_num_seqs=4))
        requests = [submit(engine, random_prompt(n, 20 * n), min_tokens=12) for n in (1, 2, 3)]
        run_all(engine)
        replies.append([request.output for request in requests])
    assert replies[0] == replies[1]


@needs_cuda
def test_cuda_host_memory_is_pinned() -> None:
    slab = HostSlab(2, (1, 2, BLOCK, 2, 16), torch.bfloat16, pinned=True)
    assert slab._slots.is_pinned()
