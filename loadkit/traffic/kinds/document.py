"""Questions about documents: instruction and document in the system message, questions behind it."""

from __future__ import annotations

from loadkit.profiles import DocumentTraffic
from loadkit.traffic.draw import draw, draw_int, zipf_rank
from loadkit.traffic.plan import SessionPlan
from loadkit.traffic.planning import Planned, Planning
from loadkit.traffic.writing import Writer


def plan(traffic: DocumentTraffic, count: int, planning: Planning) -> Planned:
    """`count` sessions, each about one of the documents. A document is written when it is first
    asked about: those that nobody asks about cost nothing."""
    writer, documents = planning.writer(traffic.corpus), traffic.documents
    instruction = writer.text("system", pieces=traffic.instruction_sentences)
    written: dict[int, str] = {}
    sessions = []
    for number in range(count):
        rank = zipf_rank(documents.count, documents.exponent, planning.rng)
        if rank not in written:
            text = writer.fresh("document", documents.sentences, documents.tokens)
            written[rank] = f"{instruction}\n\n{text}"
        sessions.append(_session(traffic, number, planning, writer, written[rank]))
    return Planned(sessions)


def _session(
    traffic: DocumentTraffic, number: int, planning: Planning, writer: Writer, system: str
) -> SessionPlan:
    turns = []
    for at in range(max(1, draw_int(traffic.questions, planning.rng))):
        write = writer.drawn if at else writer.fresh
        text = write("message", traffic.question_sentences, traffic.question_tokens)
        messages = [{"role": "user", "content": text}]
        if at == 0:
            messages.insert(0, {"role": "system", "content": system})
        think_s = draw(traffic.think_s, planning.rng) if at else 0.0
        reply = writer.corpus.reply(planning.rng)
        turns.append(planning.turn(messages, think_s=think_s, recorded_reply=reply))
    return planning.session(number, turns, replies=traffic.replies, shared=1)
