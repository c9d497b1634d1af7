"""Words of which every one is a single token wherever it stands in a message.

Text made of them has as many tokens as words, block boundaries fall between words, and no word
changes the tokens of its neighbour. That is checked on the finished prompts, not taken on trust.
"""

from __future__ import annotations

import re

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.corpora import Corpus

MIN_WORDS = 64
_WORD = re.compile(r"(?<![\w{:])[A-Za-z]{2,}(?![\w}:-])")


def corpus_words(corpus: Corpus) -> list[str]:
    """The words of a corpus, sorted."""
    lines = [line for texts in corpus.grammar.values() for line in texts]
    return sorted({word.lower() for line in lines for word in _WORD.findall(line)})


def single_token_words(tokenizer: Tokenizer, corpus: Corpus) -> list[str]:
    """The corpus's words that are one token at the start of a text and one after another word.

    A tokenizer that knows too few of them lends words of its own vocabulary. InputError if even
    those are too few to tell blocks apart.
    """
    found = _single(tokenizer, corpus_words(corpus))
    if len(found) < MIN_WORDS:
        found = sorted({*found, *_single(tokenizer, _vocabulary_words(tokenizer))})
    if len(found) < MIN_WORDS:
        raise InputError(
            f"only {len(found)} words are single tokens, {MIN_WORDS} are needed to write text of an"
            " exact number of tokens",
            where=tokenizer.name,
            remedy="--token-ids writes token ids instead of text",
        )
    return found


def _single(tokenizer: Tokenizer, words: list[str]) -> list[str]:
    alone = tokenizer.encode_batch(words)
    twice = tokenizer.encode_batch([f"{word} {word}" for word in words])
    return [
        word
        for word, one, two in zip(words, alone, twice, strict=True)
        if len(one) == 1 and len(two) == 2
    ]


def _vocabulary_words(tokenizer: Tokenizer) -> list[str]:
    texts = (tokenizer.decode([number]).strip() for number in range(len(tokenizer.hf)))
    return sorted({text for text in texts if text.isascii() and text.isalpha()})
