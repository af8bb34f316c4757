"""How every Kafka client of this process authenticates and encrypts."""

import ssl
from collections.abc import Mapping
from typing import Any

from ctrainer.streams.settings import SecurityProtocol, Settings


def client_security(settings: Settings) -> Mapping[str, Any]:
    """Return the keyword arguments that aiokafka's clients take for authentication and encryption."""
    protocol = settings.kafka_security_protocol
    arguments: dict[str, Any] = {"security_protocol": protocol.value}
    if protocol in {SecurityProtocol.SSL, SecurityProtocol.SASL_SSL}:
        arguments["ssl_context"] = _ssl_context(settings)
    if protocol in {SecurityProtocol.SASL_SSL, SecurityProtocol.SASL_PLAINTEXT}:
        password = settings.kafka_sasl_password
        arguments["sasl_mechanism"] = settings.kafka_sasl_mechanism
        arguments["sasl_plain_username"] = settings.kafka_sasl_username
        arguments["sasl_plain_password"] = password.get_secret_value() if password else None
    return arguments


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    cafile = settings.kafka_ssl_cafile
    context = ssl.create_default_context(cafile=str(cafile) if cafile else None)
    if settings.kafka_ssl_certfile:
        context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
    return context
