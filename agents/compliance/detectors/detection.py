"""What a constitution's rules find in a sample."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version

from ctrainer.agents.compliance.conversation import Tools, Turn
from ctrainer.agents.compliance.detectors.findings import Found, sources_of
from ctrainer.agents.compliance.detectors.patterns import Pattern, PatternScanner
from ctrainer.agents.compliance.segments import Segment, segments
from ctrainer.schemas.constitution import Constitution, Rule

DETECTOR_VERSION = f"patterns-2+phonenumbers-{version('phonenumbers')}"
"""Changes whenever the same rules could find something else in the same text."""


class Detectors:
    """Everything that looks at the text of a sample. Principles whose mode is off are not looked for."""

    version = DETECTOR_VERSION

    def __init__(self, constitution: Constitution) -> None:
        self._sources = tuple(sources_of(constitution))
        self._scanner = PatternScanner([_pattern(source.rule) for source in self._sources])

    def find(self, messages: Sequence[Turn], tools: Tools) -> list[Found]:
        """Return the findings in order of their place. A finding holds no text."""
        texts = segments(messages, tools)
        # One scan for the whole sample: nearly always it says that there is nothing to look for.
        candidates = self._scanner.candidates("\n".join([segment.scannable() for segment in texts]))
        if not candidates:
            return []
        return [found for segment in texts for found in sorted(self._in(segment, candidates), key=_place)]

    def _in(self, segment: Segment, candidates: set[int]) -> Iterator[Found]:
        text = segment.scannable()
        for number in candidates:
            source = self._sources[number]
            for start, end in self._scanner.spans(number, text):
                yield Found(source, segment.message_index, segment.field, start, end, source.rule.score)


def _pattern(rule: Rule) -> Pattern:
    return Pattern(text=rule.pattern, ignore_case=rule.ignore_case, validator=rule.validator, allow=rule.allow)


def _place(found: Found) -> tuple[int, int, str]:
    return found.start, found.end, found.source.rule.id
