"""Public data sets by name: what they are, under which licence, and how loadkit reads them.

None of them is part of loadkit. `hf:NAME` reads one through `datasets`, from the hub or from a folder
of its files; its licence is shown before it is read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

HUB_PREFIX = "hf:"


@dataclass(frozen=True)
class PublicSet:
    """A data set on the hub. format: the log format that its rows are read as."""

    hub: str
    format: str
    licence: str
    summary: str
    note: str = ""

    @property
    def name(self) -> str:
        """As a profile or command names it."""
        return f"{HUB_PREFIX}{self.hub}"

    @property
    def licence_line(self) -> str:
        note = f" {self.note}" if self.note else ""
        return f"{self.name}: licence {self.licence}; its page on the hub decides.{note}"


# Licences as the sets' own pages gave them in November 2026; whoever uses one reads the page.
PUBLIC_SETS = (
    PublicSet(
        "allenai/WildChat-1M",
        "chats",
        "ODC-BY",
        "A million conversations of people with a chat service.",
        "It holds what people wrote, offensive text too.",
    ),
    PublicSet(
        "lmsys/lmsys-chat-1m",
        "chats",
        "LMSYS-Chat-1M Dataset License Agreement",
        "A million conversations with 25 models.",
        "Gated: its terms are accepted on the hub, with an account; it may not be passed on.",
    ),
    PublicSet(
        "Aeala/ShareGPT_Vicuna_unfiltered",
        "sharegpt",
        "Apache-2.0",
        "Conversations that people shared from ChatGPT.",
        "The licence is the uploader's word; the texts are those of the people who shared them.",
    ),
    PublicSet(
        "zai-org/LongBench-v2",
        "longbench",
        "Apache-2.0",
        "503 questions over contexts of 8,000 to 2,000,000 words.",
        "Most contexts are longer than a model's window: set traffic.max_prompt_tokens.",
    ),
    PublicSet(
        "zai-org/LongBench",
        "longbench",
        "not stated on its page",
        "Questions over contexts of 5,000 to 15,000 words, in English and Chinese.",
        "The hub has it as a script and an archive, which `datasets` no longer runs: unpack the "
        "archive and give its folder.",
    ),
    PublicSet(
        "nebius/SWE-agent-trajectories",
        "chats",
        "CC-BY-4.0",
        "Coding agents at SWE-bench-like tasks, step by step.",
        "Code inside keeps the licence of its repository.",
    ),
)
UNKNOWN_LICENCE = "licence not known to loadkit; read its page on the hub before you use it."


def licence_of(name: str) -> str:
    """One printable line about the licence of `hf:NAME[:split]`: a stranger's profile may name it."""
    hub = name.removeprefix(HUB_PREFIX).partition(":")[0]
    known = {each.hub.lower(): each for each in PUBLIC_SETS}
    if hub.lower() in known:
        return known[hub.lower()].licence_line
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in hub)
    return f"{HUB_PREFIX}{shown}: {UNKNOWN_LICENCE}"


def licences_in(section: object) -> list[str]:
    """A line for each data set named anywhere in a section of a profile, or in a list of names."""
    return list(dict.fromkeys(licence_of(name) for name in _named(section)))


def tell_licences(section: object) -> None:
    """On stderr, before a public data set that is named in the section is read: its licence."""
    for line in licences_in(section):
        print(f"loadkit: {line}", file=sys.stderr)


def _named(section: object) -> Iterator[str]:
    if isinstance(section, str):
        if section.startswith(HUB_PREFIX):
            yield section
    elif isinstance(section, Mapping):
        for value in section.values():
            yield from _named(value)
    elif isinstance(section, list | tuple):
        for value in section:
            yield from _named(value)
