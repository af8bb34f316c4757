"""How many records one forward and backward pass takes: on a CPU few, on a GPU as many as fill it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """At most `records` records, and at most `tokens` tokens with padding, but always one record."""

    records: int
    tokens: int | None = None

    def most(self, longest: int) -> int:
        """Return how many records whose longest has so many tokens may be together.

        >>> MicroBatch(32, tokens=8_192).most(1_024), MicroBatch(32, tokens=8_192).most(100)
        (8, 32)
        """
        return self.records if self.tokens is None else min(self.records, max(1, self.tokens // longest))

    def halved(self, failed: int) -> "MicroBatch":
        """Return what is left when `failed` records did not fit into memory."""
        return MicroBatch(-(-failed // 2), self.tokens)


CPU_MICRO_BATCH = MicroBatch(6)
GPU_MICRO_BATCH = MicroBatch(32, tokens=8_192)
