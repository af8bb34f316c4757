from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import zip_longest

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ctrainer.agents.commands import Command, CommandDesk
from ctrainer.agents.records import OutputRecord, Record
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.datasets import OffsetRange
from ctrainer.schemas.identity import content_digest, sample_id
from ctrainer.schemas.samples import AcceptedSample, ChatMessage, SourceReference
from ctrainer.schemas.signature import Requester, sign

NOON = 1_700_000_000_000
CONSTITUTION = ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:ab")
SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


class InMemoryTopics:
    """Topics as lists. Partitions of a whole topic come interleaved, the highest first: no reader may rely on order."""

    def __init__(self) -> None:
        self.records: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)

    def append(self, output: OutputRecord) -> Record:
        place = (output.topic, output.partition or 0)
        offset = len(self.records[place])
        record = Record(*place, offset, output.timestamp, output.key, output.value, output.headers)
        self.records[place].append(record)
        return record

    async def end_offsets(self, topic: str) -> dict[int, int]:
        return {partition: len(kept) for (name, partition), kept in self.records.items() if name == topic}

    async def read_topic(self, topic: str, partition: int | None = None) -> AsyncIterator[Record]:
        places = sorted((place for place in self.records if place[0] == topic), reverse=True)
        wanted = [list(self.records[place]) for place in places if partition in {None, place[1]}]
        for row in zip_longest(*wanted):
            for record in row:
                if record is not None:
                    yield record

    async def read_ranges(self, ranges: Sequence[OffsetRange]) -> AsyncIterator[Record]:
        for span in ranges:
            kept = self.records.get((span.topic, span.partition), [])
            assert span.end <= len(kept), "a broker would be waited for until there is such a record"
            for record in kept[span.start : span.end]:
                yield record


@pytest.fixture
def topics() -> InMemoryTopics:
    return InMemoryTopics()


@pytest.fixture
def deliver(topics: InMemoryTopics) -> Callable[[Sequence[OutputRecord]], list[Record]]:
    """Publish outputs, as a committed transaction does."""
    return lambda outputs: [topics.append(output) for output in outputs]


@pytest.fixture
def constitution() -> ConstitutionReference:
    return CONSTITUTION


@pytest.fixture
def desk() -> CommandDesk:
    requester = Requester(key_id="alice", public_key=SIGNING_KEY.public_key(), tenants=frozenset({"acme", "umbrella"}))
    return CommandDesk(requesters={"alice": requester}, in_force=lambda: CONSTITUTION)


@pytest.fixture
def submit(topics: InMemoryTopics) -> Callable[[Command], Record]:
    """Put a signed command on its topic."""

    def signed(command: Command) -> Record:
        key, value = command.tenant.encode(), command.to_json()
        headers = (sign(SIGNING_KEY, key_id="alice", key=key, value=value),)
        return topics.append(OutputRecord("training.requests", key, value, NOON, headers))

    return signed


@pytest.fixture
def accept(topics: InMemoryTopics) -> Callable[[str, str, int], Record]:
    """Put the sample of a workload key with a text on a partition of `samples.accepted`."""

    def accepted(key: str, text: str, partition: int) -> Record:
        tenant, _, workload = key.partition("/")
        offset = len(topics.records["samples.accepted", partition])
        sample = AcceptedSample(
            sample_id=sample_id("flywheel.samples", partition, offset),
            tenant=tenant,
            workload_id=workload,
            source=SourceReference(topic="flywheel.samples", partition=partition, offset=offset),
            logged_at=1,
            conversation_id=text,
            user_digest=None,
            messages=(ChatMessage(role="user", content=text), ChatMessage(role="assistant", content="Yes.")),
            content_digest=content_digest(text.encode()),
            constitution=CONSTITUTION,
        )
        value, time = sample.to_json(), NOON + offset
        return topics.append(OutputRecord("samples.accepted", key.encode(), value, time, partition=partition))

    return accepted
