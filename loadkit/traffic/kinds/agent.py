"""Agents: a task under a system prompt and tools, then a result after every step."""

from __future__ import annotations

from typing import Any

import msgspec

from loadkit.profiles import AgentTraffic
from loadkit.profiles.kinds.agent import SubAgents
from loadkit.traffic.draw import draw, draw_int, zipf_rank
from loadkit.traffic.plan import Message, SessionPlan, Turn
from loadkit.traffic.planning import Planned, Planning
from loadkit.traffic.sharing import system_prompts
from loadkit.traffic.writing import Writer

Tools = tuple[dict[str, Any], ...]


def plan(traffic: AgentTraffic, count: int, planning: Planning) -> Planned:
    """`count` tasks."""
    return Planned(_Agents(traffic, planning).sessions(count))


class _Agents:
    """What the tasks of a run have in common: system prompts, tool sets, the sub-agents' prompt."""

    def __init__(self, traffic: AgentTraffic, planning: Planning):
        self.traffic, self.planning, self.rng = traffic, planning, planning.rng
        self.writer: Writer = planning.writer(traffic.corpus)
        self.systems = system_prompts(self.writer, traffic.system_prompts)
        self.tools = [self._tool_set() for _ in range(traffic.tools.sets)]
        self.sub_system = self.writer.text("system", pieces=traffic.system_prompts.sentences)

    def sessions(self, count: int) -> list[SessionPlan]:
        return [self._session(number) for number in range(count)]

    def _tool_set(self) -> Tools:
        return tuple(
            self.writer.corpus.tool(self.rng, number) for number in range(self.traffic.tools.count)
        )

    def _session(self, number: int) -> SessionPlan:
        traffic, shared = self.traffic, self.traffic.system_prompts
        system = self.systems[zipf_rank(shared.count, shared.exponent, self.rng)]
        tools = self.tools[zipf_rank(traffic.tools.sets, traffic.tools.exponent, self.rng)]
        name = f"{self.planning.label}-{number:05d}"
        turns = self._steps(system, tools, name)
        return self._planned(number, turns, tools, shared=1)

    def _planned(self, number: int, turns: list[Turn], tools: Tools, **more: Any) -> SessionPlan:
        how = {"replies": self.traffic.replies, "reasoning": self.traffic.reasoning}
        return self.planning.session(number, turns, tools=tools, **how, **more)

    def _steps(self, system: str, tools: Tools, name: str) -> list[Turn]:
        traffic = self.traffic
        told: Message = {"role": "system", "content": system}
        task: Message = {"role": "user", "content": self._task()}
        turns = [self._turn((told, task), 0)]
        for step in range(1, max(1, draw_int(traffic.steps, self.rng))):
            if self.rng.random() < traffic.retry_share:
                said = turns[-1].recorded_reply
                turns.append(self.planning.turn((), retry=True, recorded_reply=said))
            turns[-1] = self._with_sub_agents(turns[-1], tools, f"{name}.{step}")
            result = self._result(step)
            every = traffic.compaction.every_steps if traffic.compaction else 0
            if every and step % every == 0:
                turns.append(self._turn((told, task, self._summary(result)), step, compacts=True))
            else:
                turns.append(self._turn((result,), step))
        return turns

    def _turn(self, messages: tuple[Message, ...], step: int, **more: Any) -> Turn:
        wait_s = draw(self.traffic.tool_s, self.rng) if step else 0.0
        reply = self.writer.corpus.reply(self.rng)
        return self.planning.turn(messages, think_s=wait_s, recorded_reply=reply, **more)

    def _task(self) -> str:
        return self.writer.fresh("message", self.traffic.task_sentences, self.traffic.task_tokens)

    def _result(self, step: int) -> Message:
        traffic = self.traffic
        factor = traffic.result_growth ** (step - 1)
        text = self.writer.drawn("result", traffic.result_lines, traffic.result_tokens, factor)
        return {"role": "user", "content": text}

    def _summary(self, result: Message) -> Message:
        """What the work comes to, with the last result: one message, as roles must alternate."""
        assert self.traffic.compaction is not None
        text = self.writer.text("summary", pieces=self.traffic.compaction.summary_sentences)
        return {"role": "user", "content": f"{text}\n\n{result['content']}"}

    def _with_sub_agents(self, turn: Turn, tools: Tools, name: str) -> Turn:
        subs = self.traffic.sub_agents
        if subs is None or turn.leaves_after_s is not None or self.rng.random() >= subs.share:
            return turn
        count = max(1, draw_int(subs.count, self.rng))
        sent = tuple(self._sub_agent(subs, tools, f"{name}.{one + 1}") for one in range(count))
        return msgspec.structs.replace(turn, sub_agents=sent)

    def _sub_agent(self, subs: SubAgents, tools: Tools, name: str) -> SessionPlan:
        """A session inside a session: its part of the task, then results."""
        inherits = subs.history == "inherited"
        task: Message = {"role": "user", "content": self._task()}
        opening: tuple[Message, ...] = (task,)
        if not inherits:
            opening = ({"role": "system", "content": self.sub_system}, task)
        turns = [self._turn(opening, 0)]
        for step in range(1, max(1, draw_int(subs.steps, self.rng))):
            turns.append(self._turn((self._result(step),), step))
        shared = 0 if inherits else 1
        return self._planned(
            0, turns, tools, session=name, shared=shared, inherits_history=inherits
        )
