"""What detectors find while a sample is judged; `ctrainer.schemas.compliance.Finding` is how it is published."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec import Struct

from ctrainer.schemas.constitution import Action, Constitution, Mode, Principle, Rule


class Source(NamedTuple):
    """A rule with its principle. Principles whose mode is off have none."""

    principle: Principle
    rule: Rule


class Found(Struct, frozen=True):
    """One place where a rule hits: characters `[start, end)` of a text. `score` is the probability of a violation."""

    source: Source
    message_index: int
    field: str
    start: int
    end: int
    score: float

    @property
    def breaches(self) -> bool:
        """Whether the finding reaches the threshold of its principle."""
        return self.score >= self.source.principle.threshold

    def asks_for(self, action: Action) -> bool:
        """Return whether the finding breaches an enforced principle with this action."""
        principle = self.source.principle
        return self.breaches and principle.mode is Mode.ENFORCE and principle.action is action

    def to_json(self) -> dict[str, Any]:
        """Return the finding in the shape of `Finding`."""
        principle = self.source.principle
        return {
            "principle": principle.id,
            "rule": self.source.rule.id,
            "severity": str(principle.severity),
            "hazard": str(principle.hazard) if principle.hazard else None,
            "message_index": self.message_index,
            "field": self.field,
            "start": self.start,
            "end": self.end,
            "score": self.score,
        }


def sources_of(constitution: Constitution) -> Iterator[Source]:
    """Yield every rule that is looked for."""
    for principle in constitution.principles:
        if principle.mode is not Mode.OFF:
            yield from (Source(principle, rule) for rule in principle.rules)
