"""Sends one signed record and waits until the brokers have it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer

from ctrainer.schemas.identity import source_reference
from ctrainer.schemas.signature import sign
from ctrainer.streams.keyring import SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedProducer:
    """Sends to one deployment with one signing key (none: unsigned, which most deployments refuse)."""

    bootstrap_servers: str
    key: SigningKey | None
    security: Mapping[str, Any] = field(default_factory=dict)

    async def send(self, topic: str, *, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> str:
        """Send a record and return its place, `topic/partition/offset`."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers, acks="all", enable_idempotence=True, **self.security
        )
        signature = [sign(self.key.private_key, key_id=self.key.key_id, key=key, value=value)] if self.key else []
        await producer.start()
        try:
            sent = await producer.send_and_wait(topic, key=key, value=value, headers=[*headers, *signature])
        finally:
            await producer.stop()
        return source_reference(sent.topic, sent.partition, sent.offset)
