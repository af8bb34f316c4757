"""What a constitution's rules find in a sample."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import repeat
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

from ctrainer.agents.compliance.conversation import StrictRole, Tools, Turn
from ctrainer.agents.compliance.detectors.encoded import TRIGGER, decoded_views
from ctrainer.agents.compliance.detectors.findings import Found, Source, sources_of
from ctrainer.agents.compliance.detectors.names import HARM_SCORE, UNCOVERED_LANGUAGE
from ctrainer.agents.compliance.detectors.normalization import is_disguised, normalized, original_span
from ctrainer.agents.compliance.detectors.patterns import Pattern, PatternScanner
from ctrainer.agents.compliance.detectors.tools import TOOL_RULES, tool_findings
from ctrainer.agents.compliance.segments import CONTENT, Segment, segments
from ctrainer.schemas.constitution import Constitution, Rule

PATTERNS_VERSION = f"patterns-3+phonenumbers-{version('phonenumbers')}"
"""Changes whenever the same rules could find something else in the same text."""


def patterns_of(constitution: Constitution) -> list[Pattern]:
    """Return what is scanned for: the pattern of each rule that has one, and last what may be encoded text."""
    patterned = [source.rule for source in sources_of(constitution) if source.rule.pattern is not None]
    return [*map(_pattern, patterned), Pattern(text=TRIGGER)]


_NOTHING: Mapping[str, float] = MappingProxyType({})
Spoken: TypeAlias = tuple[StrictRole, str]
"""Who said what."""


class HarmScorer(Protocol):
    """A model that says how probable it is that a text does harm."""

    @property
    def version(self) -> str:
        """Changes with the model."""
        ...

    def scores(self, turns: Sequence[Spoken]) -> Sequence[Mapping[str, float]]:
        """Return for each turn the calibrated probability by hazard code, without hazards not worth mention.

        What is said of a turn does not depend on the others; many at once cost much less than one by one.
        """
        ...


class _View(NamedTuple):
    """A segment as rules read it: without escapes, hidden characters and look-alikes, with the way back."""

    text: str
    places: Sequence[int] | None


class Detectors:
    """Everything that looks at the text of a sample. Principles whose mode is off are not looked for."""

    def __init__(self, constitution: Constitution, *, harm: HarmScorer, is_covered: Callable[[str], bool]) -> None:
        self.version = f"{PATTERNS_VERSION}+{harm.version}"
        sources = tuple(sources_of(constitution))
        self._patterned = tuple(source for source in sources if source.rule.pattern is not None)
        self._scanner = PatternScanner(patterns_of(constitution))
        self._encoded = len(self._patterned)
        self._scored = {str(source.principle.hazard): source for source in sources if _is(source, HARM_SCORE)}
        self._language = next((source for source in sources if _is(source, UNCOVERED_LANGUAGE)), None)
        self._tools = {source.rule.detector: source for source in sources if source.rule.detector in TOOL_RULES}
        self._harm = harm
        self._is_covered = is_covered

    def find(self, messages: Sequence[Turn], tools: Tools) -> list[Found]:
        """Return the findings of one sample in order of their place. A finding holds no text."""
        return self.find_all([(messages, tools)])[0]

    def find_all(self, samples: Sequence[tuple[Sequence[Turn], Tools]]) -> list[list[Found]]:
        """Return the findings of each sample in order of their place. Many at once cost less."""
        read = [segments(messages, tools) for messages, tools in samples]
        said = [
            (messages[segment.message_index]["role"], segment.text)
            for (messages, _), texts in zip(samples, read, strict=True)
            for segment in texts
            if _is_said(segment, messages)
        ]
        scores = iter(self._harm.scores(said) if self._scored else repeat(_NOTHING))
        return [
            self._found(messages, tools, texts, scores) for (messages, tools), texts in zip(samples, read, strict=True)
        ]

    def _found(
        self,
        messages: Sequence[Turn],
        tools: Tools,
        texts: Sequence[Segment],
        scores: Iterator[Mapping[str, float]],
    ) -> list[Found]:
        views = _views(texts)
        # One scan for the whole sample: mostly it says that there is nothing to look for.
        candidates = self._scanner.candidates("\n".join([view.text for view in views]))
        found: list[Found] = []
        for number, segment in enumerate(texts):
            role = messages[segment.message_index]["role"]
            if candidates:
                found += sorted(self._in(segment, views[number], role, candidates), key=_place)
            if _is_said(segment, messages):
                self._add_said(segment, next(scores), found)
        if self._tools:
            found += self._misused(messages, tools)
        return found

    def _in(self, segment: Segment, view: Segment | _View, role: str, candidates: set[int]) -> Iterator[Found]:
        places = view.places if isinstance(view, _View) else None
        for source, start, end in self._spans(view.text, role, candidates):
            first, last = original_span(places, start, end)
            yield Found(source, segment.message_index, segment.field, first, last, source.rule.score)
        if self._encoded in candidates:
            for start, end, decoded in decoded_views(view.text):
                first, last = original_span(places, start, end)
                for source, *_ in self._spans(decoded, role, self._scanner.candidates(decoded)):
                    yield Found(source, segment.message_index, segment.field, first, last, source.rule.score)

    def _spans(self, text: str, role: str, candidates: set[int]) -> Iterator[tuple[Source, int, int]]:
        for number in candidates - {self._encoded}:
            source = self._patterned[number]
            if not source.rule.roles or role in source.rule.roles:
                for start, end in self._scanner.spans(number, text):
                    yield source, start, end

    def _add_said(self, segment: Segment, scores: Mapping[str, float], found: list[Found]) -> None:
        """Add what is wrong with a text as a whole."""
        text, index = segment.text, segment.message_index
        if self._language is not None and not self._is_covered(text):
            found.append(Found(self._language, index, CONTENT, 0, len(text), self._language.rule.score))
        for hazard, probability in scores.items():
            source = self._scored.get(hazard)
            # What does not reach the threshold is no violation: it would only make equal cases differ.
            if source is not None and probability >= source.principle.threshold:
                found.append(Found(source, index, CONTENT, 0, len(text), round(probability, 2)))

    def _misused(self, messages: Sequence[Turn], tools: Tools) -> Iterator[Found]:
        for name, index, field, start, end in tool_findings(messages, tools):
            source = self._tools.get(name)
            if source is not None:
                yield Found(source, index, field, start, end, TOOL_RULES[name])


def _views(texts: Sequence[Segment]) -> Sequence[Segment] | Sequence[_View]:
    """Return each segment as rules read it; nearly always that is the segment itself."""
    whole = "\n".join([segment.text for segment in texts])
    if "\\" not in whole and not is_disguised(whole):
        return texts
    return [_View(*normalized(segment.scannable())) for segment in texts]


def _is_said(segment: Segment, messages: Sequence[Turn]) -> bool:
    return segment.field == CONTENT and messages[segment.message_index]["role"] != "system"


def _pattern(rule: Rule) -> Pattern:
    return Pattern(text=rule.pattern or "", ignore_case=rule.ignore_case, validator=rule.validator, allow=rule.allow)


def _is(source: Source, detector: str) -> bool:
    return source.rule.detector == detector


def _place(found: Found) -> tuple[int, int, str]:
    return found.start, found.end, found.source.rule.id
