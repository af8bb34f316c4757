"""Numbers about revision, under the published `constitutional_` names. They are read from the tally at each scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ctrainer.agents.revision_tally import RevisionTally
from ctrainer.streams.reviser import Condition, ProcessReviser


class RevisionMetrics(Collector):
    """Convergence, what the checks kept out, refusals, diversity, halted partitions, and the model's process."""

    def __init__(self, tally: RevisionTally, reviser: ProcessReviser) -> None:
        self._tally = tally
        self._reviser = reviser

    @classmethod
    def register(cls, registry: CollectorRegistry, tally: RevisionTally, reviser: ProcessReviser) -> None:
        """Show the numbers in `registry`."""
        registry.register(cls(tally, reviser))

    def collect(self) -> Iterator[Metric]:
        """Yield the families as they stand."""
        tally = self._tally
        yield _counter("samples", "Samples by outcome: revised, or review.", "outcome", dict(tally.samples))
        rounds = {str(count): answers for count, answers in tally.rounds.items()}
        yield _counter("rounds", "Accepted answers by the rounds they took.", "rounds", rounds)
        yield _counter("faults", "What was wrong with attempts, by check.", "check", dict(tally.faults))
        yield _total("attempts", "Texts that were tried.", tally.attempts)
        yield _total("damaging_attempts", "Attempts without the violation that another check refused.", tally.damaging)
        yield from self._collapse()
        yield _total(
            "process_losses", "How often the process of the model was lost over a question.", self._reviser.losses
        )
        yield _gauge(
            "process_up", "1 while the process of the model can be asked.", self._reviser.condition is Condition.UP
        )

    def _collapse(self) -> Iterator[Metric]:
        lately = list(self._tally.lately.items())
        for name, measure in (
            ("refusal_share", {number: one.refusals() for number, one in lately}),
            ("distinct_pairs_share", {number: one.diversity() for number, one in lately}),
        ):
            family = GaugeMetricFamily(
                f"constitutional_revision_{name}", "Lately, before and after.", labels=["partition", "side"]
            )
            for partition, meters in measure.items():
                family.add_metric([str(partition), "original"], meters.before)
                family.add_metric([str(partition), "revised"], meters.after)
            yield family
        yield _gauge(
            "halted_partitions", "Partitions that wait because the model has collapsed.", len(self._tally.halted)
        )


def _counter(name: str, documentation: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"constitutional_revision_{name}", documentation, labels=[label])
    for key, count in counts.items():
        family.add_metric([key], count)
    return family


def _total(name: str, documentation: str, count: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"constitutional_revision_{name}", documentation, value=count)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"constitutional_revision_{name}", documentation, value=value)
