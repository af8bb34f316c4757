"""The rejudging stage: what was parked for want of a policy is judged as soon as there is one again."""

import asyncio
from collections.abc import Sequence
from typing import Final, TypeAlias

from ctrainer.agents.compliance.judgement import Examination
from ctrainer.agents.force import Judges, JudgesInForce
from ctrainer.agents.parked import all_parked, origin, shaped
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.tally import Tally
from ctrainer.agents.unanswered import Judged, PolicyOutageError, left_to_person, others_are_answered, silent
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.samples import ParkedSample, SlowLane

STAGE = "rejudging"
MOST_ATTEMPTS: Final = 5
"""A sample that was parked so often is asked about alone, and goes to a person where it alone is not answered."""
WAITS_PER_ATTEMPT: Final = 8
"""So often the stage waits before a batch of which nothing is answered, though other things are, is parked anew."""
Waiting: TypeAlias = tuple[Record, ParkedSample]


class Rejudging:
    """The handler of `samples.slow-lane` for samples that wait for a policy; the others are other stages' work.

    What can still not be asked about while others can, such as a text that no guard model answers, is parked anew,
    behind all that waits: it holds up nothing. How often is told by its attempts, which outlive every worker, and in
    the end a person reads it. An outage of all is waited for as long as it lasts.
    """

    def __init__(self, *, judges: JudgesInForce, tally: Tally | None = None) -> None:
        self._judges = judges
        self._tally = tally or Tally()
        self._outages = 0

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return the outcome for each sample that waits for a policy.

        Raises:
            PolicyOutageError: there is still none, or no guard model.
        """
        waiting, outputs = all_parked(batch.records, SlowLane.POLICY, stage=STAGE)
        if not waiting:
            return outputs
        judges = self._judges()
        tried = await self._tried(judges, waiting)
        decided = await self._decided(judges, waiting, tried)
        if tried is None and (outage := _outage(decided)):
            self._outages += 1
            raise PolicyOutageError(f"{outage}: waiting")
        for number, ((record, sample), (examination, decision)) in enumerate(zip(waiting, decided, strict=True)):
            made = decision
            if number == tried and decision.result.verdict is Verdict.PARK and sample.attempt >= MOST_ATTEMPTS:
                self._tally.unanswered[silent(decision)] += 1
                made = left_to_person(examination, decision, decided_by=STAGE)
            outputs += judges.publication.of(record, examination, made, origin(sample))
        return outputs

    async def _tried(self, judges: Judges, waiting: Sequence[Waiting]) -> int | None:
        """Return the number of the sample that is asked about alone, since others are answered; None in most batches.

        What is asked first of others also finds out whether those who were left alone after failures are back.
        """
        longest = max(range(len(waiting)), key=lambda number: waiting[number][1].attempt)
        is_due = self._outages % WAITS_PER_ATTEMPT == WAITS_PER_ATTEMPT - 1
        if not is_due and waiting[longest][1].attempt < MOST_ATTEMPTS:
            return None
        if not await others_are_answered(judges):
            return None
        self._outages += is_due
        return longest

    async def _decided(self, judges: Judges, waiting: Sequence[Waiting], tried: int | None) -> list[Judged]:
        """Return what is decided on samples, in order. After each outage another one is asked about first.

        Whoever is asked again after a pause is asked one question: were it always the same, and never answered, none
        would be.
        """
        court, verdicts, _ = judges
        start = self._outages % len(waiting) if tried is None else tried
        examined: list[Examination] = []
        for _, sample in (*waiting[start:], *waiting[:start]):
            examined.append(court.examine(shaped(sample)))
            await asyncio.sleep(0)
        alone = 0 if tried is None else 1
        decided = await court.decide(verdicts, examined[:alone]) + await court.decide(verdicts, examined[alone:])
        return [*decided[len(waiting) - start :], *decided[: len(waiting) - start]]


def _outage(decided: Sequence[Judged]) -> str | None:
    """Return why nothing is answered; None where something is. What is rejected is so without asking any further."""
    results = [decision.result for _, decision in decided]
    reasons = [result.reasons[0] for result in results if result.verdict is Verdict.PARK]
    is_outage = reasons and all(result.verdict in {Verdict.PARK, Verdict.REJECT} for result in results)
    return reasons[0] if is_outage else None
