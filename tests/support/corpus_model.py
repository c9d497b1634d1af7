"""A tokenizer trained on the bundled corpora, with a chat template that shows tools, and a tiny
random Llama with a long context that uses it: for profiles that SmolLM2's window has no room for.

`python tests/support/corpus_model.py FOLDER` writes the model, for `loadkit serve --model FOLDER`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any

CONTEXT = 65_536
# As most templates have it: the tools' schemas stand at the end of the system message.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% if loop.first and tools %}\n\n# Tools\n{% for tool in tools %}{{ tool | tojson }}\n"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def corpus_words() -> list[str]:
    """Words of all corpora."""
    from loadkit import corpora

    rng, made = Random(1), []
    for name in corpora.names():
        corpus = corpora.load(name)
        made += [corpus.user_message(rng, 6) for _ in range(60)]
    return " ".join(made).split()


def corpus_tokenizer(words: list[str]) -> Any:
    """Byte-level BPE of 3,000 tokens."""
    from tiny_model import make_tokenizer

    return make_tokenizer([" ".join(words)], 3000, CHAT_TEMPLATE)


def write_corpus_model(folder: Path) -> Path:
    from tiny_model import make_model
    from transformers import LlamaForCausalLM

    tokenizer = corpus_tokenizer(corpus_words())
    model = make_model(len(tokenizer))
    config = model.config
    config.max_position_embeddings = CONTEXT
    longer = LlamaForCausalLM(config).eval()
    longer.load_state_dict(model.state_dict())
    longer.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    print(write_corpus_model(Path(sys.argv[1])))
