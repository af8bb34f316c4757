"""The Faust app: lifecycle, supervision and agents. It has no Kafka of its own: sources bring the batches."""

import faust
from faust.app.base import BootStrategy


class WithoutKafka(BootStrategy):
    """Boots agents, services and timers, and no Faust consumer: that one acknowledges what failed."""

    enable_kafka = False
    enable_kafka_consumer = False
    enable_kafka_producer = False
    enable_web = False


class Application(faust.App):
    """A Faust app whose agents listen on in-memory channels."""

    BootStrategy = WithoutKafka

    async def on_started(self) -> None:
        """Let the channels flow: without a consumer nobody else ever opens them."""
        self.flow_control.resume()
        await super().on_started()

    def _create_directories(self) -> None:
        """Make none: no table is kept here, and the working directory may be read-only."""


def create_application(name: str) -> faust.App:
    """Return an app that is not started and knows no agent yet."""
    return Application(name, broker="kafka://", store="memory://", autodiscover=False, web_enabled=False)
