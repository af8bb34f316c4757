from prometheus_client import CollectorRegistry

from ctrainer.agents.revision_tally import RevisionTally
from ctrainer.streams.reviser import ProcessReviser
from ctrainer.streams.revision_metrics import RevisionMetrics
from ctrainer.trainer.collapse import Lately
from ctrainer.trainer.meaning import Fault
from ctrainer.trainer.revision import Attempt, Outcome

REFUSED = "I'm sorry, but I can't help with that."


def test_a_scrape_shows_revision_as_it_stands() -> None:
    registry, tally = CollectorRegistry(), RevisionTally()
    reviser = ProcessReviser(name="model", command=[], environment={})
    RevisionMetrics.register(registry, tally, reviser)
    tally.note(Outcome((Attempt("lost", (Fault.NAMES,), by_model=True), Attempt("good", (), by_model=True))))
    tally.note(Outcome((Attempt("still", (Fault.NAMES, Fault.VIOLATION), by_model=True),)))
    tally.samples["revised"] += 1
    tally.lately[3] = Lately().after(drafts=[("yes", REFUSED), ("no", "no")], accepted=[("a b a b", "a b c d")])
    reviser.losses = 2

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"constitutional_revision_{name}", labels)

    assert value("samples_total", outcome="revised") == 1
    assert value("rounds_total", rounds="2") == 1
    assert value("faults_total", check="names") == 2
    assert (value("attempts_total"), value("damaging_attempts_total")) == (3, 1)
    assert value("refusal_share", partition="3", side="original") == 0
    assert value("refusal_share", partition="3", side="revised") == 0.5
    assert value("distinct_pairs_share", partition="3", side="original") == 2 / 3
    assert value("distinct_pairs_share", partition="3", side="revised") == 1
    assert (value("halted_partitions"), value("process_losses_total"), value("process_up")) == (0, 2, 0)
