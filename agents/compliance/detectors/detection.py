"""What a constitution's rules find in a sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from ctrainer.agents.compliance.detectors.patterns import PatternScanner
from ctrainer.agents.compliance.segments import Segment, segments
from ctrainer.schemas.compliance import Finding
from ctrainer.schemas.constitution import Constitution, Mode, Principle, Rule
from ctrainer.schemas.samples import ChatMessage

DETECTOR_VERSION = f"patterns-1+phonenumbers-{version('phonenumbers')}"
"""Changes whenever the same rules could find something else in the same text."""


@dataclass(frozen=True, slots=True)
class _Source:
    principle: Principle
    rule: Rule


class Detectors:
    """Everything that looks at the text of a sample. Principles whose mode is off are not looked for."""

    version = DETECTOR_VERSION

    def __init__(self, constitution: Constitution) -> None:
        awake = [principle for principle in constitution.principles if principle.mode is not Mode.OFF]
        self._sources = tuple(_Source(principle, rule) for principle in awake for rule in principle.rules)
        self._scanner = PatternScanner([source.rule for source in self._sources])

    def find(self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]]) -> tuple[Finding, ...]:
        """Return the findings in order of their place. A finding holds no text."""
        return tuple(
            _finding(self._sources[span.rule], segment, span.start, span.end)
            for segment in segments(messages, tools)
            for span in self._scanner.scan(segment.scannable())
        )


def _finding(source: _Source, segment: Segment, start: int, end: int) -> Finding:
    principle = source.principle
    return Finding(
        principle=principle.id,
        rule=source.rule.id,
        severity=principle.severity,
        hazard=principle.hazard,
        message_index=segment.message_index,
        field=segment.field,
        start=start,
        end=end,
        score=source.rule.score,
    )
