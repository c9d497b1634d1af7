"""`loadkit forecast LOG... --traffic 1x`: the hit rate that production will see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from loadkit.cli import log_input, options, simulate_options

if TYPE_CHECKING:
    from loadkit.core.trace import Trace
    from loadkit.forecast.turns import ChatTurns


def forecast(
    logs: options.LogFiles,
    traffic: Annotated[
        str, typer.Option(help="Production's traffic as a multiple of the log's.", metavar="20x")
    ] = "1x",
    capacity: Annotated[
        str | None,
        typer.Option(
            help="Cache size: 30k (blocks), 3Mtok (tokens), 40GiB (with --model-config); infinite"
            " unless given.",
            metavar="SIZE",
        ),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(help="A block expires so long after its last use: 300, 5m, 1h.", metavar="S"),
    ] = None,
    replicas: Annotated[
        int, typer.Option(help="Servers with a cache each.", metavar="N", min=1)
    ] = 1,
    routing: Annotated[
        str, typer.Option(help="pooled, sticky, random or prefix-aware.", metavar="NAME")
    ] = "pooled",
    horizon: Annotated[
        str | None,
        typer.Option(
            help="So long from a cold start: 900, 1h; the log's own length unless given.",
            metavar="S",
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="How often the interval shall hold, 0..1.", metavar="P")
    ] = 0.9,
    target: Annotated[
        float,
        typer.Option(help="Points: a wider half interval is inconclusive.", metavar="POINTS"),
    ] = 5.0,
    sampled: Annotated[
        str,
        typer.Option(
            help="What the log is a random share of: sessions, requests (drawn one by one; a log of"
            " messages is needed) or tenants.",
            metavar="WHAT",
        ),
    ] = "sessions",
    engine: Annotated[
        str, typer.Option(help="Its hit rule: vllm, sglang or none.", metavar="NAME")
    ] = "vllm",
    page_size: simulate_options.PageSize = None,
    seed: Annotated[int, typer.Option(help="Same seed, same forecast.", metavar="N", min=0)] = 0,
    for_model: Annotated[
        str | None,
        typer.Option(help="Served model it is for; gate refuses a run of another.", metavar="NAME"),
    ] = None,
    format: options.LogFormat = "auto",
    tokenizer: options.LogTokenizer = None,
    block_size: options.LogBlockSize = None,
    model_config: options.ModelConfig = None,
    kv_dtype: options.KvDtype = None,
    strict: options.Strict = False,
    skip_bad: options.SkipBad = False,
    json: options.AsJson = False,
    output: options.JsonFile = None,
) -> None:
    """Hit rate to expect in production. Exit 3 where no honest figure can be given."""
    from msgspec.structs import replace

    from loadkit.cli import forecast_view
    from loadkit.core.errors import CannotMeasure
    from loadkit.core.units import parse_capacity, parse_traffic
    from loadkit.forecast import forecast as forecast_trace

    times = parse_traffic(traffic)
    capacity = log_input.capacity_text(capacity, model_config, kv_dtype)
    log = simulate_options.read(
        logs, format, tokenizer, block_size, engine=engine, page_size=page_size, strict=strict,
        skip_bad=skip_bad,
    )  # fmt: skip
    answer = forecast_trace(
        log.trace,
        times,
        parse_capacity(capacity, log.trace.block_size) if capacity else None,
        ttl_s=simulate_options.seconds(ttl, "--ttl") if ttl else None,
        replicas=replicas,
        routing=routing,
        horizon_s=simulate_options.seconds(horizon, "--horizon") if horizon else None,
        tokenizer_fingerprint=log.tokenizer_fingerprint,
        confidence=confidence,
        target_points=target,
        seed=seed,
        engine=engine,
        sampled=sampled,
        turns=_turns(log.trace, tokenizer) if sampled == "requests" else None,
    )
    answer = replace(answer, log=replace(answer.log, model=for_model))
    if output is not None:
        log_input.write_json(output, answer.to_dict())
    if json:
        print(log_input.as_json(answer.to_dict()))
    else:
        forecast_view.show(answer)
    if answer.status != "ok":
        verdict = "no forecast" if answer.hit_rate.estimate is None else "inconclusive"
        raise CannotMeasure(f"{verdict}: {answer.needs}", code="forecast_refused")


def _turns(trace: Trace, tokenizer: str | None) -> ChatTurns | None:
    """The earlier turns that each request's messages show; None for a log without messages."""
    from loadkit.core.tokenizer import load_tokenizer
    from loadkit.forecast.turns import ChatTurns

    if trace.chats is None or tokenizer is None:
        return None
    return ChatTurns(trace, trace.chats, load_tokenizer(tokenizer))
