"""`loadkit analyze LOG...`: what a log's own prompts make reusable, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadkit.cli import log_input, options, sample_options
from loadkit.cli import simulate_options as simulated
from loadkit.core.errors import InputError


def analyze(
    logs: options.LogFiles,
    format: options.LogFormat = "auto",
    tokenizer: options.LogTokenizer = None,
    block_size: options.LogBlockSize = None,
    capacity: Annotated[
        str | None,
        typer.Option(
            help="LRU capacities: 1000,30k (blocks), 3Mtok (tokens), 40GiB (with --model-config);"
            " a curve unless given.",
            metavar="LIST",
        ),
    ] = None,
    show_text: Annotated[
        bool,
        typer.Option("--show-text", help="Quote a few words of the log's prompts in examples."),
    ] = False,
    engine: simulated.Engine = "vllm",
    page_size: simulated.PageSize = None,
    slots: simulated.NumSlots = None,
    slot_similarity: simulated.SlotSimilarity = 0.1,
    policy: simulated.Policies = None,
    ttl: simulated.Ttl = None,
    ttl_fixed: simulated.TtlFixed = None,
    tiers: simulated.Tiers = None,
    in_flight: simulated.InFlight = None,
    latency: simulated.Latency = None,
    prefill_rate: simulated.PrefillRate = None,
    model_config: options.ModelConfig = None,
    kv_dtype: options.KvDtype = None,
    strict: options.Strict = False,
    skip_bad: options.SkipBad = False,
    hashed_out: Annotated[
        Path | None,
        typer.Option(
            "--hashed-out",
            help="Write the log here without its text, for others to analyze.",
            metavar="FILE",
        ),
    ] = None,
    hash_key: Annotated[
        Path | None,
        typer.Option(
            "--hash-key",
            help="With --hashed-out: ids of blocks that 5 or more sessions sent are hashes under "
            "this file's key, the same in all logs written with it.",
            metavar="FILE",
        ),
    ] = None,
    sample: sample_options.Sample = None,
    engine_distributed: sample_options.Engine = None,
    json: options.AsJson = False,
    output: options.JsonFile = None,
) -> None:
    """Exact reusable share of a log's prompt tokens, split by cause, and the hit-rate curve."""
    from msgspec.structs import replace

    from loadkit.analysis import analyze as analyze_trace
    from loadkit.cli import analyze_view, rate_tables, simulate_view
    from loadkit.traces import read_key, write_hashed

    capacity = log_input.capacity_text(capacity, model_config, kv_dtype)
    if hash_key is not None and hashed_out is None:
        raise InputError("there is no log to write", where="--hash-key", remedy="add --hashed-out")
    key = None if hash_key is None else read_key(hash_key)
    sample_options.check_engine(engine_distributed, sample)
    if sample is not None:
        sample_options.check_alone(
            {"--engine": engine != "vllm", "--policy": policy, "--ttl": ttl, "--tiers": tiers,
             "--ttl-fixed": ttl_fixed, "--in-flight": in_flight, "--show-text": show_text,
             "--hashed-out": hashed_out, "--strict": strict}
        )  # fmt: skip
        of_log = sample_options.Sampling(
            logs, format, sample, capacity, tokenizer, block_size, skip_bad
        )
        sample_options.run(of_log, engine_distributed, json, output)
        return
    log = simulated.read(
        logs,
        format,
        tokenizer,
        block_size,
        engine=engine,
        page_size=page_size,
        strict=strict,
        skip_bad=skip_bad,
    )
    if hashed_out is not None:
        write_hashed(log.trace, hashed_out, key)
    asked = simulated.asked(
        log.trace.block_size,
        engine,
        capacity,
        slots=slots,
        slot_similarity=slot_similarity,
        policy=policy,
        ttl=ttl,
        ttl_fixed=ttl_fixed,
        tiers=tiers,
        in_flight=in_flight,
        latency=latency,
        prefill_rate=prefill_rate,
    )
    analysis = analyze_trace(log.trace, asked.capacities, engine, show_text=show_text)
    if engine == "llamacpp":  # slots have no capacity in blocks
        analysis = replace(analysis, curve=())
    answers = simulated.answers(log.trace, engine, asked)
    data = analysis.to_dict() | {"format": log.format, "engine": engine} | answers
    if output is not None:
        log_input.write_json(output, data)
    if json:
        print(log_input.as_json(data))
    else:
        analyze_view.show(analysis, log.format, all_points=capacity is not None)
        simulate_view.show(rate_tables.console(), answers)
