"""The guard model that the settings name."""

from collections import Counter
from pathlib import Path

from ctrainer.agents.compliance.guard import Guard, GuardModel, IsAsked
from ctrainer.agents.compliance.guard_memory import RememberingGuard
from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.second_look import SecondLook
from ctrainer.agents.compliance.spoken import Spoken
from ctrainer.agents.compliance.verdicts import VerdictCache
from ctrainer.schemas.constitution import Constitution
from ctrainer.streams.guard.encoder_guard import EncoderGuard
from ctrainer.streams.guard.llama_guard import LlamaGuard
from ctrainer.streams.policy.connection import EngineConnection
from ctrainer.streams.policy.engines import read_authorities, read_token
from ctrainer.streams.settings import Settings, SettingsError
from ctrainer.trainer.sentence_encoder import NoEncoderError, SentenceEncoder

ALWAYS = "always"


def connect_guard(settings: Settings) -> EngineConnection | None:
    """Return connections to the guard model that the settings name, not opened yet; None where none is named."""
    if settings.guard_url is None:
        return None
    return EngineConnection(
        settings.guard_url,
        name="guard model",
        deadline_seconds=settings.guard_deadline_ms / 1000,
        connections=settings.guard_connections,
        token=read_token("CTRAINER_GUARD_TOKEN_FILE", settings.guard_token_file),
        tls=read_authorities("CTRAINER_GUARD_CA_FILE", settings.guard_ca_file),
    )


def guard_model(
    settings: Settings, connection: EngineConnection | None, cache: VerdictCache | None = None
) -> GuardModel | None:
    """Return the guard model behind `connection`, or the one in this process; either remembers what it said.

    Raises:
        SettingsError: the folder of the encoder holds none, or another one.
    """
    if settings.guard_encoder is not None:
        return RememberingGuard(_encoder_guard(settings.guard_encoder), cache=cache)
    if connection is None:
        return None
    model = LlamaGuard(connection, model=settings.guard_model or "", version=settings.guard_version or "")
    return RememberingGuard(model, cache=cache)


def _encoder_guard(folder: Path) -> EncoderGuard:
    look = SecondLook.packaged()
    try:
        encoder = SentenceEncoder.load(folder, digest=look.encoder, adapter=look.adapter)
    except NoEncoderError as error:
        raise SettingsError(f"CTRAINER_GUARD_ENCODER: {error}") from error
    return EncoderGuard(encoder, look, HarmModel.packaged())


def guard_of(
    constitution: Constitution,
    settings: Settings,
    model: GuardModel | None,
    said: Counter[tuple[str, str]] | None = None,
) -> Guard | None:
    """Return the guard under a constitution; None where there is no model."""
    if model is None:
        return None
    return Guard(
        model,
        constitution,
        asks=settings.guard_ask,
        is_asked=_is_asked(settings.guard_ask),
        overrules=settings.guard_encoder is not None,
        unsafe_without=settings.unsafe_judge_without_guard,
        said=said,
    )


def _is_asked(asks: str) -> IsAsked:
    """Return what says from a turn whether the guard model is asked about it.

    Raises:
        SettingsError: the band is empty, or reaches below what the harm score tells.
    """
    if asks == ALWAYS:
        return lambda _: True
    low, high = map(float, asks.split("-"))
    packaged = HarmModel.packaged()
    if not packaged.floor <= low < high:
        expected = f"expected a lower end from {packaged.floor} on and a higher one above it"
        raise SettingsError(f"CTRAINER_GUARD_ASK: got {asks}, {expected}")
    scored = packaged.above(low)
    return lambda turn: low <= max(scored.scores(Spoken.of([turn]))[0].values(), default=0.0) <= high
