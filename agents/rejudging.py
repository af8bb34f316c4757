"""The rejudging stage: what was parked for want of a policy is judged as soon as there is one again."""

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from ctrainer.agents.compliance.judgement import Examination
from ctrainer.agents.compliance.policy import Decision
from ctrainer.agents.force import Judges, JudgesInForce
from ctrainer.agents.parked import all_parked, origin, shaped
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.samples import ParkedSample, SlowLane

STAGE = "rejudging"
Waiting: TypeAlias = tuple[Record, ParkedSample]


class PolicyOutageError(ConnectionError):
    """What the sample waits for cannot be asked yet: the stage waits where it is, and nothing is lost."""


class Rejudging:
    """The handler of `samples.slow-lane` for samples that wait for a policy; the others are other stages' work.

    What can still not be asked about while others can, such as a text that no guard model answers, is parked anew,
    behind all that waits: it holds up nothing.
    """

    def __init__(self, *, judges: JudgesInForce) -> None:
        self._judges = judges
        self._outages = 0

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return the outcome for each sample that waits for a policy.

        Raises:
            PolicyOutageError: there is still none, or no guard model.
        """
        waiting, outputs = all_parked(batch.records, SlowLane.POLICY, stage=STAGE)
        judges = self._judges()
        decided = await self._decided(judges, waiting) if waiting else []
        results = [decision.result for _, decision in decided]
        outages = [result.reasons[0] for result in results if result.verdict is Verdict.PARK]
        # What is rejected is so without asking any further.
        if outages and all(result.verdict in {Verdict.PARK, Verdict.REJECT} for result in results):
            self._outages += 1
            raise PolicyOutageError(f"{outages[0]}: waiting")
        for (record, sample), (examination, decision) in zip(waiting, decided, strict=True):
            outputs += judges.publication.of(record, examination, decision, origin(sample))
        return outputs

    async def _decided(self, judges: Judges, waiting: Sequence[Waiting]) -> list[tuple[Examination, Decision]]:
        """Return what is decided on samples, in order. After each outage another one is asked about first.

        Whoever is asked again after a pause is asked one question: were it always the same, and never answered, none
        would be.
        """
        court, verdicts, _ = judges
        start = self._outages % len(waiting)
        examined: list[Examination] = []
        for _, sample in (*waiting[start:], *waiting[:start]):
            examined.append(court.examine(shaped(sample)))
            await asyncio.sleep(0)
        decided = await court.decide(verdicts, examined)
        return [*decided[len(waiting) - start :], *decided[: len(waiting) - start]]
