"""Texts of a corpus in the lengths that a profile declares, no two of them beginning alike."""

from __future__ import annotations

from random import Random

from loadkit.core.errors import InputError
from loadkit.corpora import FORMS, OPENING_CHARS, Corpus, What
from loadkit.profiles import Distribution
from loadkit.traffic.draw import draw_int
from loadkit.traffic.lengths import ExactLengths
from loadkit.traffic.plan import Message

FRESH_TRIES = 200
_LEAST_PIECES = 2  # an opening and a closing
_MOST_PIECES = 20_000


class Writer:
    """Draws texts with one random generator.

    openings: the first characters of every text that was to be fresh. Two prompts that begin alike
    could share cache blocks that nobody declared.
    """

    def __init__(self, corpus: Corpus, rng: Random, exact: ExactLengths | None, openings: set[str]):
        self.corpus, self.rng = corpus, rng
        self._exact, self._openings = exact, openings

    def text(
        self,
        what: What,
        *,
        pieces: int | None = None,
        tokens: int | None = None,
        opening: str | None = None,
        language: str | None = None,
    ) -> str:
        """A text of so many sentences or lines, or of exactly so many tokens. language: None draws
        one, where the corpus has several."""
        if opening is None:
            opening = self.corpus.opening(what, self.rng, language)
        if tokens is not None:
            source = self.corpus.pieces(what, self.rng, opening)
            return self.exact.fit(source, FORMS[what].joint, tokens)
        return self.corpus.text(what, self.rng, max(_LEAST_PIECES, pieces or 0), opening)

    def drawn(
        self,
        what: What,
        pieces: Distribution | None,
        tokens: Distribution | None,
        factor: float = 1.0,
        opening: str | None = None,
        language: str | None = None,
    ) -> str:
        """A text whose length is drawn: in pieces, or in tokens where that is declared."""
        if tokens is not None:
            count = round(draw_int(tokens, self.rng) * factor)
            count = min(max(1, count), int(tokens.max))
            return self.text(what, tokens=count, opening=opening, language=language)
        assert pieces is not None  # profiles have one of the two
        count = min(round(draw_int(pieces, self.rng) * factor), int(pieces.max), _MOST_PIECES)
        return self.text(what, pieces=count, opening=opening, language=language)

    def fresh(
        self,
        what: What,
        pieces: Distribution | None,
        tokens: Distribution | None,
        language: str | None = None,
    ) -> str:
        """A text that begins like none before. When the corpus seems to have no more, any text.

        A few tokens may be cut off within the opening, so the finished text is looked at too.
        """
        for _ in range(FRESH_TRIES):
            if opening := self._new_opening(what, language):
                text = self.drawn(what, pieces, tokens, opening=opening)
                if self._is_new(text):
                    return text
        return self.drawn(what, pieces, tokens, language=language)

    def fresh_prompt(
        self, tokens: Distribution, before: tuple[Message, ...], front: str | None = None
    ) -> str:
        """A message that makes the whole prompt exactly as long as drawn: a chat that begins with
        `before`, or, where it is given, a text that begins with `front`."""
        for _ in range(FRESH_TRIES):
            if opening := self._new_opening("message"):
                text = self._prompt(tokens, before, front, opening)
                if self._is_new(text):
                    return text
        return self._prompt(tokens, before, front, None)

    def _prompt(
        self,
        tokens: Distribution,
        before: tuple[Message, ...],
        front: str | None,
        opening: str | None,
    ) -> str:
        pieces = self.corpus.pieces("message", self.rng, opening)
        count = max(1, draw_int(tokens, self.rng))
        if front is not None:
            return self.exact.fit_text_prompt(pieces, FORMS["message"].joint, count, front)
        return self.exact.fit_prompt(pieces, FORMS["message"].joint, count, before)

    def _new_opening(self, what: What, language: str | None = None) -> str | None:
        """An opening that no text has yet; None if the one that was drawn is known."""
        opening = self.corpus.opening(what, self.rng, language)
        return None if opening[:OPENING_CHARS] in self._openings else opening

    def _is_new(self, text: str) -> bool:
        opening = text[:OPENING_CHARS]
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
