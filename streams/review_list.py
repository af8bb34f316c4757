"""The samples that wait for a person."""

from dataclasses import dataclass

from ctrainer.agents.parked import parked
from ctrainer.agents.records import Record
from ctrainer.agents.review import decided_samples
from ctrainer.agents.world import Topics
from ctrainer.schemas.errors import ConstitutionalTrainerError, ContractError
from ctrainer.schemas.samples import ParkedSample, SlowLane, SourceReference
from ctrainer.schemas.topics import SAMPLES_SLOW_LANE


class NotInReviewError(ConstitutionalTrainerError):
    """No sample of that id waits for a person."""


@dataclass(frozen=True, slots=True)
class InReview:
    """A sample in review and its place on the slow lane."""

    sample: ParkedSample
    place: SourceReference


async def samples_in_review(topics: Topics) -> list[InReview]:
    """Return what waits and nobody decided on yet, oldest first within a partition."""
    decided = {sample async for _, sample in decided_samples(topics)}
    waiting: list[InReview] = []
    async for record in topics.read_topic(SAMPLES_SLOW_LANE):
        sample = _waiting(record)
        if sample is not None and sample.sample_id not in decided:
            place = SourceReference(topic=record.topic, partition=record.partition, offset=record.offset)
            waiting.append(InReview(sample, place))
    return waiting


def _waiting(record: Record) -> ParkedSample | None:
    """Return the sample of a record that waits for a person; what is no sample becomes a dead letter, and waits not."""
    try:
        return parked(record, SlowLane.REVIEW)
    except ContractError:
        return None


async def sample_in_review(topics: Topics, sample_id: str) -> InReview:
    """Return one of them.

    Raises:
        NotInReviewError: it does not wait, or no longer.
    """
    for found in await samples_in_review(topics):
        if found.sample.sample_id == sample_id:
            return found
    raise NotInReviewError(f"sample {sample_id}: does not wait for review; `ctrainer review list` shows those that do")
