"""The samples that wait for a person."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from ctrainer.agents.parked import parked
from ctrainer.agents.records import Record
from ctrainer.agents.review import decided_samples
from ctrainer.agents.world import Topics
from ctrainer.schemas.errors import ConstitutionalTrainerError, ContractError
from ctrainer.schemas.samples import ChatMessage, ParkedSample, SlowLane, SourceReference
from ctrainer.schemas.topics import SAMPLES_SLOW_LANE


class NotInReviewError(ConstitutionalTrainerError):
    """No sample of that id waits for a person."""


@dataclass(frozen=True, slots=True)
class InReview:
    """A sample in review and its place on the slow lane. `since` is in milliseconds of Unix time."""

    sample: ParkedSample
    place: SourceReference
    since: int


async def samples_in_review(topics: Topics) -> AsyncGenerator[InReview]:
    """Yield what waits and nobody decided on yet, oldest first within a partition."""
    decided = {sample async for _, sample in decided_samples(topics)}
    async for record in topics.read_topic(SAMPLES_SLOW_LANE):
        sample = _waiting(record)
        if sample is not None and sample.sample_id not in decided:
            place = SourceReference(topic=record.topic, partition=record.partition, offset=record.offset)
            yield InReview(sample, place, record.timestamp)


def _waiting(record: Record) -> ParkedSample | None:
    """Return the sample of a record that waits for a person; what is no sample becomes a dead letter, and waits not."""
    try:
        return parked(record, SlowLane.REVIEW)
    except ContractError:
        return None


def shown(sample: ParkedSample) -> str:
    """Return a conversation as a person reads it before a decision: all that would be trained on, calls included.

    Each turn begins a line, and nothing else does: the further lines of a turn are indented.
    """
    return "\n".join(_turn(message) for message in sample.messages)


def _turn(message: ChatMessage) -> str:
    named = f" ({message.name})" if message.name else ""
    calls = [f"calls {call.function.name}({call.function.arguments})" for call in message.tool_calls]
    said = "\n".join([f"{message.role}{named}: {message.content}", *calls])
    return said.replace("\n", "\n    ")


async def sample_in_review(topics: Topics, sample_id: str) -> InReview:
    """Return one of them.

    Raises:
        NotInReviewError: it does not wait, or no longer.
    """
    async for found in samples_in_review(topics):
        if found.sample.sample_id == sample_id:
            return found
    raise NotInReviewError(f"sample {sample_id}: does not wait for review; `ctrainer review list` shows those that do")
