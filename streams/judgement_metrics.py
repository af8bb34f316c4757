"""Numbers about judging, under the published `constitutional_` names. They are read from the tally at each scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ctrainer.agents.tally import Tally
from ctrainer.streams.policy.connection import EngineConnection


class JudgementMetrics(Collector):
    """Verdicts, findings by principle and mode (shadow ones too), where decisions came from, and the policy engine."""

    def __init__(self, tally: Tally, connection: EngineConnection | None) -> None:
        self._tally = tally
        self._connection = connection

    @classmethod
    def register(cls, registry: CollectorRegistry, tally: Tally, connection: EngineConnection | None) -> None:
        """Show the numbers in `registry`."""
        registry.register(cls(tally, connection))

    def collect(self) -> Iterator[Metric]:
        """Yield the families as they stand."""
        tally = self._tally
        yield _counter("constitutional_decisions", "Decisions on samples.", ["verdict"], tally.verdicts)
        yield _counter(
            "constitutional_findings", "Findings by principle and its mode.", ["principle", "mode"], tally.findings
        )
        yield _counter("constitutional_policy_answers", "Where policy decisions came from.", ["source"], tally.answers)
        yield _counter("constitutional_policy_layers", "What two policy layers said.", ["outcome"], tally.layers)
        if self._connection is not None:
            yield from self._engine(self._connection)

    def _engine(self, connection: EngineConnection) -> Iterator[Metric]:
        yield _counter("constitutional_policy_failures", "Questions without an answer.", ["kind"], connection.failures)
        seconds = CounterMetricFamily("constitutional_policy_seconds", "Seconds that answers took, in all.")
        seconds.add_metric([], connection.seconds)
        yield seconds
        answered = CounterMetricFamily("constitutional_policy_calls", "Questions with an answer.")
        answered.add_metric([], connection.answers)
        yield answered
        is_open = GaugeMetricFamily("constitutional_policy_circuit_open", "1 while the engine is left alone.")
        is_open.add_metric([], float(connection.breaker.is_open))
        yield is_open


def _counter(
    name: str, documentation: str, labels: list[str], counts: "dict[str, int] | dict[tuple[str, str], int]"
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=labels)
    for key, count in list(counts.items()):
        family.add_metric([key] if isinstance(key, str) else list(key), count)
    return family
