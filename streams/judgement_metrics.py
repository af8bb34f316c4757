"""Numbers about judging, under the published `constitutional_` names. They are read from the tally at each scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ctrainer.agents.tally import Tally
from ctrainer.streams.policy.connection import EngineConnection


class JudgementMetrics(Collector):
    """Verdicts, findings by principle and mode (shadow ones too), where decisions came from, policy engine, guard."""

    def __init__(self, tally: Tally, engine: EngineConnection | None, guard: EngineConnection | None) -> None:
        self._tally = tally
        self._engine = engine
        self._guard = guard

    @classmethod
    def register(
        cls,
        registry: CollectorRegistry,
        tally: Tally,
        engine: EngineConnection | None,
        guard: EngineConnection | None = None,
    ) -> None:
        """Show the numbers in `registry`."""
        registry.register(cls(tally, engine, guard))

    def collect(self) -> Iterator[Metric]:
        """Yield the families as they stand."""
        tally = self._tally
        yield _counter("constitutional_decisions", "Decisions on samples.", ["verdict"], tally.verdicts)
        yield _counter(
            "constitutional_findings", "Findings by principle and its mode.", ["principle", "mode"], tally.findings
        )
        yield _counter("constitutional_policy_answers", "Where policy decisions came from.", ["source"], tally.answers)
        yield _counter("constitutional_policy_layers", "What two policy layers said.", ["outcome"], tally.layers)
        yield _counter(
            "constitutional_unanswered", "Samples to a person since these never answered.", ["by"], tally.unanswered
        )
        if self._engine is not None:
            yield from _calls("constitutional_policy", self._engine)
        if self._guard is not None:
            yield _counter(
                "constitutional_guard_turns", "What guard model and harm score said.", ["guard", "score"], tally.guard
            )
            yield from _calls("constitutional_guard", self._guard)


def _calls(prefix: str, connection: EngineConnection) -> Iterator[Metric]:
    yield _counter(f"{prefix}_failures", "Questions without an answer.", ["kind"], connection.failures)
    yield connection.latency.family(f"{prefix}_seconds", "Seconds that answers took.")
    is_open = GaugeMetricFamily(f"{prefix}_circuit_open", "1 while it is left alone.")
    is_open.add_metric([], float(connection.breaker.is_open))
    yield is_open


def _counter(
    name: str, documentation: str, labels: list[str], counts: "dict[str, int] | dict[tuple[str, str], int]"
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=labels)
    for key, count in list(counts.items()):
        family.add_metric([key] if isinstance(key, str) else list(key), count)
    return family
