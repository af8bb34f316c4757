"""Creates the topics of the table and compares what exists with it. Nothing is ever created by accident."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.topics import TOPICS, Cleanup, Topic

_CHECKED_SETTINGS = ("cleanup.policy", "retention.ms")


class TopicsDifferError(ConstitutionalTrainerError):
    """The topics on the broker are not those of the table. The message names every difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicAdministration:
    """Applies and checks the topic table for one deployment."""

    bootstrap_servers: str
    partitions: int
    replication_factor: int
    security: Mapping[str, Any] = field(default_factory=dict)

    async def apply(self) -> tuple[str, ...]:
        """Create the missing topics and return their names; what exists is left as it is."""
        async with self._client() as client:
            existing = set(await client.list_topics())
            missing = [topic for topic in TOPICS.values() if topic.name not in existing]
            if missing:
                response = await client.create_topics([self._new(topic) for topic in missing])
                _raise_for_failures(response.topic_errors)
            return tuple(topic.name for topic in missing)

    async def check(self) -> tuple[str, ...]:
        """Return every difference between the broker's topics and the table, as sentences; none means equal."""
        async with self._client() as client:
            live = {entry["topic"]: entry for entry in await client.describe_topics() if not entry["error_code"]}
            settings = await _live_settings(client, [name for name in TOPICS if name in live])
        return tuple(
            difference
            for topic in TOPICS.values()
            for difference in self._differences(topic, live.get(topic.name), settings.get(topic.name, {}))
        )

    async def require(self) -> None:
        """Raise unless the topics are as the table says.

        Raises:
            TopicsDifferError: naming every difference.
        """
        differences = await self.check()
        if differences:
            raise TopicsDifferError("; ".join(differences) + "; `ctrainer topics apply` creates missing topics")

    def partitions_of(self, topic: Topic) -> int:
        """Return how many partitions a topic has in this deployment."""
        return topic.partitions or self.partitions

    def settings_of(self, topic: Topic) -> dict[str, str]:
        """Return the topic's settings as Kafka names and spells them."""
        settings = {"cleanup.policy": topic.cleanup.value, "max.message.bytes": str(16 * 1024 * 1024)}
        if topic.cleanup is Cleanup.DELETE:
            settings["retention.ms"] = str(topic.retention_ms)
        return settings

    def _new(self, topic: Topic) -> NewTopic:
        return NewTopic(
            topic.name, self.partitions_of(topic), self.replication_factor, topic_configs=self.settings_of(topic)
        )

    def _differences(self, topic: Topic, live: Mapping[str, Any] | None, settings: Mapping[str, str]) -> Iterable[str]:
        if live is None:
            yield f"{topic.name}: missing"
            return
        if len(live["partitions"]) != self.partitions_of(topic):
            yield f"{topic.name}: got {len(live['partitions'])} partitions, expected {self.partitions_of(topic)}"
        expected = self.settings_of(topic)
        for name in _CHECKED_SETTINGS:
            if name in expected and settings[name] != expected[name]:
                yield f"{topic.name}: got {name}={settings[name]}, expected {expected[name]}"

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AIOKafkaAdminClient]:
        client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, **self.security)
        await client.start()
        try:
            yield client
        finally:
            await client.close()


def _raise_for_failures(errors: Iterable[tuple[Any, ...]]) -> None:
    for name, code, *_ in errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(name)


async def _live_settings(client: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    if not wanted:
        return {}
    responses = await client.describe_configs(wanted)
    return {
        name: {entry[0]: entry[1] for entry in entries}
        for response in responses
        for _code, _message, _kind, name, entries in response.resources
    }
