"""Apache Kafka and Redis on one machine, for the demo, the tests and small deployments."""

from ctrainer.streams.embedded.services import Services, Way, addresses, down, status, up

__all__ = ["Services", "Way", "addresses", "down", "status", "up"]
