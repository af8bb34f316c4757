"""Turns as they are looked at together: who said what, and the words of it, found once for all who ask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
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


def portions(
    roles: Sequence[StrictRole], texts: Sequence[str], known: Sequence[bytes | None] | None = None
) -> Iterator[Spoken]:
    """Yield all turns in order, so many at a time that their text stays below `MOST_CHARACTERS` or is one turn's.

    `known` is as `words_of` has it.

    >>> [len(portion.texts) for portion in portions(["user"] * 4, ["a" * 80_000] * 3 + ["b"])]
    [1, 1, 2]
    """
    for start, end in pairwise([0, *_ends(texts)]):
        some = texts[start:end]
        yield Spoken(roles[start:end], some, words_of(some, None if known is None else known[start:end]))


def _ends(texts: Sequence[str]) -> Iterator[int]:
    size = 0
    if sum(map(len, texts)) > MOST_CHARACTERS:
        for number, length in enumerate(map(len, texts)):
            if size and size + length > MOST_CHARACTERS:
                yield number
                size = 0
            size += length
    if texts:
        yield len(texts)
