"""/metrics of the whole: the replicas' own summed under their names, and the router's beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from reference_server.router.fleet import Fleet, Replica
from reference_server.router.routing import Choice, Routing

MEAN_OF = ("vllm:kv_cache_usage_perc",)
MOMENTARY = ("gauge", "unknown")
ENDED = -1  # the number of no replica


class RouterMetrics:
    """Counters of the router. Blocks are the router's, of BLOCK_BYTES bytes; tokens are the engines'."""

    def __init__(self, fleet: Fleet, routing: Routing) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests sent to a replica", "replica")
        self._retries = self._counter("retries", "Requests sent to another replica", "reason")
        self._lost = self._counter(
            "lost", "Answers that ended with an error: replica gone", "replica"
        )
        self._blocks = self._counter("prompt_blocks", "Blocks of routed prompts", "replica")
        self._starts = self._counter("replica_restarts", "Times it was started again", "replica")
        self._matched = self._counter("matched_blocks", "Of them, expected in the cache", "replica")
        up = Gauge(
            "loadkit:router_replica_up", "1: gets requests", ("replica",), registry=self.registry
        )
        queued = Gauge(
            "loadkit:router_queued_blocks",
            "New blocks of requests without a first byte yet",
            ("replica",),
            registry=self.registry,
        )
        for replica in fleet.replicas:
            up.labels(str(replica.index)).set_function(partial(_is_up, replica))
            queued.labels(str(replica.index)).set_function(partial(_queued, replica))
            self._lost.labels(str(replica.index))
            self._starts.labels(str(replica.index))
        index = Gauge("loadkit:router_index_blocks", "Blocks remembered", registry=self.registry)
        index.set_function(routing.num_index_blocks)

    def routed(self, choice: Choice) -> None:
        name = str(choice.replica.index)
        self._requests.labels(name).inc()
        if choice.prompt is not None:
            self._blocks.labels(name).inc(choice.prompt.length)
            self._matched.labels(name).inc(choice.matched)

    def retried(self, reason: str) -> None:
        self._retries.labels(reason).inc()

    def lost(self, replica: int) -> None:
        self._lost.labels(str(replica)).inc()

    def started_again(self, replica: int) -> None:
        self._starts.labels(str(replica)).inc()

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(f"loadkit:router_{name}", text, (label,), registry=self.registry)


class Summed:
    """The pages of several replicas as one. A replica that is gone keeps its counts, not its gauges."""

    def __init__(self) -> None:
        self._pages: dict[int, str] = {}
        self._ended: list[str] = []

    def ended(self, replica: int) -> None:
        """Its process is gone: what the next one counts comes on top."""
        if replica in self._pages:
            self._ended.append(self._pages.pop(replica))

    def update(self, replica: int, page: str) -> None:
        self._pages[replica] = page

    def render(self, up: Iterable[int], own: CollectorRegistry) -> bytes:
        ended = [(ENDED, page) for page in self._ended]
        merged = _Merged([*ended, *sorted(self._pages.items())], frozenset(up))
        return generate_latest(merged) + generate_latest(own)


class _Merged:
    """What generate_latest asks of a registry."""

    def __init__(self, pages: list[tuple[int, str]], up: frozenset[int]) -> None:
        self._pages, self._up = pages, up

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
        for replica, page in self._pages:
            for family in text_string_to_metric_families(page):
                if family.type in MOMENTARY and replica not in self._up:
                    continue
                families.setdefault(family.name, family)
                into = values.setdefault(family.name, {})
                for sample in family.samples:
                    key = (sample.name, tuple(sorted(sample.labels.items())))
                    into.setdefault(key, []).append(sample.value)
        for name, family in families.items():
            yield _summed(family, values[name])


def _summed(
    family: Metric, values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]
) -> Metric:
    made = Metric(family.name, family.documentation, family.type)
    for (name, labels), found in values.items():
        if name.endswith("_created"):
            continue  # when a process made its counter says nothing of their sum
        total = sum(found)
        made.add_sample(name, dict(labels), total / len(found) if name in MEAN_OF else total)
    return made


def _is_up(replica: Replica) -> float:
    return float(replica.is_up)


def _queued(replica: Replica) -> float:
    return replica.queued
