"""What a plan will cost, before anything is sent: requests, tokens, time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import msgspec

from loadkit.profiles import ClosedLoop, Profile
from loadkit.traffic.plan import SessionPlan, TrafficPlan, Turn

# Tokens of a text. Four characters a token is what English text has in today's vocabularies.
Count = Callable[[str], int]
CHARS_PER_TOKEN = 4


class Cost(msgspec.Struct, frozen=True):
    """prompt_tokens: of all requests, history included, with live replies as long as they may get,
    without the chat template. is_estimate: counted by characters, not by a tokenizer.
    output_tokens: at most. at_least_s: planned starts and pauses alone; at_most_s: when the profile
    ends the run. cached or not: a cost in tokens sent, not in tokens computed."""

    sessions: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    is_estimate: bool
    at_least_s: float
    at_most_s: float

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens


def by_characters(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)


def cost_of(plan: TrafficPlan, profile: Profile, count: Count | None = None) -> Cost:
    """Add up a plan. count: tokens of a text by the served tokenizer; None: by characters."""
    tokens = _Memory(count or by_characters)
    prompt, output = 0, 0
    for session in plan.sessions:  # a replayed row holds its history itself, whatever came before
        asked, answered, _ = _session(session, 0, tokens)
        prompt, output = prompt + asked, output + answered
    return Cost(
        sessions=len({session.session for session in plan.sessions}),
        requests=plan.num_requests,
        prompt_tokens=prompt,
        output_tokens=output,
        is_estimate=count is None,
        at_least_s=_at_least(plan.sessions, profile),
        at_most_s=profile.max_duration_s,
    )


class _Memory:
    """Counts each text once: system prompts and histories come again and again."""

    def __init__(self, count: Count):
        self._count, self._known = count, dict[str, int]()

    def __call__(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = self._count(text)
        return self._known[text]


def _session(session: SessionPlan, history: int, count: Count) -> tuple[int, int, int]:
    """Prompt and output tokens of a session's requests, and its history's tokens at the end."""
    tools = count(json.dumps(session.tools)) if session.tools else 0
    prompt, output = 0, 0
    for turn in session.turns:
        history = (0 if turn.compacts else history) + _new_tokens(turn, count)
        sent = _whole_prompt(turn, count)
        prompt += tools + (history if sent is None else sent)
        output += turn.max_tokens
        history += turn.max_tokens if turn.recorded_reply is None else count(turn.recorded_reply)
        for sub in turn.sub_agents:
            asked, answered, _ = _session(sub, history if sub.inherits_history else 0, count)
            prompt, output = prompt + asked, output + answered
    return prompt, output, history


def _new_tokens(turn: Turn, count: Count) -> int:
    if turn.retry:
        return 0
    return sum(count(_text(message.get("content"))) for message in turn.messages)


def _text(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content)


def _whole_prompt(turn: Turn, count: Count) -> int | None:
    if turn.prompt is None:
        return None
    return count(turn.prompt) if isinstance(turn.prompt, str) else len(turn.prompt)


def _at_least(sessions: Iterable[SessionPlan], profile: Profile) -> float:
    """An open loop lasts to its last planned start; a closed loop's users share the pauses."""
    pauses = {id(session): sum(turn.think_s for turn in session.turns) for session in sessions}
    if isinstance(profile.arrivals, ClosedLoop):
        least = sum(pauses.values()) / profile.arrivals.users
    else:
        least = max((s.start_s + pauses[id(s)] for s in sessions), default=0.0)
    return min(least, profile.max_duration_s)
