"""The rejudging stage: what was parked for want of a policy is judged as soon as there is one again."""

from collections.abc import Sequence

from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.force import JudgesInForce
from ctrainer.agents.parked import origin, parked, shaped
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.samples import SlowLane

STAGE = "rejudging"


class PolicyOutageError(ConnectionError):
    """What the sample waits for cannot be asked yet: the stage waits where it is, and nothing is lost."""


class Rejudging:
    """The handler of `samples.slow-lane` for samples that wait for a policy; the others are other stages' work."""

    def __init__(self, *, judges: JudgesInForce) -> None:
        self._judges = judges

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return the outcome for each sample that waits for a policy.

        Raises:
            PolicyOutageError: there is still none, or no guard model.
        """
        return [output for record in batch.records for output in await self._judge(record)]

    async def _judge(self, record: Record) -> Sequence[OutputRecord]:
        try:
            sample = parked(record, SlowLane.POLICY)
        except ContractError as error:
            return [dead_letter(record, stage=STAGE, reason=error.reason, message=str(error))]
        if sample is None:
            return []
        court, verdicts, publication = self._judges()
        ((examination, decision),) = await court.decide(verdicts, [court.examine(shaped(sample))])
        if decision.result.verdict is Verdict.PARK:
            raise PolicyOutageError(f"{decision.result.reasons[0]}: waiting")
        return list(publication.of(record, examination, decision, origin(sample)))
