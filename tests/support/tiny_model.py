"""A tiny random Llama with a byte-level tokenizer and a chat template, as a model folder.

`python tests/support/tiny_model.py FOLDER` writes one, for `loadkit serve --model FOLDER`; it
loads in a second and answers nonsense, the same nonsense every time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEXT = (
    "The prefix cache keeps the keys and values of prompts that were computed before. "
    "A request whose prompt begins like an earlier one need not compute that part again. "
    "user assistant system hello world answer the question please"
)
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 4096


def make_tokenizer(
    texts: Sequence[str] = (TEXT,), vocab_size: int = 350, template: str = CHAT_TEMPLATE
) -> Any:
    """A byte-level BPE of `vocab_size` tokens, trained on the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", chat_template=template
    )


def make_model(vocab_size: int, seed: int = 0) -> Any:
    """Weights large enough that the greedy reply depends on the whole prompt."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.25,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


def write_tiny_model(folder: Path) -> Path:
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    print(write_tiny_model(Path(sys.argv[1])))
