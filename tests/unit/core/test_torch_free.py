"""Text is tokenised without torch, and to the same tokens."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import load_tokenizer

CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]},
    {
        "messages": [
            {"role": "user", "content": "What is 2+2?"},
            {"role": "assistant", "content": "4"},
            {"role": "user", "content": "héllo \U0001f642"},
        ],
        "tools": [{"type": "function", "function": {"name": "add", "parameters": {"a": 1}}}],
    },
]
TURNS = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
DATED = "Today: {{ strftime_now('%Y') }}\n" + TURNS
WITH_TOOLS = "{% if tools %}Tools: {{ tools | tojson }}\n{% endif %}" + TURNS
NAMED = [{"name": "default", "template": TURNS}, {"name": "tool_use", "template": WITH_TOOLS}]
LAYOUTS = ("in_config", "in_jinja_file", "named", "named_files")
AS_A_COMMAND_DOES = """
import json, sys
from loadkit.core.tokenizer import load_tokenizer
from loadkit.core.torch_free import forgo_torch
forgo_torch()
ids = []
for folder in sys.argv[2:]:
    tokenizer = load_tokenizer(folder)
    ids.append([tokenizer.encode_chat(c["messages"], c.get("tools")) for c in json.loads(sys.argv[1])])
assert "torch" not in sys.modules
import torch
print(json.dumps([ids, torch.ones(2).sum().item()]))
"""


def model_folder(folder: Path, layout: str, model_type: str) -> Path:
    """A byte-level tokenizer with one special token, its template(s) stored in the layout's way."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(BPE({letter: k for k, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>"])
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    if layout == "in_config":
        config["chat_template"] = DATED
    elif layout == "named":
        config["chat_template"] = NAMED
    else:
        text = WITH_TOOLS if layout == "in_jinja_file" else TURNS
        (folder / "chat_template.jinja").write_text(text, "utf-8")
    if layout == "named_files":
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(WITH_TOOLS, "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "dtype": "bfloat16"}))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    types = ("llama", "qwen2", "llama", "gpt_oss")
    return [
        model_folder(root / layout, layout, kind)
        for layout, kind in zip(LAYOUTS, types, strict=True)
    ]


def test_every_way_to_store_a_template_gives_the_tokens_of_transformers_and_no_torch(
    folders: list[Path],
) -> None:
    from transformers import AutoTokenizer

    command = [sys.executable, "-c", AS_A_COMMAND_DOES, json.dumps(CHATS), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ours, summed = json.loads(done.stdout)
    for folder, ids in zip(folders, ours, strict=True):
        theirs = AutoTokenizer.from_pretrained(str(folder))
        expected = [
            theirs.apply_chat_template(
                chat["messages"],
                tools=chat.get("tools"),
                add_generation_prompt=True,
                return_dict=False,
            )
            for chat in CHATS
        ]
        assert ids == expected, folder.name
        assert len({len(one) for one in expected}) == len(CHATS)
    assert summed == 2, "what needs torch afterwards gets it"
    assert done.stderr == ""


def test_nothing_is_hidden_from_a_process_that_did_not_ask(folders: list[Path]) -> None:
    code = (
        "import sys; from loadkit.core.tokenizer import load_tokenizer; load_tokenizer(sys.argv[1]);"
        " from transformers.utils import is_torch_available; assert is_torch_available()"
    )
    subprocess.run([sys.executable, "-c", code, str(folders[0])], check=True)


def test_a_hub_that_refuses_is_one_line_without_retries(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    with socket.socket() as taken:  # bound but not listening: a port of our own that refuses
        taken.bind(("127.0.0.1", 0))
        hub = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", hub)
        with pytest.raises(InputError) as refused:
            load_tokenizer("some-owner/some-model")
    assert str(refused.value) == (
        f"some-owner/some-model: no such folder, not downloaded before, and {hub} does not answer (give"
        " a local folder with tokenizer.json, or look at network, proxy and HF_ENDPOINT)"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("hub", ["hf-mirror.com", "hf-mirror.com:443", "https://", "http://h:port"])
def test_a_hub_whose_address_is_none_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, hub: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub)
    with pytest.raises(InputError) as refused:
        load_tokenizer("some-owner/some-model")
    assert refused.value.where == "HF_ENDPOINT"
    assert repr(hub) in str(refused.value)
