"""Apache Kafka and Redis on one machine, for the demo, the tests and small deployments."""

from ctrainer.streams.embedded.services import Services, down, status, up

__all__ = ["Services", "down", "status", "up"]
