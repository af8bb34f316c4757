"""Samples on the slow lane, made ready to be judged again."""

from collections.abc import Sequence

from ctrainer.agents.compliance.conversation import Turn
from ctrainer.agents.compliance.shape import ShapedSample
from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.publication import Origin
from ctrainer.agents.records import OutputRecord, Record
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.samples import ChatMessage, ParkedSample, SlowLane


def parked(record: Record, waits_for: SlowLane) -> ParkedSample | None:
    """Return the sample of a record of the slow lane, or None where it waits for something else.

    Raises:
        ContractError: `invalid-message`.
    """
    sample = ParkedSample.from_json(record.value)
    return sample if sample.waits_for is waits_for else None


def all_parked(
    records: Sequence[Record], waits_for: SlowLane, *, stage: str
) -> tuple[list[tuple[Record, ParkedSample]], list[OutputRecord]]:
    """Return the samples that wait for something, each with its record, and dead letters of what cannot be read."""
    waiting: list[tuple[Record, ParkedSample]] = []
    letters: list[OutputRecord] = []
    for record in records:
        try:
            sample = parked(record, waits_for)
        except ContractError as error:
            letters.append(dead_letter(record, stage=stage, reason=error.reason, message=str(error)))
            continue
        if sample is not None:
            waiting.append((record, sample))
    return waiting, letters


def shaped(sample: ParkedSample) -> ShapedSample:
    """Return a parked sample as it was when it was parked."""
    return ShapedSample(
        tenant=sample.tenant,
        workload_id=sample.workload_id,
        logged_at=sample.logged_at,
        model=sample.model,
        conversation=sample.conversation_id,
        user_digest=sample.user_digest,
        messages=[turn(message) for message in sample.messages],
        tools=list(sample.tools),
        repairs=[repair.model_dump() for repair in sample.repairs],
        redactions=[redaction.model_dump() for redaction in sample.redactions],
    )


def origin(sample: ParkedSample) -> Origin:
    """Return the flywheel record that a parked sample was."""
    return Origin(sample.source.topic, sample.source.partition, sample.source.offset, sample.attempt)


def turn(message: ChatMessage) -> Turn:
    """Return a turn of the contract as one that can be judged."""
    return Turn(
        role=message.role,
        content=message.content,
        tool_calls=[
            {
                "id": call.id,
                "type": call.type,
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ],
        tool_call_id=message.tool_call_id,
        name=message.name,
    )
