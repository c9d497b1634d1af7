"""Quantities as people type them: `30k` blocks, `3Mtok`, `40GiB`, `20x` traffic."""

from __future__ import annotations

import re

from loadkit.core.errors import InputError

_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_CAPACITY = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)([kMG]?)(tok)?")
_BYTES = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT])(i?)B")
_TRAFFIC = re.compile(r"(\d{1,9}(?:\.\d{1,20})?)x?")


def plural(number: int, noun: str) -> str:
    """`1 request`, `1,200 requests`: of nouns that take an s."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def parse_capacity(text: str, block_size: int) -> int | None:
    """Cache capacity in blocks: `1000`, `30k`, `1.5M` are blocks, `3Mtok` tokens; `inf` is None.

    k, M and G are powers of 1000. Tokens are rounded down to whole blocks, since a cache has no
    half pages. Raises InputError for a size in bytes (it needs the model's configuration), a
    capacity below one block, or anything else.
    """
    if text == "inf":
        return None
    if _BYTES.fullmatch(text):
        raise InputError(
            f"capacity {text!r} is in bytes, which needs the model's size per token",
            where="--capacity",
            remedy="name the model's config.json with --model-config, or give blocks (30k) or "
            "tokens (3Mtok)",
        )
    match = _CAPACITY.fullmatch(text)
    if match is None:
        raise InputError(
            f"capacity {text!r} is not understood",
            where="--capacity",
            remedy="blocks as 1000 or 30k, tokens as 3Mtok, or inf; several with commas",
        )
    amount = float(match[1]) * _SUFFIXES[match[2]]
    blocks = int(amount / block_size if match[3] else amount)
    if blocks < 1:
        raise InputError(
            f"capacity {text!r} is less than one block of {block_size} tokens", where="--capacity"
        )
    return blocks


def parse_capacities(text: str, block_size: int) -> list[int | None]:
    """Comma-separated capacities in blocks, in the order given."""
    return [parse_capacity(part.strip(), block_size) for part in text.split(",")]


def bytes_as_tokens(text: str, bytes_per_token: int) -> str:
    """A list of capacities with its sizes in bytes as tokens: `30k,40GiB` is `30k,327680tok`.

    KiB to TiB are powers of 1024, KB to TB of 1000; whole tokens, rounded down. What is no size in
    bytes stays as it is.
    """
    parts = [part.strip() for part in text.split(",")]
    return ",".join(_as_tokens(part, bytes_per_token) for part in parts)


def _as_tokens(text: str, bytes_per_token: int) -> str:
    match = _BYTES.fullmatch(text)
    if match is None:
        return text
    unit = (1024 if match[3] else 1000) ** ("KMGT".index(match[2]) + 1)
    return f"{int(float(match[1]) * unit / bytes_per_token)}tok"


def parse_traffic(text: str) -> float:
    """Production traffic as a multiple of the log's: `20x` or `20` is 20.0; must be above 0."""
    match = _TRAFFIC.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise InputError(
            f"traffic {text!r} is not understood",
            where="--traffic",
            remedy="a multiple of the log's traffic above 0, as 1x or 20x",
        )
    return float(match[1])
