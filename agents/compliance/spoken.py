"""Turns as they are looked at together: who said what, and the words of it, found once for all who ask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from ctrainer.agents.compliance.conversation import StrictRole
from ctrainer.agents.compliance.words import Words, words_of

SpokenTurn: TypeAlias = tuple[StrictRole, str]
"""Who said what."""
Turns: TypeAlias = Sequence[SpokenTurn]
MOST_CHARACTERS = 131_072
"""So much text is looked at together: enough to find the tables of weights in a core's cache again."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Some turns: the role and the text of each, and the words of the texts."""

    roles: Sequence[StrictRole]
    texts: Sequence[str]
    words: Words

    @classmethod
    def of(cls, turns: Turns) -> Self:
        """Return turns with their words."""
        texts = [text for _, text in turns]
        return cls([role for role, _ in turns], texts, words_of(texts))


def portions(turns: Turns) -> Iterator[Spoken]:
    """Yield all turns in order, so many at a time that their text stays below `MOST_CHARACTERS` or is one turn's.

    >>> [len(portion.texts) for portion in portions([("user", "a" * 80_000)] * 3 + [("user", "b")])]
    [1, 1, 2]
    """
    start, size = 0, 0
    for number, (_, text) in enumerate(turns):
        if size and size + len(text) > MOST_CHARACTERS:
            yield Spoken.of(turns[start:number])
            start, size = number, 0
        size += len(text)
    if start < len(turns):
        yield Spoken.of(turns[start:])
