"""Every setting, read once from a mapping that is an argument. Nobody else reads the environment."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.trainer.models import DEFAULT_MODEL


class SettingsError(ConstitutionalTrainerError):
    """A setting is wrong. The message names its key, its value and what would be right."""


_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class SecurityProtocol(StrEnum):
    """How clients talk to Kafka."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_SSL = "SASL_SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"


class PolicyContract(StrEnum):
    """What a policy engine speaks: OPA's data API, or one of the two evaluation APIs of ACGS."""

    OPA = "opa"
    ACGS = "acgs"
    ACGS_API = "acgs-api"


def _key(name: str) -> str:
    return name.upper() if name in {"kafka_bootstrap_servers", "redis_url"} else f"CTRAINER_{name.upper()}"


def _path(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) else value


Folder = Annotated[Path, BeforeValidator(_path)]


def _place(url: str) -> str:
    place = urlsplit(url)
    if place.username is not None or place.query or place.fragment or not place.hostname or place.port == 0:
        raise ValueError("a host, perhaps a port and a path, and nothing else")
    place.hostname.encode("idna")
    return url


EngineUrl = Annotated[str, Field(pattern=r"^https?://[!-~]+$"), AfterValidator(_place)]
"""Where questions are posted to. A password in it would be shown by whatever shows the settings."""


class Settings(BaseModel):
    """The settings of one process.

    A field `web_port` is set by the key `CTRAINER_WEB_PORT`; the two services keep the names everyone uses:
    `KAFKA_BOOTSTRAP_SERVERS` and `REDIS_URL`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka_bootstrap_servers: str | None = Field(default=None, description="host:port of one or more Kafka brokers")
    redis_url: str | None = Field(default=None, description="redis://host:port/db of the shared verdict cache")
    cache_key_file: Folder | None = Field(
        default=None,
        description="a file with 32 bytes or more that all workers have alike, which seal what they share in Redis",
    )
    cache_folder: Folder = Field(description="where resolved brokers and converted models are kept")
    state_folder: Folder = Field(description="where embedded services, keys, checkpoints and adapters live")

    application: str = Field(
        default="ctrainer",
        pattern=r"^[a-zA-Z0-9._-]{1,100}$",
        description="prefix of every consumer group and transactional id: letters, digits and . _ -",
    )
    partitions: int = Field(default=4, ge=1, le=10_000, description="partitions of topics that scale: 1 to 10000")
    replication_factor: int = Field(default=1, ge=1, le=10, description="copies of each partition: 1 to 10")
    session_timeout_ms: int = Field(
        default=10_000,
        ge=1_000,
        le=300_000,
        description="milliseconds after which a silent worker loses its partitions",
    )
    batch_records: int = Field(default=1_000, ge=1, le=100_000, description="most records of one transaction")

    constitution: Folder | None = Field(default=None, description="a constitution document; none is the packaged one")
    constitution_digest: str | None = Field(
        default=None, pattern=r"^sha256:[0-9a-f]{64}$", description="the digest the constitution must have"
    )
    governance_hash: str = Field(default=GOVERNANCE_HASH, description="the governance hash the constitution must name")

    policy_url: EngineUrl | None = Field(
        default=None, description="http(s)://host:port of a policy engine; none decides in process"
    )
    policy_contract: PolicyContract = Field(default=PolicyContract.OPA, description=", ".join(PolicyContract))
    policy_deadline_ms: int = Field(
        default=1_000, ge=10, le=60_000, description="milliseconds a policy engine may take"
    )
    policy_connections: int = Field(default=8, ge=1, le=256, description="most requests to a policy engine at a time")
    policy_token_file: Folder | None = Field(default=None, description="a file with the bearer token of the engine")
    policy_ca_file: Folder | None = Field(
        default=None, description="a PEM file of the only authorities the engine's certificate may be from"
    )

    guard_url: EngineUrl | None = Field(
        default=None,
        description="http(s)://host:port of a guard model with an OpenAI-compatible API; none asks no model",
    )
    guard_model: str | None = Field(default=None, description="the name under which the guard model is served")
    guard_version: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._:-]{1,100}$",
        description="the version of the guard model's weights: letters, digits and . _ : -",
    )
    guard_encoder: Folder | None = Field(
        default=None,
        description="the folder of the sentence encoder that looks a second time, all-mpnet-base-v2; none does without",
    )
    guard_ask: str = Field(
        default="always",
        pattern=r"^(always|0?\.\d{1,6}-0?\.\d{1,6})$",
        description="always, or the harm scores between which the guard model is asked, such as 0.2-0.8",
    )
    guard_deadline_ms: int = Field(default=5_000, ge=10, le=60_000, description="milliseconds the guard model may take")
    guard_connections: int = Field(default=8, ge=1, le=256, description="most requests to the guard model at a time")
    guard_token_file: Folder | None = Field(default=None, description="a file with the bearer token of the guard model")
    guard_ca_file: Folder | None = Field(
        default=None, description="a PEM file of the only authorities the guard model's certificate may be from"
    )
    unsafe_judge_without_guard: bool = Field(
        default=False, description="true lets the harm score judge alone while the guard model is out of reach"
    )

    revision_model: str = Field(
        default=DEFAULT_MODEL,
        min_length=1,
        description=f"the model that rewrites answers: {DEFAULT_MODEL}, a folder, or a hub name",
    )

    requesters: Folder | None = Field(default=None, description="a keyring file of who may send training commands")
    receipt_key: Folder | None = Field(
        default=None, description="a private key file that trainers sign receipts with; none leaves them unsigned"
    )
    unsafe_accept_unsigned: bool = Field(default=False, description="true lets anyone who can produce start training")
    unsafe_allow_seeded_noise: bool = Field(default=False, description="true lets requests ask for predictable noise")
    unsafe_allow_non_private: bool = Field(
        default=False, description="true lets requests ask for training without any privacy"
    )

    web_port: int = Field(default=8010, ge=0, le=65_535, description="a TCP port; 0 switches the pages off")
    web_host: str = Field(default="127.0.0.1", description="the address the pages listen on")

    kafka_security_protocol: SecurityProtocol = Field(
        default=SecurityProtocol.PLAINTEXT, description=", ".join(SecurityProtocol)
    )
    kafka_sasl_mechanism: str = Field(
        default="SCRAM-SHA-512", pattern=r"^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$", description="PLAIN or SCRAM-SHA-*"
    )
    kafka_sasl_username: str | None = Field(default=None, description="the SASL user")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="the SASL password")
    kafka_ssl_cafile: Folder | None = Field(default=None, description="a PEM file of trusted authorities")
    kafka_ssl_certfile: Folder | None = Field(default=None, description="a PEM file with the client certificate")
    kafka_ssl_keyfile: Folder | None = Field(default=None, description="a PEM file with the client key")
    unsafe_kafka_plaintext_password: bool = Field(
        default=False, description="true lets SASL_PLAINTEXT send a password without encryption"
    )

    @model_validator(mode="after")
    def _password_is_not_sent_in_clear(self) -> Self:
        clear = self.kafka_security_protocol is SecurityProtocol.SASL_PLAINTEXT
        if clear and not self.unsafe_kafka_plaintext_password:
            raise ValueError("SASL_PLAINTEXT needs CTRAINER_UNSAFE_KAFKA_PLAINTEXT_PASSWORD=true; better is SASL_SSL")
        return self

    @model_validator(mode="after")
    def _token_is_not_sent_in_clear(self) -> Self:
        tokens = {"POLICY": (self.policy_url, self.policy_token_file), "GUARD": (self.guard_url, self.guard_token_file)}
        for name, (url, token_file) in tokens.items():
            place = urlsplit(url or "")
            if token_file is not None and place.scheme == "http" and place.hostname not in _LOOPBACK:
                raise ValueError(f"CTRAINER_{name}_TOKEN_FILE: a token goes over https or to this machine only")
        return self

    @model_validator(mode="after")
    def _guard_is_named(self) -> Self:
        if self.guard_url is not None and (self.guard_model is None or self.guard_version is None):
            raise ValueError(
                "CTRAINER_GUARD_URL: needs CTRAINER_GUARD_MODEL and CTRAINER_GUARD_VERSION, so that no answer of other "
                "weights is taken for one of these"
            )
        return self

    @model_validator(mode="after")
    def _guard_is_one(self) -> Self:
        if self.guard_url is not None and self.guard_encoder is not None:
            raise ValueError("CTRAINER_GUARD_ENCODER: got a URL as well, expected either CTRAINER_GUARD_URL or this")
        return self

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:  # noqa: TID251 - the one reader of the environment
        """Read the settings from environment variables.

        Raises:
            SettingsError: naming each wrong or unknown key, its value and what would be right.
        """
        fields = {_key(name): name for name in cls.model_fields}
        unknown = sorted(key for key in environment if key.startswith("CTRAINER_") and key not in fields)
        if unknown:
            raise SettingsError(f"unknown settings: {', '.join(unknown)}; known are: {', '.join(sorted(fields))}")
        values: dict[str, object] = {name: environment[key] for key, name in fields.items() if environment.get(key)}
        try:
            return cls(**{**_default_folders(environment), **values})
        except ValidationError as error:
            raise SettingsError(_faults(cls, error)) from error

    def environment(self, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:  # noqa: TID251 - for children
        """Return the environment for a child process that shall have these settings."""
        kept = {key: value for key, value in inherited.items() if not key.startswith("CTRAINER_")}
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return kept | {_key(name): _spelt(value) for name, value in values.items() if value is not None}

    def unsafe(self) -> tuple[str, ...]:
        """Return the names of the settings in force that weaken a guarantee."""
        return tuple(name for name in type(self).model_fields if name.startswith("unsafe_") and getattr(self, name))

    def group(self, stage: str) -> str:
        """Return the consumer group of a stage."""
        return f"{self.application}-{stage}"


def _spelt(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _default_folders(environment: Mapping[str, str]) -> dict[str, object]:
    home = Path(environment.get("HOME", "~")).expanduser()
    cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    state = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state")
    return {"cache_folder": cache / "ctrainer", "state_folder": state / "ctrainer"}


def _faults(settings: type[Settings], error: ValidationError) -> str:
    return "\n".join(_fault(settings, fault["loc"], fault["input"], fault["msg"]) for fault in error.errors())


def _fault(settings: type[Settings], location: tuple[int | str, ...], value: object, message: str) -> str:
    if not location:
        return message.removeprefix("Value error, ")
    name = str(location[0])
    is_secret = "password" in name or (name.endswith("_url") and "@" in str(value))
    shown = "(hidden)" if is_secret else repr(value)
    return f"{_key(name)}: got {shown}, expected {settings.model_fields[name].description} ({message})"
