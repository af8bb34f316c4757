"""Where Kafka and Redis are: given by the settings, else the embedded ones of the state folder."""

from dataclasses import dataclass

from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.streams import embedded
from ctrainer.streams.settings import Settings


class NoServicesError(ConstitutionalTrainerError):
    """No Kafka is given and none runs from the state folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Addresses of the services that this process uses. Without Redis, verdicts are not shared between workers."""

    bootstrap_servers: str
    redis_url: str | None


def locate(settings: Settings) -> Location:
    """Return where the services are.

    Raises:
        NoServicesError: Kafka is neither given nor embedded here.
    """
    servers, redis_url = embedded.addresses(state_folder=settings.state_folder)
    bootstrap_servers = settings.kafka_bootstrap_servers or servers
    if bootstrap_servers is None:
        raise NoServicesError(
            f"no Kafka: KAFKA_BOOTSTRAP_SERVERS is not set and none runs from {settings.state_folder}; "
            "`ctrainer services up` starts one"
        )
    return Location(bootstrap_servers=bootstrap_servers, redis_url=settings.redis_url or redis_url)
