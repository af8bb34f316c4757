from dataclasses import dataclass

from ctrainer.trainer.admission import Room


@dataclass(slots=True)
class FixedMemory:
    """A device whose memory the test says."""

    now: Room | None

    def room(self) -> Room | None:
        return self.now
