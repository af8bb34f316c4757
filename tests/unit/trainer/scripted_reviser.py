"""A reviser for tests that says what it was told to."""

from collections.abc import Sequence

from ctrainer.trainer.revision import Draft, Rewriting


class Scripted:
    """A model that says what it was told to, one list for each call."""

    name = "scripted"

    def __init__(self, *said: Sequence[str | Rewriting], similarity: float = 0.9) -> None:
        self.said = list(said)
        self.similarity = similarity
        self.asked: list[list[Draft]] = []

    async def rewrite(self, drafts: Sequence[Draft]) -> list[Rewriting]:
        self.asked.append(list(drafts))
        if not self.said:
            raise AssertionError("asked more often than the script knows")
        return [one if isinstance(one, Rewriting) else Rewriting(one) for one in self.said.pop(0)]

    async def similarities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [self.similarity for _ in pairs]
