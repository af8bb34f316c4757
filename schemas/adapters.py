"""The registry of adapters."""

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.message import Message
from ctrainer.schemas.privacy import PrivacyGuarantee


class AdapterPublished(Message):
    """An adapter is ready for use. `digest` covers every file of the folder at `path`."""

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
