"""Token counts under the served tokenizer: a local one, or the endpoint's own /tokenize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import BaseModel

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.profiles import Profile
from loadkit.traffic.lengths import TokenCounter
from loadkit.traffic.plan import Message


class LocalCounter:
    """Counts with a tokenizer on this machine."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def text(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def prompt(self, text: str) -> int:
        return len(self._tokenizer.encode(text))

    def chat(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> int:
        return self.text(self._tokenizer.render_chat(messages, tools))


class Tokenizes(Protocol):
    """A control plane whose server counts tokens: None where it has no /tokenize."""

    def num_tokens(self, body: Mapping[str, Any]) -> int | None: ...


class EndpointCounter:
    """Counts with the endpoint's /tokenize, a call a text: right by construction, and slow."""

    def __init__(self, control: Tokenizes, model: str | None):
        self._control = control
        self._model = {} if model is None else {"model": model}

    def text(self, text: str) -> int:
        return self._ask({"prompt": text, "add_special_tokens": False}) if text else 0

    def prompt(self, text: str) -> int:
        if not text:  # servers refuse an empty prompt
            return self.prompt("a") - self.text("a")
        return self._ask({"prompt": text, "add_special_tokens": True})

    def chat(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> int:
        more = {"tools": list(tools)} if tools else {}
        return self._ask({"messages": list(messages)} | more)

    def _ask(self, body: dict[str, Any]) -> int:
        count = self._control.num_tokens(self._model | body)
        if count is None:
            raise InputError(
                "the endpoint has no /tokenize to count tokens with",
                where="traffic",
                remedy="give the served tokenizer with --tokenizer, or lengths in sentences",
            )
        return count


def counter_for(
    profile: Profile,
    tokenizer: Tokenizer | None,
    control: Tokenizes | None = None,
    model: str | None = None,
) -> TokenCounter | None:
    """The counter that a profile's plan needs: the tokenizer if there is one, else the endpoint.
    None where the profile gives no length in tokens, so that nothing is asked in vain."""
    if not needs_tokens(profile):
        return None
    if tokenizer is not None:
        return LocalCounter(tokenizer)
    return None if control is None else EndpointCounter(control, model)


def needs_tokens(profile: Profile) -> bool:
    """Whether any length of the traffic is given in tokens."""
    return _has_tokens(profile.traffic)


def _has_tokens(part: object) -> bool:
    if isinstance(part, list | tuple):
        return any(map(_has_tokens, part))
    if not isinstance(part, BaseModel):
        return False
    for name in type(part).model_fields:
        value = getattr(part, name)
        is_length = name == "tokens" or (name.endswith("_tokens") and name != "max_tokens")
        if value is not None and (is_length or _has_tokens(value)):
            return True
    return False
