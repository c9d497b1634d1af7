"""Names, texts and buckets of the plain counters and histograms, one label: model_name."""

from __future__ import annotations

TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0),
)
TOKEN_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
REQUEST_S = (0.01, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240)
LENGTHS = tuple(m * 10**e for e in range(6) for m in (1, 2, 5))
STEP_TOKENS = tuple(2**e for e in range(14))
SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)

COUNTERS = {
    "vllm:prefix_cache_queries": "Prompt tokens looked up",
    "vllm:prefix_cache_hits": "Prompt tokens found in the cache, whatever the tier",
    "vllm:prompt_tokens": "Prompt tokens of admitted requests",
    "vllm:generation_tokens": "Tokens generated",
    "vllm:num_preemptions": "Requests dropped and requeued",
    "vllm:spec_decode_num_draft_tokens": "Tokens guessed ahead",
    "vllm:spec_decode_num_accepted_tokens": "Guessed tokens that were right",
    "loadkit:kept_tail_tokens": "Prompt tokens copied from an unfinished block; they count as missed",
}
HISTOGRAMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "vllm:time_to_first_token_seconds": ("Arrival to first token", TTFT_S),
    "vllm:inter_token_latency_seconds": ("Gap between two tokens of a reply", TOKEN_S),
    "vllm:request_time_per_output_token_seconds": ("A reply's mean gap", TOKEN_S),
    "vllm:e2e_request_latency_seconds": ("Arrival to end", REQUEST_S),
    "vllm:request_queue_time_seconds": ("Arrival to admission", REQUEST_S),
    "vllm:request_prefill_time_seconds": ("Admission to first token", REQUEST_S),
    "vllm:request_decode_time_seconds": ("First token to last", REQUEST_S),
    "vllm:request_inference_time_seconds": ("Admission to last token", REQUEST_S),
    "vllm:request_prompt_tokens": ("Prompt length", LENGTHS),
    "vllm:request_generation_tokens": ("Reply length", LENGTHS),
    "vllm:request_params_max_tokens": ("max_tokens as asked for, or what fits", LENGTHS),
    "vllm:request_params_n": ("n as asked for", (1, 2, 5, 10, 20)),
    "vllm:iteration_tokens_total": ("Tokens a step computes", STEP_TOKENS),
    "loadkit:prefix_hit_share": ("Share of a prompt that was cached, 0..1", SHARES),
}
