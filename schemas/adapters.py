"""The registry of adapters."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.message import Message
from ctrainer.schemas.privacy import NoGuarantee, PrivacyGuarantee
from ctrainer.schemas.receipt import SignedStatement
from ctrainer.schemas.release import ReleaseVerdict


class AdapterPublished(Message):
    """An adapter passed the release gate. `digest` covers every file of the folder at `path`; `receipt` proves it."""

    adapter_id: str
    session_id: str
    tenant: str
    path: str
    digest: str
    base_model: str
    dataset_id: str
    workloads: tuple[str, ...]
    membership_digest: str
    steps: int
    guarantee: PrivacyGuarantee | NoGuarantee
    constitution: ConstitutionReference
    code_version: str
    release: ReleaseVerdict
    receipt: SignedStatement


class AdapterRejected(Message):
    """The release gate refused an adapter: it stays in quarantine, and its privacy spend stays spent."""

    adapter_id: str
    session_id: str
    tenant: str
    digest: str
    base_model: str
    dataset_id: str
    steps: int
    release: ReleaseVerdict


class ReleaseChange(StrEnum):
    """What happened to the release of a workload."""

    PROMOTED = "promoted"
    CANARY_STARTED = "canary-started"
    CANARY_ENDED = "canary-ended"
    ROLLED_BACK = "rolled-back"


class Canary(Message):
    """An adapter that answers a share of the requests."""

    adapter_id: str
    share: Annotated[float, Field(gt=0, lt=1)]


class AdapterReleased(Message):
    """Which adapters a workload's requests go to; the newest one of a workload counts.

    `current` answers whatever the `canary` does not; without it the base model does. `former` are the adapters that
    were current before, newest last. `answered` are the newest requests: one that is repeated changes nothing.
    """

    tenant: str
    workload: str
    change: ReleaseChange
    current: str | None
    canary: Canary | None
    former: tuple[str, ...]
    answered: tuple[UUID, ...]
    signed_by: str
