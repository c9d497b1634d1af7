"""One session's life: its turns in order, each guarded, sent, and recorded before it counts.

Nothing here imports locust or gevent: `time.sleep` and sockets give way once Locust has patched
them. A greenlet's kill arrives as a BaseException and still leaves a record of every turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from loadkit.client.answer import Response
from loadkit.client.exchange import Receipt
from loadkit.client.guard import AppendOnlyGuard, Mutation
from loadkit.client.stream import StreamClient
from loadkit.locust_users.settings import Settings
from loadkit.runs.record import Outcome, Record
from loadkit.traffic.plan import Message, SessionPlan, Turn

# Connections are opened or checked so long before the intended time, to be warm when it comes.
WARM_LEAD_S = 0.05
STOPPED = "the run was stopped"
NO_CONNECTION = "no connection"

ReplyRule = Callable[[SessionPlan, Turn, str], str]


class Lane:
    """What the sessions of one worker process share.

    emit: called exactly once for each scheduled request, with its record, which it journals.
    start_at: monotonic time that the records' seconds count from.
    """

    def __init__(
        self,
        client: StreamClient,
        settings: Settings,
        *,
        worker: int,
        start_at: float,
        emit: Callable[[Record], None],
    ):
        self.client, self.settings = client, settings
        self.worker, self.start_at, self.emit = worker, start_at, emit
        self.guard = AppendOnlyGuard()
        self.stop_reason = STOPPED  # what a killed session's turns say

    def play(self, session: SessionPlan, intended_at: float, reply_rule: ReplyRule) -> None:
        """Run a session from its first turn, meant for the monotonic time `intended_at`.

        reply_rule(session, turn, live reply) gives the text that joins the history as the
        assistant's message.
        """
        _Play(self, session, intended_at).run(reply_rule)

    def skip(self, session: SessionPlan, reason: str) -> None:
        """Record a session that never starts: all its turns are not_sent."""
        _Play(self, session, self.start_at + session.start_s).give_up(reason)


class _Play:
    """One session being played. The next turn's number is how many have been recorded."""

    def __init__(self, lane: Lane, session: SessionPlan, intended_at: float):
        self.lane, self.session, self.intended_at = lane, session, intended_at
        self.history: list[Message] = []
        self.num_recorded = 0

    def run(self, reply_rule: ReplyRule) -> None:
        """Send turn after turn; a session ends at its first turn that is not ok."""
        reason = None
        try:
            for turn in self.session.turns:
                record = self._take_turn(turn)
                if record.outcome != "ok":
                    reason = f"turn {record.turn} of this session ended as {record.outcome}"
                    break
                reply = reply_rule(self.session, turn, record.reply)
                self.history.append({"role": "assistant", "content": reply})
        finally:
            self.give_up(reason or self.lane.stop_reason)
            self.lane.guard.forget(self.session.session)

    def give_up(self, reason: str) -> None:
        """Record every turn that has no record yet as not_sent."""
        while self.num_recorded < len(self.session.turns):
            self._emit(Response("not_sent", error=reason), [])

    def _take_turn(self, turn: Turn) -> Record:
        if self.num_recorded:  # the user thinks about the previous answer, which came just now
            self.intended_at = time.monotonic() + turn.think_s
        self.history.extend(turn.messages)
        messages = list(self.history)
        return self._emit(self._send(messages, turn.max_tokens), messages)

    def _send(self, messages: list[Message], max_tokens: int) -> Response:
        """Send at the intended time. Whatever happens is a Response; only a kill passes through."""
        lane, session = self.lane, self.session
        receipt = Receipt()
        try:
            if (
                lane.settings.kind != "replay"
            ):  # a log is sent as it is, rewrites of its own and all
                lane.guard.check(session.session, messages, session.tools)
            body = request_body(lane.settings, session, messages, max_tokens)
            request = lane.client.prepare(body, session=session.session)
            sleep_until(self.intended_at - WARM_LEAD_S)
            connection = lane.client.connect()
            sleep_until(self.intended_at)
            return lane.client.send(connection, request, receipt)
        except Mutation as mutation:
            return Response("not_sent", error=str(mutation))
        except OSError as error:
            return Response("not_sent", error=f"{NO_CONNECTION}: {error}")
        except BaseException:
            if receipt.sent_at is not None:
                receipt.end("cancelled", lane.stop_reason)
                self._emit(lane.client.decode(receipt), messages)
            raise

    def _emit(self, response: Response, messages: list[Message]) -> Record:
        record = make_record(self, response, messages)
        self.num_recorded += 1
        self.lane.emit(record)
        return record


def request_body(
    settings: Settings, session: SessionPlan, messages: list[Message], max_tokens: int
) -> dict[str, Any]:
    """Chat request, streamed with usage. Flags that only some servers know are left out elsewhere."""
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": settings.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if session.tools:
        body["tools"] = list(session.tools)
    if settings.ignore_eos:
        body["ignore_eos"] = True
    if settings.return_token_ids:
        body["return_token_ids"] = True
    return body


def make_record(play: _Play, response: Response, messages: list[Message]) -> Record:
    """A response as the run keeps it: seconds after the run's start, what was sent beside it."""
    start_at = play.lane.start_at

    def since_start(at: float | None) -> float | None:
        return None if at is None else at - start_at

    outcome: Outcome = response.outcome
    sent = outcome != "not_sent"
    return Record(
        session=play.session.session,
        turn=play.session.first_turn + play.num_recorded,
        name=play.session.name,
        worker=play.lane.worker,
        outcome=outcome,
        intended_s=play.intended_at - start_at,
        sent_s=since_start(response.sent_at),
        connect_s=response.connect_s,
        first_token_s=since_start(response.first_token_at),
        last_token_s=since_start(response.last_token_at),
        completed_s=since_start(response.completed_at),
        gaps_s=response.gaps_s,
        status=response.status,
        error=response.error,
        finish_reason=response.finish_reason,
        prompt_tokens=response.usage.prompt_tokens,
        output_tokens=response.usage.output_tokens,
        cached_tokens=response.usage.cached_tokens,
        server_split=response.usage.server_split,
        messages=messages if sent else [],
        tools=list(play.session.tools) if sent else [],
        reply=response.text,
        reply_token_ids=response.token_ids,
    )


def sleep_until(at: float) -> None:
    """Sleep to a monotonic time, never less; returns at once when it has passed."""
    while (remaining := at - time.monotonic()) > 0:
        time.sleep(remaining)  # gevent's timers count from a cached clock and may fire early
