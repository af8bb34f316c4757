"""The policy engine that the settings name."""

import re
from collections import Counter
from pathlib import Path
from ssl import SSLContext, create_default_context

from ctrainer.agents.compliance.policy import PolicyEngine, RegorusEngine, bundle_of
from ctrainer.schemas.constitution import Constitution
from ctrainer.streams.policy.acgs import AcgsEngine, as_called, as_served
from ctrainer.streams.policy.connection import EngineConnection
from ctrainer.streams.policy.layers import LayeredEngine
from ctrainer.streams.policy.opa import OpaEngine
from ctrainer.streams.settings import PolicyContract, Settings, SettingsError

_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")


def connect(settings: Settings) -> EngineConnection | None:
    """Return connections to the engine that the settings name, not opened yet; None where none is named."""
    if settings.policy_url is None:
        return None
    return EngineConnection(
        settings.policy_url,
        deadline_seconds=settings.policy_deadline_ms / 1000,
        connections=settings.policy_connections,
        token=read_token("CTRAINER_POLICY_TOKEN_FILE", settings.policy_token_file),
        tls=read_authorities("CTRAINER_POLICY_CA_FILE", settings.policy_ca_file),
    )


def engine_of(
    constitution: Constitution, settings: Settings, connection: EngineConnection | None, layers: Counter[str]
) -> PolicyEngine:
    """Return what decides under a constitution: the engine behind `connection`, with the one in process behind it.

    `layers` counts what became of asking both.
    """
    bundle = bundle_of(constitution)
    local = RegorusEngine(bundle)
    if connection is None:
        return local
    if settings.policy_contract is PolicyContract.OPA:
        return LayeredEngine(OpaEngine(connection, revision=bundle.revision), local, layers)
    is_served = settings.policy_contract is PolicyContract.ACGS
    return AcgsEngine(
        connection,
        path="/v1/evaluate" if is_served else "/api/v1/evaluate",
        question=as_served if is_served else as_called,
        governance_hash=settings.governance_hash,
        local=local,
    )


def read_authorities(key: str, path: Path | None) -> SSLContext | None:
    """Return trust in the authorities alone that the file holds which the setting `key` names; None for no file.

    Raises:
        SettingsError: there are none in it.
    """
    if path is None:
        return None
    try:
        return create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"{key}: {path}: got {error}, expected certificates in PEM") from error


def read_token(key: str, path: Path | None) -> str | None:
    """Return the bearer token in the file that the setting `key` names, or None where it names none.

    Raises:
        SettingsError: there is no token in it.
    """
    if path is None:
        return None
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"{key}: {path}: {error}") from error
    if not _TOKEN.fullmatch(token):
        expected = "expected letters, digits and -._~+/ with = at the end (RFC 6750)"
        raise SettingsError(f"{key}: {path}: got no token, {expected}")
    return token.decode()
