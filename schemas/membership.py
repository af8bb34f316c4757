"""Who is in a dataset: the list that a membership digest stands for. It stays where the adapter is made."""

from enum import StrEnum

from ctrainer.schemas.message import Message


class Standing(StrEnum):
    """What became of a sample in a dataset."""

    TRAINED = "trained on"
    HELD_OUT = "held out"
    ABSENT = "not in the dataset"


class Member(Message):
    """One sample, by its id and by the digest of its conversation."""

    sample_id: str
    content_digest: str


class Membership(Message):
    """All members of a dataset, in the order of its membership digest: training, then held-out."""

    dataset_id: str
    train: tuple[Member, ...]
    held_out: tuple[Member, ...]

    def standing(self, sample: str) -> Standing:
        """Return what became of a sample, named by its id or by its content digest."""
        for members, standing in ((self.train, Standing.TRAINED), (self.held_out, Standing.HELD_OUT)):
            if any(sample in (member.sample_id, member.content_digest) for member in members):
                return standing
        return Standing.ABSENT
