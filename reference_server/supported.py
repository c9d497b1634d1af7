"""Which models can be served: those whose attention over pages says what their own says.

A prefix can be shared only if its K/V depends on nothing but its tokens and their positions, and
paged attention knows no windows, sinks or biases. What a configuration tells of that is refused
with its name; the rest is found by asking the model twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loadkit.core.errors import InputError
from reference_server.attention import ATTENTION_NAME
from reference_server.request import Chunk, Request, SamplingParams

if TYPE_CHECKING:
    from reference_server.model_runner import TransformersRunner

NUM_ASKED = 24  # tokens: more than a block of the usual size
# Mean difference of log probabilities: rounding stays far below, another attention far above.
TOLERANCE_FP32, TOLERANCE_HALF = 1e-3, 0.25


def require_plain_attention(config: Any) -> None:
    """InputError for a configuration that names anything but full causal attention."""
    kinds = set(getattr(config, "layer_types", None) or _windowed(config) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise _refusal(f"layers of kind {', '.join(sorted(kinds))} are not supported")
    if getattr(config, "attn_logit_softcapping", None):
        raise _refusal("attention with soft-capped logits")
    for kind in sorted(_rope_types(config)):
        if "dynamic" in kind or kind == "longrope":
            raise _refusal(f"rotary embedding {kind!r} changes a prefix with what comes after it")


class OwnAnswer:
    """What a model says before its attention is replaced."""

    @torch.inference_mode()
    def __init__(self, model: Any, max_tokens: int):
        vocabulary = model.config.get_text_config().vocab_size
        self.tokens = [(7919 * i + 13) % vocabulary for i in range(min(NUM_ASKED, max_tokens))]
        ids = torch.tensor([self.tokens], device=model.device)
        self.logprobs = _logprobs(model(input_ids=ids, use_cache=False).logits[0, -1])

    def require_same(self, runner: TransformersRunner) -> None:
        """InputError if the runner says something else after a prompt chunk and a decode step.
        Writes into the first pages of the pool."""
        if runner.model.config.get_text_config()._attn_implementation != ATTENTION_NAME:
            raise _refusal("attention that does not go through transformers' interface")
        params = SamplingParams(max_tokens=1, num_logprobs=runner.vocab_size)
        request = Request(self.tokens, runner.block_size, b"", params)
        request.pages = list(range(1, 2 + (len(self.tokens) - 1) // runner.block_size))
        last = len(self.tokens) - 1
        try:
            if last:
                runner.execute([Chunk(request, 0, last)])
            ((sample,),) = runner.execute([Chunk(request, last, 1)])
        except (RuntimeError, TypeError) as error:
            problem = str(error).splitlines()[0]
            raise _refusal(f"attention that cannot be paged ({problem})") from error
        found = torch.tensor([value for _, value in sorted(sample.top)])
        is_fp32 = runner.model.dtype == torch.float32
        difference = (found - self.logprobs).abs().mean()
        if not difference <= (TOLERANCE_FP32 if is_fp32 else TOLERANCE_HALF):
            raise _refusal("attention that says something else when it is paged")


def _logprobs(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), -1).cpu()


def _windowed(config: Any) -> list[str]:
    """Where no layer types are named, one window is every layer's."""
    window = getattr(config, "sliding_window", None)
    return ["sliding_attention"] if window and window < config.max_position_embeddings else []


def _rope_types(config: Any) -> set[str]:
    made = getattr(config, "rope_parameters", None) or {}
    by_layer = [part for part in made.values() if isinstance(part, dict)] or [made]
    return {str(part.get("rope_type", "default")) for part in by_layer}


def _refusal(problem: str) -> InputError:
    return InputError(
        problem,
        where="--model",
        remedy="use a model with plain full attention, such as Llama, Qwen or SmolLM",
    )
