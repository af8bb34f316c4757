"""Which constitution something was decided under."""

from ctrainer.schemas.message import Message

GOVERNANCE_HASH = "cdd01ef066bc6cf2"
"""The declared identifier of the governance regime. It names, it does not prove: the digest proves."""


class ConstitutionReference(Message):
    """The declared governance hash together with the digest of the constitution's canonical bytes."""

    hash: str
    digest: str
