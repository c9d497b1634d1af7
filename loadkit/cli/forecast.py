"""`loadkit forecast LOG... --traffic 1x`: the hit rate that production will see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from loadkit.cli import simulate_options
from loadkit.cli.log_input import Answer, CheckedSource, check_folder
from loadkit.cli.options import Latency, PageSize, PrefillRate, flag, grouped, option
from loadkit.cli.served_model import ServedModel

if TYPE_CHECKING:
    from loadkit.core.trace import Trace
    from loadkit.forecast.turns import ChatTurns


@grouped
def forecast(
    source: CheckedSource,
    model: ServedModel,
    printed: Answer,
    traffic: Annotated[
        str, option("Production's traffic as a multiple of the log's.", "20x")
    ] = "1x",
    capacity: Annotated[
        str | None,
        option(
            "Cache size: 30k (blocks), 3Mtok (tokens), 40GiB (with --model-config); infinite"
            " unless given.",
            "SIZE",
        ),
    ] = None,
    ttl: Annotated[
        str | None, option("A block expires so long after its last use: 300, 5m, 1h.", "S")
    ] = None,
    replicas: Annotated[int, option("Servers with a cache each.", "N", min=1)] = 1,
    routing: Annotated[str, option("pooled, sticky, random or prefix-aware.", "NAME")] = "pooled",
    horizon: Annotated[
        str | None,
        option("So long from a cold start: 900, 1h; the log's own length unless given.", "S"),
    ] = None,
    confidence: Annotated[float, option("How often the interval shall hold, 0..1.", "P")] = 0.9,
    target: Annotated[
        float, option("Points: a wider half interval is inconclusive.", "POINTS")
    ] = 5.0,
    sampled: Annotated[
        str,
        option(
            "What the log is a random share of: sessions, requests (drawn one by one; a log of"
            " messages is needed) or tenants.",
            "WHAT",
        ),
    ] = "sessions",
    prompts_only: Annotated[
        bool,
        flag(
            "--prompts-only",
            "Leave the log's replies out of the cache: what a replay of the log can hit.",
        ),
    ] = False,
    engine: Annotated[str, option("vllm, sglang, reference or none.", "NAME")] = "vllm",
    page_size: PageSize = None,
    latency: Latency = None,
    prefill_rate: PrefillRate = None,
    seed: Annotated[int, option("Same seed, same forecast.", "N", min=0)] = 0,
    for_model: Annotated[
        str | None, option("Served model it is for; gate refuses a run of another.", "NAME")
    ] = None,
) -> None:
    """Hit rate to expect in production. Exit 3 where no honest figure can be given."""
    from msgspec import to_builtins
    from msgspec.structs import replace

    from loadkit.cli import forecast_view, rate_tables, served_model
    from loadkit.core.errors import CannotMeasure
    from loadkit.core.units import parse_capacity, parse_traffic
    from loadkit.forecast import forecast as forecast_trace

    check_folder(printed.output)
    times = parse_traffic(traffic)
    capacity = model.in_tokens(capacity)
    log = simulate_options.read(source, engine, page_size, model)
    trace = log.trace.without_replies() if prompts_only else log.trace
    answer = forecast_trace(
        trace,
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
        turns=_turns(trace, source.tokenizer) if sampled == "requests" else None,
        latency_s=latency,
        prefill_tokens_per_s=prefill_rate,
    )
    answer = replace(answer, log=replace(answer.log, model=for_model))
    blocks = served_model.model_blocks(model, log) if engine == "vllm" else None

    def show() -> None:
        forecast_view.show(answer)
        served_model.show(rate_tables.console(), blocks, answer.hit_rate.estimate)

    told = {} if blocks is None else {"model_blocks": to_builtins(blocks)}
    printed.give(answer.to_dict() | told, show)
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
