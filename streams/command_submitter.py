"""Sends signed commands to `training.requests` and waits for what becomes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ctrainer.agents.records import Record
from ctrainer.schemas.adapters import AdapterReleased
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.datasets import DatasetSealed
from ctrainer.schemas.envelope import binary_headers, event_type
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.topics import (
    ADAPTERS_PUBLISHED,
    DATASETS_SEALED,
    TRAINING_ASSIGNMENTS,
    TRAINING_PROGRESS,
    TRAINING_REQUESTS,
)
from ctrainer.schemas.training import CommandRefused, TrainingAssignment, TrainingCommand
from ctrainer.streams.event_watch import watch
from ctrainer.streams.keyring import SigningKey
from ctrainer.streams.signed_producer import SignedProducer
from ctrainer.streams.topic_reader import TopicReader

Command = TrainingCommand
Answer = DatasetSealed | TrainingAssignment | AdapterReleased | CommandRefused

_KINDS: tuple[type[Answer], ...] = (DatasetSealed, TrainingAssignment, AdapterReleased, CommandRefused)
_ANSWERS = {event_type(kind): kind for kind in _KINDS}
_TOPICS = (DATASETS_SEALED, TRAINING_ASSIGNMENTS, ADAPTERS_PUBLISHED, TRAINING_PROGRESS)


class RefusedError(ConstitutionalTrainerError):
    """The command was refused. The message gives the reason and what would be accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSubmitter:
    """Submits commands to one deployment with one signing key (none: unsigned, which most deployments refuse)."""

    bootstrap_servers: str
    key: SigningKey | None
    security: Mapping[str, Any] = field(default_factory=dict)

    async def submit(self, command: Command) -> str:
        """Send a command and return its place, `topic/partition/offset`, once the brokers have it."""
        producer = SignedProducer(bootstrap_servers=self.bootstrap_servers, key=self.key, security=self.security)
        key, value = command.tenant.encode(), command.to_json()
        return await producer.send(TRAINING_REQUESTS, key=key, value=value, headers=_headers(command))

    async def submit_and_wait(self, command: Command, *, within_seconds: float = 60.0) -> Answer:
        """Send a command and return the event that answers it.

        Raises:
            RefusedError: the command was refused.
            NoAnswerError: nobody answered in time.
        """
        reader = TopicReader(bootstrap_servers=self.bootstrap_servers, security=self.security)
        async with watch(reader, _TOPICS) as answers:
            source = await self.submit(command)
            answer: Answer = await answers.first(
                lambda record: answer_to(source, record), within_seconds=within_seconds, what="answer to the command"
            )
        if isinstance(answer, CommandRefused):
            raise RefusedError(f"{answer.reason}: {answer.message}; accepted would be: {answer.acceptable}")
        return answer


def answer_to(source: str, record: Record) -> Answer | None:
    """Return the answer that `record` holds to the command at `source`, or None."""
    envelope = orjson.loads(record.value or b"{}")
    kind = _ANSWERS.get(envelope.get("type"))
    if kind is None or envelope["source"] != source:
        return None
    return kind.model_validate(envelope["data"])


def _headers(command: Command) -> list[tuple[str, bytes]]:
    reference: ConstitutionReference = command.constitution
    attributes = {
        "id": str(command.request_id),
        "type": event_type(type(command)),
        "source": f"/tenants/{command.tenant}",
        "constitutionhash": reference.hash,
        "constitutiondigest": reference.digest,
    }
    return list(binary_headers(attributes))
