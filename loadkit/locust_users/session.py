"""One session's life: its turns in order, each guarded, sent, and recorded before it counts.

`time.sleep` and sockets give way once Locust has patched them. A greenlet's kill arrives as a
BaseException and still leaves a record of every turn, those of sub-agents too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

import msgspec
from gevent.pool import Group

from loadkit.client.answer import Response
from loadkit.client.bodies import request_body
from loadkit.client.decoder import ToolCall
from loadkit.client.exchange import USER_LEFT
from loadkit.client.foreign import UNREADABLE, printable
from loadkit.client.guard import AppendOnlyGuard, Mutation
from loadkit.client.receipt import Receipt
from loadkit.client.stream import NO_CONNECTION, StreamClient, quoted
from loadkit.locust_users.settings import Settings
from loadkit.runs.record import Record
from loadkit.traffic.plan import Message, SessionPlan, Turn

# Connections are opened or checked so long before the intended time, to be warm when it comes.
WARM_LEAD_S = 0.05
# The reference server refuses longer session ids, and so may others.
MAX_WIRE_CHARS = 256
STOPPED = "the run was stopped"
# What a client says that has no such tool: servers refuse a history whose calls have no result.
TOOL_RESULT = "error: this tool is not connected"
REFUSED = (400, 422)

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
        self.num_compactions = 0
        # Whether the server answers only without `return_token_ids`; None: not known yet.
        self.token_ids_refused: bool | None = None
        self.stop_reason = STOPPED  # what a killed session's turns say

    def play(
        self,
        session: SessionPlan,
        intended_at: float,
        reply_rule: ReplyRule,
        history: Sequence[Message] = (),
    ) -> None:
        """Run a session from its first turn, meant for the monotonic time `intended_at`.

        reply_rule(session, turn, live reply) gives the text that joins the history as the
        assistant's message. history: what it begins with.
        """
        _Play(self, session, intended_at, history).run(reply_rule)

    def skip(self, session: SessionPlan, reason: str) -> None:
        """Record a session that never starts: all its turns, and sub-agents', are not_sent."""
        _Play(self, session, self.start_at + session.start_s).give_up(reason)


@dataclass(slots=True)
class Asked:
    """What one request asks. prompt: what goes to /v1/completions instead of messages."""

    messages: list[Message]
    prompt: str | list[int] | None = None
    compacted: bool = False


NOTHING = Asked([])


class _Play:
    """One session being played. The next turn's number is how many have been recorded."""

    def __init__(
        self,
        lane: Lane,
        session: SessionPlan,
        intended_at: float,
        history: Sequence[Message] = (),
    ):
        self.lane, self.session, self.intended_at = lane, session, intended_at
        self._ended_at = intended_at  # when the latest answer, sub-agents' included, had come
        self.history: list[Message] = list(history)
        self.asked = NOTHING
        self.num_recorded = 0
        self.attempts = 0  # sends of the turn under way that really began
        self._waiting_agents: list[SessionPlan] = []

    def run(self, reply_rule: ReplyRule) -> None:
        """Send turn after turn. A session ends at the first that fails, unless the plan tries it
        again; a user who left goes on when there is a next turn."""
        reason = None
        try:
            for number, turn in enumerate(self.session.turns):
                response = self._take_turn(turn)
                if is_complete(response):
                    self._remember(turn, response, reply_rule)
                    self._play_agents(reply_rule)
                elif not self._tries_again(number + 1):
                    reason = f"turn {self.session.first_turn + number} of this session ended as "
                    reason += response.outcome
                    break
        except Exception as error:  # not a kill: those are none
            reason = fault_of_ours(error)
            raise
        finally:
            self.give_up(reason or self.lane.stop_reason)
            self.lane.guard.forget(self.session.session)

    def give_up(self, reason: str) -> None:
        """Record every turn that has no record yet, and its sub-agents, as not_sent."""
        self._skip_agents(reason)
        while self.num_recorded < len(self.session.turns):
            self._emit(Response("not_sent", error=reason), NOTHING)
            self._skip_agents(reason)

    def _skip_agents(self, reason: str) -> None:
        while self._waiting_agents:
            self.lane.skip(self._waiting_agents.pop(), reason)

    def _tries_again(self, number: int) -> bool:
        turns = self.session.turns
        return number < len(turns) and turns[number].retry

    def _take_turn(self, turn: Turn) -> Response:
        self._skip_agents("the turn that starts it was not answered")
        if self.num_recorded:  # counted from its arrival: what we did since is delay of our own
            self.intended_at = self._ended_at + turn.think_s
        self.asked = self._ask(turn)
        response = self._send(self.asked, turn)
        self._ended_at = response.completed_at or time.monotonic()
        self._emit(response, self.asked)
        return response

    def _ask(self, turn: Turn) -> Asked:
        if turn.retry and self.asked is not NOTHING:
            return Asked(self.asked.messages, self.asked.prompt)
        if turn.prompt is not None:
            prompt = turn.prompt if isinstance(turn.prompt, str) else list(turn.prompt)
            return Asked([], prompt)
        if turn.compacts:
            self.lane.num_compactions += 1
            self.lane.guard.forget(self.session.session)
            return Asked(list(turn.messages), compacted=True)
        return Asked([*self.history, *turn.messages])

    def _remember(self, turn: Turn, response: Response, reply_rule: ReplyRule) -> None:
        """The answer joins the history: all of it, or what had come when the user left."""
        if turn.prompt is not None:
            return
        text = reply_rule(self.session, turn, response.text)
        reply: Message = {"role": "assistant", "content": text}
        if self.session.reasoning == "echoed" and response.reasoning:
            reply["reasoning_content"] = response.reasoning
        calls = self._calls(turn, response) if text == response.text else []
        if calls:
            reply |= {"content": text or None, "tool_calls": [call.as_sent() for call in calls]}
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": TOOL_RESULT} for call in calls
        ]
        self.history = [*self.asked.messages, reply, *results]

    def _calls(self, turn: Turn, response: Response) -> list[ToolCall]:
        """The calls of a live reply. One that was cut off, or is no JSON, has no place in a history:
        servers refuse it."""
        if self.session.replies == "recorded" and turn.recorded_reply is not None:
            return []
        return [call for call in response.tool_calls if call.name and _is_object(call.arguments)]

    def _play_agents(self, reply_rule: ReplyRule) -> None:
        """Sub-agents in parallel, all of them to their end. A greenlet killed before its first
        instruction never runs: `_waiting_agents` remembers its session."""
        if not self._waiting_agents:
            return
        agents = Group()
        try:
            for agent in list(self._waiting_agents):
                agents.spawn(self._play_agent, agent, reply_rule)
            agents.join()
            self._ended_at = time.monotonic()
        finally:
            agents.kill()

    def _play_agent(self, agent: SessionPlan, reply_rule: ReplyRule) -> None:
        self._waiting_agents.remove(agent)
        history = self.history if agent.inherits_history else ()
        self.lane.play(agent, self._ended_at, reply_rule, history)

    def _send(self, asked: Asked, turn: Turn) -> Response:
        """Send at the intended time, and again when turned away and asked to. Whatever happens is
        a Response; only a kill passes through, after the record."""
        receipt, refusal = Receipt(), None
        self.attempts = 0
        try:
            with_ids = self._asks_token_ids
            request = self._prepare(asked, turn, with_ids)
            while True:
                response = self._attempt(request, receipt, turn.leaves_after_s)
                if refusal is not None and response.outcome == "not_sent":
                    return refusal  # it was sent before, and that is how it ended
                if with_ids and self._may_mind_ids(response):
                    refusal, receipt, with_ids = response, Receipt(), False
                    request = self._prepare(asked, turn, with_ids)
                    continue
                self._learn_of_ids(response, refusal, with_ids)
                wait_s = self.lane.settings.retries.wait_s(response, self.attempts)
                if wait_s is None:
                    return response
                refusal, receipt = response, Receipt()
                time.sleep(wait_s)
        except Mutation as mutation:
            return Response("not_sent", error=str(mutation))
        except BaseException as error:
            if receipt.sent_at is not None:
                if isinstance(error, Exception):  # else a kill
                    receipt.end("malformed", fault_of_ours(error))
                receipt.end("cancelled", self.lane.stop_reason)
                refusal = self.lane.client.decode(receipt)
            if refusal is not None:
                self._emit(refusal, asked)
            raise

    @property
    def _asks_token_ids(self) -> bool:
        return self.lane.settings.return_token_ids and self.lane.token_ids_refused is not True

    def _may_mind_ids(self, response: Response) -> bool:
        """Whether a server that never took `return_token_ids` refused a request with it, perhaps
        because of it."""
        return response.status in REFUSED and self.lane.token_ids_refused is not False

    def _learn_of_ids(self, response: Response, refusal: Response | None, with_ids: bool) -> None:
        """An answer to a request with the field, or to one without it that was refused with it."""
        if response.outcome != "ok" or not self.lane.settings.return_token_ids:
            return
        if with_ids:
            self.lane.token_ids_refused = False
        elif refusal is not None and refusal.status in REFUSED:
            self.lane.token_ids_refused = True

    def _attempt(self, request: bytes, receipt: Receipt, leave_after_s: float | None) -> Response:
        client = self.lane.client
        try:
            sleep_until(self.intended_at - WARM_LEAD_S)
            connection = client.connect()
            sleep_until(self.intended_at)
            self.attempts += 1
            return client.send(connection, request, receipt, leave_after_s=leave_after_s)
        except OSError as error:
            return Response("not_sent", error=f"{NO_CONNECTION}: {error}")

    def _prepare(self, asked: Asked, turn: Turn, token_ids: bool) -> bytes:
        """The request's bytes, after the guard. `asked.prompt` becomes what is really sent."""
        settings, session = self.lane.settings, self.session
        if session.guarded and asked.prompt is None:
            self.lane.guard.check(session.session, asked.messages, session.tools)
        path, body = request_body(
            session.api if asked.prompt is None else "completions",
            model=settings.model,
            messages=asked.messages,
            prompt=asked.prompt,
            tools=session.tools,
            max_tokens=turn.max_tokens,
            temperature=settings.temperature,
            exact_output=turn.exact_output or settings.exact_output,
            ignore_eos=settings.ignore_eos,
            return_token_ids=token_ids,
            cache_salt=settings.cache_salt,
            max_tokens_field=settings.max_tokens_field,
            ask_usage=settings.ask_usage,
        )
        asked.prompt = body.get("prompt")
        return self.lane.client.prepare(body, session=self._wire_id(), path=path)

    def _wire_id(self) -> str:
        """What a plan sent a second time replays are the first time's sessions, not its own: the server
        must be able to tell."""
        return wire_id(self.session.session, self.lane.settings.run_id)

    def _emit(self, response: Response, asked: Asked) -> None:
        record = make_record(self, response, asked)
        if self.num_recorded < len(self.session.turns):
            self._waiting_agents = list(self.session.turns[self.num_recorded].sub_agents)
        self.num_recorded += 1
        self.lane.emit(record)


def wire_id(session: str, run_id: str) -> str:
    """`session.run_id`, within MAX_WIRE_CHARS once percent-encoded; of a longer name the beginning and
    a digest of all of it. Without a run's id the name as it is."""
    if not run_id:
        return session
    room = MAX_WIRE_CHARS - len(quoted(run_id)) - 1
    if len(quoted(session)) > room:
        digest = hashlib.blake2b(session.encode(), digest_size=8).hexdigest()
        session = f"{_beginning(session, room - len(digest) - 1)}~{digest}"
    return f"{session}.{run_id}"


def _beginning(session: str, room: int) -> str:
    """The whole letters at the beginning that take `room` characters at most once percent-encoded."""
    ends = accumulate(len(quoted(letter)) for letter in session)
    return session[: sum(1 for _ in takewhile(room.__ge__, ends))]


def _is_object(arguments: str) -> bool:
    """Whether a call's arguments are a JSON object, or none."""
    try:
        return not arguments or isinstance(msgspec.json.decode(arguments), dict)
    except UNREADABLE:
        return False


def fault_of_ours(error: Exception) -> str:
    """What a record says when nothing outside went wrong."""
    return printable(f"a fault of loadkit: {type(error).__name__}: {error}")


def is_complete(response: Response) -> bool:
    """Whether the session may go on as planned: answered, or left by its user on purpose."""
    return response.outcome == "ok" or (
        response.outcome == "cancelled" and response.error == USER_LEFT
    )


def make_record(play: _Play, response: Response, asked: Asked) -> Record:
    """A response as the run keeps it: seconds after the run's start, what was sent beside it."""
    start_at, session = play.lane.start_at, play.session

    def since_start(at: float | None) -> float | None:
        return None if at is None else at - start_at

    sent = response.outcome != "not_sent"
    return Record(
        session=session.session,
        turn=session.first_turn + play.num_recorded,
        name=session.name,
        worker=play.lane.worker,
        outcome=response.outcome,
        intended_s=play.intended_at - start_at,
        sent_s=since_start(response.sent_at),
        connect_s=response.connect_s,
        first_token_s=since_start(response.first_token_at),
        last_token_s=since_start(response.last_token_at),
        completed_s=since_start(response.completed_at),
        gaps_s=response.gaps_s,
        event_tokens=response.event_tokens,
        status=response.status,
        error=response.error,
        finish_reason=response.finish_reason,
        prompt_tokens=response.usage.prompt_tokens,
        output_tokens=response.usage.output_tokens,
        cached_tokens=response.usage.cached_tokens,
        server_split=response.usage.server_split,
        usage_doubt=response.usage.doubt,
        messages=asked.messages if sent and asked.prompt is None else [],
        tools=list(session.tools) if sent and asked.prompt is None else [],
        reply=response.text,
        reply_token_ids=response.token_ids,
        prompt_token_ids=response.prompt_token_ids,
        tool_calls=response.tool_calls,
        reasoning=response.reasoning,
        prompt=asked.prompt if sent else None,
        phase=session.phase,
        attempts=play.attempts if sent else 1,
        retry_after_s=response.retry_after_s,
        compacted=asked.compacted,
        resent=response.resent,
    )


def sleep_until(at: float) -> None:
    """Sleep to a monotonic time, never less; returns at once when it has passed."""
    while (remaining := at - time.monotonic()) > 0:
        time.sleep(remaining)  # gevent's timers count from a cached clock and may fire early
