"""Has a model that rewrites answers collapsed? What it made lately, against what it was given."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from ctrainer.trainer.answers import distinct_share, is_refusal

WINDOW = 64
"""So many of the latest pairs are looked at."""
LEAST = 24
"""Fewer pairs say nothing."""

Pair: TypeAlias = tuple[str, str]
"""An answer as it was, and what was made of it."""


class Meters(NamedTuple):
    """Two shares between 0 and 1 for the answers as they were and for what was made of them."""

    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapseBounds:
    """When a model has collapsed.

    Its drafts refuse more often than the originals did, by more than `refusals`; or the share of distinct pairs of
    words among accepted revisions is under `diversity` times that of their originals.
    """

    refusals: float = 0.5
    diversity: float = 0.6


@dataclass(frozen=True, slots=True)
class Lately:
    """The latest drafts of the model and the latest accepted revisions, each with its original."""

    drafts: tuple[Pair, ...] = ()
    accepted: tuple[Pair, ...] = ()

    def after(self, *, drafts: Sequence[Pair] = (), accepted: Sequence[Pair] = ()) -> "Lately":
        """Return this with newer ones."""
        return replace(self, drafts=(*self.drafts, *drafts)[-WINDOW:], accepted=(*self.accepted, *accepted)[-WINDOW:])

    def refusals(self) -> Meters:
        """Return the shares of refusals among originals and drafts; zeros where there is no draft."""
        if not self.drafts:
            return Meters(0.0, 0.0)
        before, after = (sum(map(is_refusal, side)) / len(self.drafts) for side in zip(*self.drafts, strict=True))
        return Meters(before, after)

    def diversity(self) -> Meters:
        """Return the shares of distinct pairs of words in originals and accepted revisions; ones where none is."""
        if not self.accepted:
            return Meters(1.0, 1.0)
        before, after = (distinct_share(side, 2) for side in zip(*self.accepted, strict=True))
        return Meters(before, after)

    def refuses_too_much(self, bounds: CollapseBounds) -> bool:
        """Return whether the model has come to refuse."""
        before, after = self.refusals()
        return len(self.drafts) >= LEAST and after - before > bounds.refusals

    def says_the_same(self, bounds: CollapseBounds) -> bool:
        """Return whether accepted revisions have come to be alike."""
        before, after = self.diversity()
        return len(self.accepted) >= LEAST and after < bounds.diversity * before
