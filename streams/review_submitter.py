"""Sends a person's signed word to `review.decisions` and waits for what becomes of it."""

from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ctrainer.agents.events import event_caused_by
from ctrainer.agents.records import Record
from ctrainer.schemas.envelope import binary_headers, event_type, header
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.message import Message
from ctrainer.schemas.topics import DEAD_LETTERS, REVIEW_DECISIONS
from ctrainer.streams.event_watch import watch
from ctrainer.streams.keyring import SigningKey
from ctrainer.streams.signed_producer import SignedProducer
from ctrainer.streams.topic_reader import TopicReader

Answer = TypeVar("Answer", bound=Message)


class DecisionRefusedError(ConstitutionalTrainerError):
    """The review stage did not take a decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewSubmitter:
    """Submits to one deployment with one signing key (none: unsigned, which most deployments refuse)."""

    topics: TopicReader
    key: SigningKey | None

    async def submit_and_wait(
        self, word: Message, *, subject: str, answer: type[Answer], told_on: str
    ) -> tuple[str, Answer]:
        """Send a word about `subject`, the record's key, and return its place and the event that answers it.

        Raises:
            DecisionRefusedError: it is a dead letter.
            NoAnswerError: nobody answered in time.
        """
        producer = SignedProducer(
            bootstrap_servers=self.topics.bootstrap_servers, key=self.key, security=self.topics.security
        )
        headers = binary_headers({"type": event_type(type(word)), "subject": subject})
        async with watch(self.topics, [told_on, DEAD_LETTERS]) as events:
            place = await producer.send(REVIEW_DECISIONS, key=subject.encode(), value=word.to_json(), headers=headers)
            found = await events.first(
                partial(_outcome, place, answer), within_seconds=60.0, what="outcome of the decision"
            )
        return place, found


def _outcome(place: str, answer: type[Answer], record: Record) -> Answer | None:
    """Return what a record says became of the word at `place`, or None where it is about something else.

    Raises:
        DecisionRefusedError: the record is its dead letter.
    """
    if record.topic != DEAD_LETTERS:
        return event_caused_by(place, record, answer)
    if record.key == place.encode():
        reason, message = (header(record.headers, f"dlq.{name}") for name in ("reason", "error.message"))
        raise DecisionRefusedError(f"the decision was refused: {reason}: {message}")
    return None
