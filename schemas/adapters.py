"""The registry of adapters."""

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.message import Message
from ctrainer.schemas.privacy import PrivacyGuarantee
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
    membership_digest: str
    steps: int
    guarantee: PrivacyGuarantee
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
