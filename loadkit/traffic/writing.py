"""Texts of a corpus in the lengths that a profile declares, no two of them beginning alike."""

from __future__ import annotations

from random import Random

from loadkit.core.errors import InputError
from loadkit.corpora import FORMS, OPENING_WORDS, Corpus, What
from loadkit.profiles import Distribution
from loadkit.traffic.draw import draw_int
from loadkit.traffic.lengths import ExactLengths
from loadkit.traffic.plan import Message

FRESH_TRIES = 200
_LEAST_PIECES = 2  # an opening and a closing
_MOST_PIECES = 20_000


class Writer:
    """Draws texts with one random generator.

    openings: the first five words of every text that was to be fresh. Two prompts that begin with
    the same words would share cache blocks that nobody declared.
    """

    def __init__(self, corpus: Corpus, rng: Random, exact: ExactLengths | None, openings: set[str]):
        self.corpus, self.rng = corpus, rng
        self._exact, self._openings = exact, openings

    def text(self, what: What, *, pieces: int | None = None, tokens: int | None = None) -> str:
        """A text of so many sentences or lines, or of exactly so many tokens."""
        if tokens is not None:
            joint = FORMS[what].joint
            return self.exact.fit(self.corpus.pieces(what, self.rng), joint, tokens)
        return self.corpus.text(what, self.rng, max(_LEAST_PIECES, pieces or 0))

    def drawn(
        self,
        what: What,
        pieces: Distribution | None,
        tokens: Distribution | None,
        factor: float = 1.0,
    ) -> str:
        """A text whose length is drawn: in pieces, or in tokens where that is declared."""
        if tokens is not None:
            count = round(draw_int(tokens, self.rng) * factor)
            return self.text(what, tokens=min(max(1, count), int(tokens.max)))
        assert pieces is not None  # profiles have one of the two
        count = min(round(draw_int(pieces, self.rng) * factor), int(pieces.max), _MOST_PIECES)
        return self.text(what, pieces=count)

    def fresh(self, what: What, pieces: Distribution | None, tokens: Distribution | None) -> str:
        """A text that begins like none before. When the corpus seems to have no more, any text."""
        for _ in range(FRESH_TRIES):
            text = self.drawn(what, pieces, tokens)
            if self._is_new(text):
                break
        return text

    def fresh_prompt(self, tokens: Distribution, before: tuple[Message, ...]) -> str:
        """A message that makes the whole prompt exactly as long as drawn."""
        joint = FORMS["message"].joint
        for _ in range(FRESH_TRIES):
            count = max(1, draw_int(tokens, self.rng))
            pieces = self.corpus.pieces("message", self.rng)
            text = self.exact.fit_prompt(pieces, joint, count, before)
            if self._is_new(text):
                break
        return text

    def _is_new(self, text: str) -> bool:
        opening = " ".join(text.split(maxsplit=OPENING_WORDS)[:OPENING_WORDS])
        is_new = opening not in self._openings
        self._openings.add(opening)
        return is_new

    @property
    def exact(self) -> ExactLengths:
        """The fitting of exact lengths. InputError without a tokenizer."""
        if self._exact is None:
            raise InputError(
                "lengths in tokens need the served tokenizer",
                where="traffic",
                remedy="--tokenizer, an endpoint with /tokenize, or give lengths in sentences",
            )
        return self._exact
