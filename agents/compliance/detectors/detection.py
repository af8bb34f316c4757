"""What a constitution's rules find in a sample."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Protocol

from ctrainer.agents.compliance.conversation import Tools, Turn
from ctrainer.agents.compliance.detectors.findings import Found, Source, sources_of
from ctrainer.agents.compliance.detectors.names import HARM_SCORE, UNCOVERED_LANGUAGE
from ctrainer.agents.compliance.detectors.patterns import Pattern, PatternScanner
from ctrainer.agents.compliance.segments import CONTENT, Segment, segments
from ctrainer.schemas.constitution import Constitution, Rule

PATTERNS_VERSION = f"patterns-2+phonenumbers-{version('phonenumbers')}"
"""Changes whenever the same rules could find something else in the same text."""


class HarmScorer(Protocol):
    """A model that says how probable it is that a text does harm."""

    version: str

    def scores(self, text: str) -> Mapping[str, float]:
        """Return the calibrated probability by hazard code; hazards that are not worth mention are left out."""
        ...


class Detectors:
    """Everything that looks at the text of a sample. Principles whose mode is off are not looked for."""

    def __init__(self, constitution: Constitution, *, harm: HarmScorer, is_covered: Callable[[str], bool]) -> None:
        self.version = f"{PATTERNS_VERSION}+harm-{harm.version}"
        sources = tuple(sources_of(constitution))
        self._patterned = tuple(source for source in sources if source.rule.pattern is not None)
        self._scanner = PatternScanner([_pattern(source.rule) for source in self._patterned])
        self._scored = {str(source.principle.hazard): source for source in sources if _is(source, HARM_SCORE)}
        self._language = next((source for source in sources if _is(source, UNCOVERED_LANGUAGE)), None)
        self._harm = harm
        self._is_covered = is_covered

    def find(self, messages: Sequence[Turn], tools: Tools) -> list[Found]:
        """Return the findings in order of their place. A finding holds no text."""
        texts = segments(messages, tools)
        # One scan for the whole sample: nearly always it says that there is nothing to look for.
        candidates = self._scanner.candidates("\n".join([segment.scannable() for segment in texts]))
        found: list[Found] = []
        for segment in texts:
            role = messages[segment.message_index]["role"]
            if candidates:
                found += sorted(self._spans(segment, role, candidates), key=_place)
            if role != "system" and segment.field == CONTENT:
                found += self._said(segment)
        return found

    def _spans(self, segment: Segment, role: str, candidates: set[int]) -> Iterator[Found]:
        text = segment.scannable()
        for number in candidates:
            source = self._patterned[number]
            if not source.rule.roles or role in source.rule.roles:
                for start, end in self._scanner.spans(number, text):
                    yield Found(source, segment.message_index, segment.field, start, end, source.rule.score)

    def _said(self, segment: Segment) -> Iterator[Found]:
        """Yield what is wrong with a text as a whole."""
        text, index = segment.text, segment.message_index
        if self._language is not None and not self._is_covered(text):
            yield Found(self._language, index, CONTENT, 0, len(text), self._language.rule.score)
        if self._scored:
            for hazard, probability in self._harm.scores(text).items():
                source = self._scored.get(hazard)
                if source is not None:
                    yield Found(source, index, CONTENT, 0, len(text), round(probability, 2))


def _pattern(rule: Rule) -> Pattern:
    return Pattern(text=rule.pattern or "", ignore_case=rule.ignore_case, validator=rule.validator, allow=rule.allow)


def _is(source: Source, detector: str) -> bool:
    return source.rule.detector == detector


def _place(found: Found) -> tuple[int, int, str]:
    return found.start, found.end, found.source.rule.id
