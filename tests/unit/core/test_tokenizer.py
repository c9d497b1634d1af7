"""Batches of texts to token ids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.tokenizer import Tokenizer

TEXTS = ["ab", "", "abcabcabc", "<s>a"]


def make(**backend: Any) -> Any:
    """One token a letter; `<s>` is a special token that is put before every prompt."""
    from tokenizers import Regex
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = Backend(WordLevel({"a": 0, "b": 1, "c": 2, "?": 3}, unk_token="?"))
    made.pre_tokenizer = Split(Regex("."), "isolated")
    made.add_special_tokens(["<s>"])
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 4)])
    if "truncation" in backend:
        made.enable_truncation(backend["truncation"])
    if "padding" in backend:
        made.enable_padding(length=backend["padding"])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?")


def test_special_tokens_are_added_only_if_asked() -> None:
    tokenizer = Tokenizer(make(), "letters")
    assert tokenizer.encode_batch(["ab", ""]) == [[0, 1], []]
    assert tokenizer.encode_batch(["ab", ""], add_special_tokens=True) == [[4, 0, 1], [4]]


@pytest.mark.parametrize("add", [True, False])
def test_a_batch_has_the_ids_that_transformers_gives_one_by_one(add: bool) -> None:
    fast = make()
    tokenizer = Tokenizer(fast, "letters")
    one_by_one = [fast.encode(text, add_special_tokens=add) for text in TEXTS]
    assert tokenizer.encode_batch(TEXTS, add_special_tokens=add) == one_by_one


def test_what_the_file_says_of_cutting_and_padding_is_not_done() -> None:
    tokenizer = Tokenizer(make(truncation=2, padding=5), "letters")
    assert tokenizer.encode_batch(["abc", "a"]) == [[0, 1, 2], [0]]


def test_an_empty_batch_is_empty() -> None:
    assert Tokenizer(make(), "letters").encode_batch([]) == []


COUNT_THREADS = """
import json, os, sys
from tokenizers import Tokenizer
from loadkit.core.tokenizer import Tokenizer as Ours
tokenizer = Ours(type("Slow", (), {"backend_tokenizer": Tokenizer.from_file(sys.argv[1])}), "x")
before = len(os.listdir("/proc/self/task"))
tokenizer.encode_batch(["ab" * 500] * 64)
print(json.dumps(len(os.listdir("/proc/self/task")) - before))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_a_batch_is_encoded_by_a_thread_a_core_unless_the_environment_says_no(
    tmp_path: Path,
) -> None:
    file = tmp_path / "tokenizer.json"
    make().backend_tokenizer.save(str(file))

    def threads(parallel: str | None) -> int:
        environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
        if parallel is not None:
            environment["TOKENIZERS_PARALLELISM"] = parallel
        command = [sys.executable, "-c", COUNT_THREADS, str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return int(json.loads(done.stdout))

    assert threads(None) >= len(os.sched_getaffinity(0))
    assert threads("false") == 0
