"""What revision has come to so far in this process: counted where it happens, read when somebody asks."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ctrainer.schemas.revision import RevisionHalted
from ctrainer.trainer.collapse import Lately
from ctrainer.trainer.revision import Outcome


@dataclass(slots=True)
class RevisionTally:
    """Counts since the start of the process; a batch that is handled again counts again.

    `samples` by outcome (`revised`, `review`), `rounds` by how many an accepted answer took, `faults` of attempts by
    check. `damaging` counts attempts whose violation was gone and that broke another check: what the checks kept out.
    `lately` and `halted` are by partition.
    """

    samples: Counter[str] = field(default_factory=Counter)
    rounds: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    damaging: int = 0
    lately: dict[int, Lately] = field(default_factory=dict)
    halted: dict[int, RevisionHalted] = field(default_factory=dict)

    def note(self, outcome: Outcome) -> None:
        """Count what became of one answer."""
        if outcome.revised is not None:
            self.rounds[outcome.rounds] += 1
        for attempt in outcome.attempts:
            self.attempts += 1
            self.faults.update(fault.value for fault in attempt.faults)
            self.damaging += attempt.damages

    def facts(self) -> Mapping[str, object]:
        """Return what `/health` says of revision: which partitions are halted, and why."""
        return {str(partition): halted.measure.value for partition, halted in sorted(self.halted.items())}
