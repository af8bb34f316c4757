"""Sealed datasets: frozen offset ranges that anyone can read again and check."""

from pydantic import Field, model_validator

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.message import Message


class OffsetRange(Message):
    """Offsets `[start, end)` of one partition."""

    topic: str
    partition: int = Field(ge=0)
    start: int = Field(ge=0)
    end: int = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "OffsetRange":
        if self.end < self.start:
            raise ValueError("end lies before start")
        return self


class SelectionRules(Message):
    """How members are chosen from the ranges: a pure function of the records and of these rules."""

    max_records_per_user: int = Field(default=16, ge=1)
    held_out_share: float = Field(default=0.1, ge=0.0, le=0.5)


class DatasetCounts(Message):
    """`read` = `duplicates` + `over_user_cap` + `train` + `held_out`, always.

    Of `train`, `users` counts the users and `without_user` the records that name none: a user cannot be hidden where it
    is not known which records are whose.
    """

    read: int
    duplicates: int
    over_user_cap: int
    train: int
    held_out: int
    users: int = 0
    without_user: int = 0


class DatasetSealed(Message):
    """The manifest of a dataset. `dataset_id` is the digest of everything else in it.

    Members are the samples of these workloads in the ranges with a timestamp of at least `accepted_since`, as the rules
    select them. `membership_digest` is a Merkle root over the members' content digests in order: train, then held-out.
    """

    dataset_id: str
    tenant: str
    workloads: tuple[str, ...]
    ranges: tuple[OffsetRange, ...]
    accepted_since: int | None
    rules: SelectionRules
    counts: DatasetCounts
    membership_digest: str
    constitutions: tuple[ConstitutionReference, ...]
    sealed_because: str
