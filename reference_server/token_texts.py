"""The text and the bytes of single tokens, as log probabilities name them."""

from __future__ import annotations

from functools import cached_property

from loadkit.core.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"


class TokenTexts:
    """Remembers what it looked up: at most the vocabulary."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, list[int]]] = {}

    def of(self, token: int) -> tuple[str, list[int]]:
        """(text, bytes). A token that is a part of a character has U+FFFD as text, and its bytes
        say which part: joined over all tokens they are the reply's UTF-8."""
        if token not in self._known:
            text = self._tokenizer.decode([token], skip_special_tokens=False)
            raw = self._part(token) if REPLACEMENT in text else None
            self._known[token] = (text, list(raw or text.encode()))
        return self._known[token]

    def _part(self, token: int) -> bytes | None:
        """Bytes of a piece that is no text: `<0xE2>`, or byte-level letters. None: neither."""
        piece = str(self._tokenizer.hf.convert_ids_to_tokens(token))
        if len(piece) == 6 and piece.startswith("<0x"):
            return bytes([int(piece[3:5], 16)])
        try:
            return bytes(self._byte_of_letter[letter] for letter in piece)
        except KeyError:
            return None

    @cached_property
    def _byte_of_letter(self) -> dict[str, int]:
        """GPT-2's alphabet of byte-level BPE: bytes that print stand for themselves, the others
        are the letters from U+0100 on, in their order."""
        plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = sorted(set(range(256)) - set(plain))
        letters = {chr(0x100 + n): byte for n, byte in enumerate(others)}
        return letters | {chr(byte): byte for byte in plain}
