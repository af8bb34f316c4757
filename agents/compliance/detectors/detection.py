"""What a constitution's rules find in a sample."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import repeat
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

from ctrainer.agents.compliance.conversation import Tools, Turn
from ctrainer.agents.compliance.detectors.backwards import both_ways
from ctrainer.agents.compliance.detectors.encoded import TRIGGER, decoded_views
from ctrainer.agents.compliance.detectors.findings import Found, Source, sources_of
from ctrainer.agents.compliance.detectors.names import HARM_SCORE, UNCOVERED_LANGUAGE
from ctrainer.agents.compliance.detectors.normalization import is_disguised, original_span, undisguised_all
from ctrainer.agents.compliance.detectors.patterns import Pattern, PatternScanner
from ctrainer.agents.compliance.detectors.tools import TOOL_RULES, tool_findings
from ctrainer.agents.compliance.segments import CONTENT, Segment, contents, has_escapes, segments
from ctrainer.agents.compliance.spoken import Spoken, Turns, portions
from ctrainer.schemas.constitution import Constitution, Rule

PATTERNS_VERSION = f"patterns-5+phonenumbers-{version('phonenumbers')}"
"""Changes whenever the same rules could find something else in the same text."""


def patterns_of(constitution: Constitution) -> list[Pattern]:
    """Return what is scanned for: the pattern of each rule that has one, and last what may be encoded text."""
    patterned = [source.rule for source in sources_of(constitution) if source.rule.pattern is not None]
    return [*map(_pattern, patterned), Pattern(text=TRIGGER)]


_NOTHING: Mapping[str, float] = MappingProxyType({})
_SILENCE: Mapping[int, list[Found]] = MappingProxyType({})
_COVERED = True
_Heard: TypeAlias = tuple[bool, Mapping[str, float]]
"""Whether a turn is in a language that the scores cover, and its scores."""


class HarmScorer(Protocol):
    """A model that says how probable it is that a text does harm."""

    @property
    def version(self) -> str:
        """Changes with the model."""
        ...

    def scores(self, spoken: Spoken) -> Sequence[Mapping[str, float]]:
        """Return for each turn the calibrated probability by hazard code, without hazards not worth mention.

        What is said of a turn does not depend on the others; many at once cost much less than one by one.
        """
        ...


Covered: TypeAlias = Callable[[Spoken], Sequence[bool]]
"""Says of each turn whether it is in a language that the scores are made for."""


class _View(NamedTuple):
    """A segment as rules read it: without escapes, hidden characters and look-alikes, with the way back."""

    text: str
    places: Sequence[int] | None


class _Placed(NamedTuple):
    """A segment with what patterns find in it."""

    segment: Segment
    found: Sequence[Found]


class Detectors:
    """Everything that looks at the text of a sample. Principles whose mode is off are not looked for."""

    def __init__(
        self, constitution: Constitution, *, harm: HarmScorer, covered: Callable[[Spoken], Sequence[bool]]
    ) -> None:
        self.version = f"{PATTERNS_VERSION}+{harm.version}"
        sources = tuple(sources_of(constitution))
        self._patterned = tuple(source for source in sources if source.rule.pattern is not None)
        self._scanner = PatternScanner(patterns_of(constitution))
        self._encoded = len(self._patterned)
        self._scored = {str(source.principle.hazard): source for source in sources if _is(source, HARM_SCORE)}
        self._language = next((source for source in sources if _is(source, UNCOVERED_LANGUAGE)), None)
        self._tools = {source.rule.detector: source for source in sources if source.rule.detector in TOOL_RULES}
        self._harm = harm
        self._covered = covered

    def find(self, messages: Sequence[Turn], tools: Tools) -> list[Found]:
        """Return the findings of one sample in order of their place. A finding holds no text."""
        return self.find_all([(messages, tools)])[0]

    def find_all(self, samples: Sequence[tuple[Sequence[Turn], Tools]]) -> list[list[Found]]:
        """Return the findings of each sample in order of their place. Many at once cost less.

        One thing after the other looks at all samples: each works on tables as large as a core's cache, and by turns
        they would drive each other out of it.
        """
        said = _sayings(samples)
        hits = self._scanner.candidates_of_all([one or b"" for one in said])
        placed = [
            self._placed(messages, tools, None if one is None else candidates)
            for (messages, tools), one, candidates in zip(samples, said, hits, strict=True)
        ]
        heard = self._heard([messages for messages, _ in samples])
        return [
            self._joined(messages, tools, found, heard.get(number, _SILENCE))
            for number, ((messages, tools), found) in enumerate(zip(samples, placed, strict=True))
        ]

    def _heard(self, conversations: Sequence[Sequence[Turn]]) -> dict[int, dict[int, list[Found]]]:
        """Return what is wrong with what a turn says as a whole, by the number of its sample and its own."""
        turns = [
            (number, index, message)
            for number, messages in enumerate(conversations)
            for index, message in enumerate(messages)
            if message["content"] and message["role"] != "system"
        ]
        heard: dict[int, dict[int, list[Found]]] = {}
        hearing = self._hear([(message["role"], message["content"]) for _, _, message in turns])
        for (number, index, message), (is_covered, scores) in zip(turns, hearing, strict=True):
            if scores or not is_covered:
                found = list(self._said(index, len(message["content"]), scores, is_covered=is_covered))
                heard.setdefault(number, {})[index] = found
        return heard

    def _hear(self, turns: Turns) -> Iterator[_Heard]:
        for spoken in portions(turns):
            covered = self._covered(spoken) if self._language is not None else repeat(_COVERED)
            scores = self._harm.scores(spoken) if self._scored else repeat(_NOTHING, len(spoken.texts))
            yield from zip(covered, scores, strict=False)

    def _said(self, index: int, length: int, scores: Mapping[str, float], *, is_covered: bool) -> Iterator[Found]:
        if self._language is not None and not is_covered:
            yield Found(self._language, index, CONTENT, 0, length, self._language.rule.score)
        for hazard, probability in scores.items():
            source = self._scored.get(hazard)
            # What does not reach the threshold is no violation: it would only make equal cases differ.
            if source is not None and probability >= source.principle.threshold:
                yield Found(source, index, CONTENT, 0, length, round(probability, 2))

    def _placed(self, messages: Sequence[Turn], tools: Tools, candidates: set[int] | None) -> list[_Placed] | None:
        """Return what patterns find text by text, or None for nothing but talk in which none can hit: most samples.

        `candidates` are the patterns that may hit, None where rules read the sample in another form.
        """
        if candidates is not None and not candidates:
            return None
        texts = segments(messages, tools)
        views: Sequence[Segment | _View] = texts if candidates is not None else _views(texts)
        if candidates is None:
            candidates = self._scanner.candidates("\n".join([view.text for view in views]).encode())
        roles = [messages[segment.message_index]["role"] for segment in texts]
        return [
            _Placed(segment, sorted(self._in(segment, view, role, candidates), key=_place) if candidates else ())
            for segment, view, role in zip(texts, views, roles, strict=True)
        ]

    def _joined(
        self,
        messages: Sequence[Turn],
        tools: Tools,
        placed: Sequence[_Placed] | None,
        heard: Mapping[int, list[Found]],
    ) -> list[Found]:
        if placed is None:
            return [one for found in heard.values() for one in found]
        found: list[Found] = []
        for segment, spans in placed:
            found += spans
            if segment.field == CONTENT:
                found += heard.get(segment.message_index, ())
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
                for source, *_ in self._spans(decoded, role, self._scanner.candidates(decoded.encode())):
                    yield Found(source, segment.message_index, segment.field, first, last, source.rule.score)

    def _spans(self, text: str, role: str, candidates: set[int]) -> Iterator[tuple[Source, int, int]]:
        data = text.encode()
        for number in candidates - {self._encoded}:
            source = self._patterned[number]
            if not source.rule.roles or role in source.rule.roles:
                for start, end in self._scanner.spans(number, text, data):
                    yield source, start, end

    def _misused(self, messages: Sequence[Turn], tools: Tools) -> Iterator[Found]:
        for name, index, field, start, end in tool_findings(messages, tools):
            source = self._tools.get(name)
            if source is not None:
                yield Found(source, index, field, start, end, TOOL_RULES[name])


def _sayings(samples: Sequence[tuple[Sequence[Turn], Tools]]) -> list[bytes | None]:
    """Return what is said in each sample in UTF-8, a line for each turn; None where rules read it in another form."""
    wholes = [_whole(messages, tools) for messages, tools in samples]
    read = undisguised_all([whole or "" for whole in wholes])
    return [None if whole is None else data for whole, data in zip(wholes, read, strict=True)]


def _whole(messages: Sequence[Turn], tools: Tools) -> str | None:
    """Return what is said, a line for each turn, or None where there is more to read, or escapes."""
    texts = contents(messages, tools)
    if texts is None:
        return None
    whole = "\n".join(texts)
    return None if "\\" in whole and any(map(has_escapes, texts)) else whole


def _views(texts: Sequence[Segment]) -> Sequence[Segment] | Sequence[_View]:
    """Return each segment as rules read it; nearly always that is the segment itself."""
    whole = "\n".join([segment.text for segment in texts])
    if not is_disguised(whole) and not any(has_escapes(segment.text) for segment in texts):
        return texts
    return [_View(*both_ways(segment.scannable())) for segment in texts]


def _pattern(rule: Rule) -> Pattern:
    return Pattern(text=rule.pattern or "", ignore_case=rule.ignore_case, validator=rule.validator, allow=rule.allow)


def _is(source: Source, detector: str) -> bool:
    return source.rule.detector == detector


def _place(found: Found) -> tuple[int, int, str]:
    return found.start, found.end, found.source.rule.id
