"""The served tokenizer and its chat template: the one place that turns text into token ids.

Analyzer and reference server both use it, so they agree on every token by construction.
`transformers` is imported on first use only (extra `text` or `server`).
"""

from __future__ import annotations

import hashlib
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from loadkit.core.chats import for_template
from loadkit.core.errors import InputError
from loadkit.core.torch_free import torch_hidden

HUB_PATIENCE_S = 3.0

Message = dict[str, Any]


class Tokenizer:
    """A Hugging Face tokenizer with its chat template. Build it with `load_tokenizer`."""

    def __init__(self, hf_tokenizer: Any, name: str):
        self.hf = hf_tokenizer
        self.name = name

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of plain text (a /v1/completions prompt); BOS as the tokenizer adds it."""
        ids: list[int] = self.hf.encode(text, add_special_tokens=add_special_tokens)
        return ids

    def render_chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Any] | None = None,
        *,
        generation_prompt: bool = True,
    ) -> str:
        """Text of a chat request after the template, generation prompt included unless it is not wanted.

        Messages of the role `developer` are rendered as `system` where the template does not know
        that role, as servers do: most templates leave out or refuse roles that they do not know.
        Raises InputError if the tokenizer has no template or the template refuses the messages.
        """
        if not getattr(self.hf, "chat_template", None):
            raise InputError(
                "the tokenizer has no chat template",
                where=self.name,
                remedy="use a chat model's tokenizer, or log `prompt` instead of `messages`",
            )
        try:
            text: str = self.hf.apply_chat_template(
                [self._known_role(for_template(message)) for message in messages],
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=generation_prompt,
            )
        except Exception as error:  # jinja2 raises what the template's author chose
            raise InputError(
                f"the chat template refused the messages: {error}", where=self.name
            ) from error
        return text

    def render_reply(
        self, chat: str, messages: Sequence[Message], reply: Message, tools: Sequence[Any] | None
    ) -> str | None:
        """What the template writes for a reply after the request that it rendered as `chat`, without
        the end of the turn: what a model is taken to have generated for a reply that calls tools. None
        where the template writes the request itself otherwise once it is answered, or refuses."""
        try:
            text = self.render_chat([*messages, reply], tools, generation_prompt=False)
        except InputError:
            return None
        if not text.startswith(chat):
            return None
        return text[len(chat) :].rstrip().removesuffix(str(self.hf.eos_token or ""))

    def _known_role(self, message: Message) -> Message:
        if message.get("role") != "developer" or "developer" in str(self.hf.chat_template):
            return message
        return {**message, "role": "system"}

    def encode_chat(
        self, messages: Sequence[Message], tools: Sequence[Any] | None = None
    ) -> list[int]:
        """Token ids of a chat request as a server sees them, generation prompt included."""
        return self.encode(self.render_chat(messages, tools), add_special_tokens=False)

    def encode_batch(
        self, texts: Iterable[str], *, add_special_tokens: bool = False
    ) -> list[list[int]]:
        """Ids of many texts; no special tokens unless asked, since templates write their own.

        A fast tokenizer works on all cores, outside the interpreter's lock, unless the environment
        says TOKENIZERS_PARALLELISM=false. Its own call is used, which is spared the offsets and
        masks that `transformers` makes of every token.
        """
        batch = list(texts)
        if not batch:
            return []
        fast = self._fast
        if fast is None:
            ids: list[list[int]] = self.hf(batch, add_special_tokens=add_special_tokens)[
                "input_ids"
            ]
            return ids
        encodings = fast.encode_batch_fast(batch, add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    @property
    def _fast(self) -> Any:
        """The tokenizer of the `tokenizers` library set to cut and pad nothing; None if slow."""
        fast = getattr(self.hf, "backend_tokenizer", None)
        if fast is None or not hasattr(fast, "encode_batch_fast"):
            return None
        fast.no_truncation()
        fast.no_padding()
        fast.encode_special_tokens = getattr(self.hf, "split_special_tokens", False)
        return fast

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        text: str = self.hf.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    @property
    def fingerprint(self) -> str:
        """16 hex digits over vocabulary, merges and chat template: equal means equal token ids."""
        backend = getattr(self.hf, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend is not None else repr(sorted(self.hf.get_vocab()))
        template = str(getattr(self.hf, "chat_template", None))
        return hashlib.sha256(f"{vocabulary}\0{template}".encode()).hexdigest()[:16]


def check_folder(name_or_path: str | Path) -> None:
    """InputError for what can only be a folder and is not there, before anything slow is imported.

    A hub name is `name` or `owner/name`; everything else with a separator or a leading dot is a path.
    """
    name = str(name_or_path)
    is_path = name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1
    if (is_path or name.endswith("/")) and not Path(name).exists():
        raise InputError("no such folder", where=name, remedy="give that of a model or tokenizer")


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """Load a tokenizer from a folder or a hub name. InputError if it is not to be had.

    Of a hub that does not answer within HUB_PATIENCE_S, what was downloaded before is taken.
    """
    check_folder(name_or_path)
    name = str(name_or_path)
    auto = _auto_tokenizer()
    is_cut_off = not Path(name).exists() and not _hub_answers()
    known_only = {"local_files_only": True} if is_cut_off else {}
    try:
        return Tokenizer(auto.from_pretrained(name, **known_only), name)
    except (OSError, ValueError) as error:
        if is_cut_off:
            raise _unreachable(name) from error
        raise InputError(
            f"no tokenizer found: {str(error).splitlines()[0]}",
            where=name,
            remedy="give a folder with tokenizer.json, or a hub name that this machine can reach",
        ) from error


def _auto_tokenizer() -> Any:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with torch_hidden():
            from transformers import AutoTokenizer
            from transformers.utils import is_torch_available

            is_torch_available()
    except ImportError as error:
        raise InputError(
            "tokenising text needs the package `transformers`",
            where="--tokenizer",
            remedy="pip install 'loadkit-llm[text]'",
        ) from error
    return AutoTokenizer


def _hub_answers() -> bool:
    """Whether the hub says anything at all; `transformers` itself would ask for most of a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    _check_address(constants.ENDPOINT)
    asked = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(asked, timeout=HUB_PATIENCE_S).close()
    except urllib.error.HTTPError:
        return True
    except OSError as error:  # certificates are for the hub's own client to judge
        return isinstance(getattr(error, "reason", None), ssl.SSLError)
    return True


def _check_address(endpoint: str) -> None:
    """InputError for a hub's address without scheme or host, which urllib has no good word for."""
    try:
        parts = urllib.parse.urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # ValueError if it is no number
    except ValueError:
        is_address = False
    if not is_address:
        raise InputError(
            f"{endpoint!r} is no address of a hub",
            where="HF_ENDPOINT",
            remedy="write it like https://huggingface.co",
        )


def _unreachable(name: str) -> InputError:
    from huggingface_hub import constants

    asked = (
        "HF_HUB_OFFLINE is set"
        if constants.HF_HUB_OFFLINE
        else f"{constants.ENDPOINT} does not answer"
    )
    return InputError(
        f"no such folder, not downloaded before, and {asked}",
        where=name,
        remedy="give a local folder with tokenizer.json, or look at network, proxy and HF_ENDPOINT",
    )
