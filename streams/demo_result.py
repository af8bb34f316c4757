"""What a run of the demo ends with: numbers that must balance, and where to look next."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import orjson
from pydantic import Field

from ctrainer.schemas.adapters import AdapterPublished
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.message import Message
from ctrainer.schemas.privacy import NoGuarantee
from ctrainer.schemas.training import SessionAdvanced
from ctrainer.streams.adapter_files import beside


class SampleCounts(Message):
    """in = accepted + redacted + rejected + dead, always; `duplicates` are those dropped from the dataset."""

    received: int = Field(serialization_alias="in")
    accepted: int
    redacted: int
    rejected: int
    dead: int
    duplicates: int

    @property
    def balanced(self) -> bool:
        """Whether every sample that went in came out exactly once."""
        return self.received == self.accepted + self.redacted + self.rejected + self.dead


class SessionSummary(Message):
    """How the training session ended and what it cost."""

    id: str
    status: str
    steps: int
    epsilon: float
    delta: float
    unit: str
    adjacency: str


class AdapterSummary(Message):
    """Where the adapter and its receipt are, the digest over its files, and whose signature on them was verified."""

    path: str
    digest: str
    receipt: str
    signed_by: str


class Perplexity(Message):
    """Perplexity on the held-out split. Local only: computed from private data without noise."""

    base: float
    adapted: float


class DemoResult(Message):
    """The last line of `ctrainer demo --json`."""

    samples: SampleCounts
    session: SessionSummary
    adapter: AdapterSummary
    perplexity: Perplexity

    @classmethod
    def build(
        cls, *, samples: SampleCounts, final: SessionAdvanced, adapter: AdapterPublished, signed_by: str
    ) -> "DemoResult":
        """Put the result together from the last events and the evaluation beside the adapter."""
        guarantee = adapter.guarantee
        if isinstance(guarantee, NoGuarantee):
            raise ConstitutionalTrainerError("the adapter of the demo promises no privacy, expected an epsilon")
        return cls(
            samples=samples,
            session=SessionSummary(
                id=final.session_id,
                status=final.state.value,
                steps=final.step,
                epsilon=guarantee.epsilon,
                delta=guarantee.delta,
                unit=guarantee.unit.value,
                adjacency=guarantee.adjacency.value,
            ),
            adapter=AdapterSummary(
                path=adapter.path,
                digest=adapter.digest,
                receipt=str(beside(Path(adapter.path), "receipt")),
                signed_by=signed_by,
            ),
            perplexity=read_perplexity(Path(adapter.path)),
        )


def count_outcomes(outcomes: Iterable[str], *, sent: int, duplicates: int) -> SampleCounts:
    """Count outcomes, each `accept`, `redact`, `reject` or `dead`, of `sent` samples."""
    counts = Counter(outcomes)
    return SampleCounts(
        received=sent,
        accepted=counts["accept"],
        redacted=counts["redact"],
        rejected=counts["reject"],
        dead=counts["dead"],
        duplicates=duplicates,
    )


def read_perplexity(adapter: Path) -> Perplexity:
    """Read the perplexities that the session kept beside its adapter's folder."""
    evaluation = orjson.loads(beside(adapter, "evaluation").read_bytes())
    return Perplexity(base=evaluation["perplexity"]["base"], adapted=evaluation["perplexity"]["adapted"])
