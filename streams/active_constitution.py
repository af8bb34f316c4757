"""The constitution of this deployment, checked against what the settings say it must be."""

from ctrainer.agents.compliance.loading import ConstitutionError, default_constitution, load_constitution
from ctrainer.agents.events import read_event
from ctrainer.agents.records import Record
from ctrainer.agents.world import Topics
from ctrainer.schemas.constitution import Constitution, ConstitutionUpdated
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.envelope import event_type
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.topics import CONSTITUTION_EVENTS, CONSTITUTION_UPDATES
from ctrainer.streams.settings import Settings, SettingsError

_UPDATED = event_type(ConstitutionUpdated).encode()


class WrongConstitutionError(ConstitutionalTrainerError):
    """The document is not the one that the settings name."""


def read_constitution(settings: Settings) -> Constitution:
    """Return the constitution the settings name; none named is the packaged one.

    Raises:
        ConstitutionError: the document has faults.
        WrongConstitutionError: its digest or governance hash is not the configured one.
    """
    constitution = _read(settings)
    reference = constitution.reference()
    if settings.constitution_digest not in {None, reference.digest}:
        raise WrongConstitutionError(
            f"CTRAINER_CONSTITUTION_DIGEST: got {settings.constitution_digest}, the document has {reference.digest}; "
            "configure the digest of the document that was approved"
        )
    if reference.hash != settings.governance_hash:
        raise WrongConstitutionError(
            f"governance hash: the document names {reference.hash}, the settings {settings.governance_hash}"
        )
    return constitution


def constitution_reference(settings: Settings) -> ConstitutionReference:
    """Return hash and digest of the constitution the settings name."""
    return read_constitution(settings).reference()


async def reference_in_force(settings: Settings, topics: Topics) -> ConstitutionReference:
    """Return hash and digest of the constitution that was enacted last; before the first, of the one settings name."""
    reference = constitution_reference(settings)
    if settings.constitution_digest is not None:
        return reference
    async for record in topics.read_topic(CONSTITUTION_EVENTS):
        if record.value is not None and _UPDATED in record.value:
            reference = read_event(record.value, ConstitutionUpdated).constitution or reference
    return reference


async def constitution_of(reference: ConstitutionReference, settings: Settings, topics: Topics) -> Constitution:
    """Return the document of a reference: that of the settings, or one of `constitution.updates`.

    Raises:
        WrongConstitutionError: it is neither.
    """
    constitution = read_constitution(settings)
    if constitution.reference() == reference:
        return constitution
    async for record in topics.read_topic(CONSTITUTION_UPDATES):
        found = _document(record, settings)
        if found is not None and found.reference() == reference:
            return found
    raise WrongConstitutionError(
        f"constitution {reference.digest} is in force, and neither the settings nor {CONSTITUTION_UPDATES} have it"
    )


def _document(record: Record, settings: Settings) -> Constitution | None:
    """Return the constitution of a record; its digest says whether it is the right one, whoever signed it."""
    try:
        return load_constitution((record.value or b"").decode(), governance_hash=settings.governance_hash)
    except (ConstitutionError, UnicodeDecodeError):
        return None


def _read(settings: Settings) -> Constitution:
    if settings.constitution is None:
        return default_constitution()
    try:
        text = settings.constitution.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"CTRAINER_CONSTITUTION: {settings.constitution}: {error}") from error
    return load_constitution(text, governance_hash=settings.governance_hash)
