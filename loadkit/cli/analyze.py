"""`loadkit analyze LOG...`: what a log's own prompts make reusable, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from loadkit.cli import log_input, sample_options
from loadkit.cli.log_input import Answer, CheckedSource
from loadkit.cli.options import flag, grouped, option
from loadkit.cli.sample_options import Sampling
from loadkit.cli.served_model import ServedModel
from loadkit.cli.simulate_options import Simulated, answers, read
from loadkit.core.errors import InputError


@grouped
def analyze(
    source: CheckedSource,
    simulated: Simulated,
    model: ServedModel,
    sampling: Sampling,
    answer: Answer,
    capacity: Annotated[
        str | None,
        option(
            "LRU capacities: 1000,30k (blocks), 3Mtok (tokens), 40GiB (with --model-config);"
            " a curve unless given.",
            "LIST",
        ),
    ] = None,
    show_text: Annotated[
        bool, flag("--show-text", "Quote a few words of the log's prompts in examples.")
    ] = False,
    hashed_out: Annotated[
        Path | None, option("Write the log here without its text, for others to analyze.", "FILE")
    ] = None,
    hash_key: Annotated[
        Path | None,
        option(
            "With --hashed-out: ids of blocks that 5 or more sessions sent are hashes under "
            "this file's key, the same in all logs written with it.",
            "FILE",
        ),
    ] = None,
) -> None:
    """Exact reusable share of a log's prompt tokens, split by cause, and the hit-rate curve."""
    from msgspec import to_builtins
    from msgspec.structs import replace

    from loadkit.analysis import analyze as analyze_trace
    from loadkit.cli import analyze_view, rate_tables, served_model, simulate_view
    from loadkit.traces import read_key, write_hashed

    log_input.check_folder(answer.output, hashed_out)
    engine = simulated.engine
    capacity = model.in_tokens(capacity)
    if hash_key is not None and hashed_out is None:
        raise InputError("there is no log to write", where="--hash-key", remedy="add --hashed-out")
    key = None if hash_key is None else read_key(hash_key)
    sampling.check()
    if sampling.sample is not None:
        sample_options.check_alone(
            {"--engine": engine != "vllm", "--policy": simulated.policy, "--ttl": simulated.ttl,
             "--tiers": simulated.tiers, "--ttl-fixed": simulated.ttl_fixed,
             "--latency": simulated.latency, "--show-text": show_text,
             "--hashed-out": hashed_out, "--strict": source.strict}
        )  # fmt: skip
        model.check_block_size(source.block_size)
        sample_options.run(source, sampling, capacity, answer)
        return
    log = read(source, engine, simulated.page_size, model)
    if hashed_out is not None:
        write_hashed(log.trace, hashed_out, key)
    asked = simulated.asked(log.trace.block_size, capacity)
    slots = engine == "llamacpp"  # they have no capacity in blocks, but latencies of their own
    analysis = analyze_trace(
        log.trace,
        () if slots else asked.capacities,
        engine,
        show_text=show_text,
        latency_s=None if slots else simulated.latency,
        prefill_tokens_per_s=simulated.prefill_rate,
    )
    if slots:
        analysis = replace(analysis, curve=())
    caches = answers(log.trace, engine, asked)
    blocks = None
    if engine == "vllm":
        sizes = served_model.same_log_at(model, source, log)
        blocks = served_model.model_blocks(model, log, sizes)

    def show() -> None:
        analyze_view.show(analysis, log.format, all_points=capacity is not None)
        served_model.show(rate_tables.console(), blocks, analysis.infinite.hit_rate)
        simulate_view.show(rate_tables.console(), caches)

    told = {"format": log.format, "engine": engine}
    if blocks is not None:
        told["model_blocks"] = to_builtins(blocks)
    answer.give(analysis.to_dict() | told | caches, show)
