"""Conversations: a shared system prompt, then message after message of one person."""

from __future__ import annotations

from loadkit.profiles import ConversationTraffic
from loadkit.traffic.draw import draw, draw_int, zipf_rank
from loadkit.traffic.plan import Message, SessionPlan, Turn
from loadkit.traffic.planning import Planned, Planning
from loadkit.traffic.sharing import system_prompts


def plan(traffic: ConversationTraffic, count: int, planning: Planning) -> Planned:
    """`count` conversations, append-only."""
    return Planned(_Conversations(traffic, planning).sessions(count))


class _Conversations:
    """What the conversations of a run have in common: system prompts and common questions."""

    def __init__(self, traffic: ConversationTraffic, planning: Planning):
        self.traffic, self.planning, self.rng = traffic, planning, planning.rng
        self.writer = planning.writer(traffic.corpus)
        self.systems = system_prompts(self.writer, traffic.system_prompts)
        repeated = traffic.repeat_questions if traffic.repeat_share else 0
        self.common = self.writer.corpus.common_questions(repeated)

    def sessions(self, count: int) -> list[SessionPlan]:
        return [self._session(number) for number in range(count)]

    def _session(self, number: int) -> SessionPlan:
        """A session keeps to the language of its system prompt, where the corpus has several."""
        traffic, shared = self.traffic, self.traffic.system_prompts
        rank = zipf_rank(shared.count, shared.exponent, self.rng)
        repeats = self.rng.random() < traffic.repeat_share
        opening = self.rng.choice(self.common) if repeats else None
        language = self.writer.corpus.language(rank)
        num_turns = max(1, draw_int(traffic.turns, self.rng))
        turns = [self._first(self.systems[rank], opening, language)]
        turns += [self._later(language) for _ in range(1, num_turns)]
        return self.planning.session(
            number,
            turns,
            replies=traffic.replies,
            reasoning=traffic.reasoning,
            shared=1,
            repeats=repeats,
        )

    def _first(self, system: str, opening: str | None, language: str | None) -> Turn:
        lengths = self.traffic.message_sentences, self.traffic.message_tokens
        text = opening or self.writer.fresh("message", *lengths, language)
        told: Message = {"role": "system", "content": system}
        return self._turn((told, {"role": "user", "content": text}), 0.0, language)

    def _later(self, language: str | None) -> Turn:
        lengths = self.traffic.message_sentences, self.traffic.message_tokens
        text = self.writer.drawn("message", *lengths, language=language)
        think_s = draw(self.traffic.think_s, self.rng)
        return self._turn(({"role": "user", "content": text},), think_s, language)

    def _turn(self, messages: tuple[Message, ...], think_s: float, language: str | None) -> Turn:
        reply = self.writer.corpus.reply(self.rng, language)
        return self.planning.turn(messages, think_s=think_s, recorded_reply=reply)
