"""What a constitution's rules find in a sample."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import islice, repeat
from types import MappingProxyType
from typing import Protocol, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from ctrainer.agents.compliance.conversation import StrictRole, Tools, Turn
from ctrainer.agents.compliance.detectors.backwards import OVERRIDE
from ctrainer.agents.compliance.detectors.encoded import TRIGGER, decoded_views
from ctrainer.agents.compliance.detectors.findings import Found, Source, sources_of
from ctrainer.agents.compliance.detectors.names import HARM_SCORE, UNCOVERED_LANGUAGE
from ctrainer.agents.compliance.detectors.normalization import is_disguised, original_span
from ctrainer.agents.compliance.detectors.patterns import Pattern, PatternScanner
from ctrainer.agents.compliance.detectors.reading import Reading, has_escapes, reading, spelt_out, through, unescaped
from ctrainer.agents.compliance.detectors.repeated import MOST_VALUES, forms, places
from ctrainer.agents.compliance.detectors.sayings import sayings
from ctrainer.agents.compliance.detectors.tables import TABLE, tabled
from ctrainer.agents.compliance.detectors.tools import TOOL_RULES, tool_findings
from ctrainer.agents.compliance.segments import CONTENT, Segment, segments
from ctrainer.agents.compliance.spoken import Spoken, portions
from ctrainer.schemas.constitution import Action, Constitution, Rule

PATTERNS_VERSION = f"patterns-9+phonenumbers-{version('phonenumbers')}"
"""Changes whenever the same rules could find something else in the same text."""


def patterns_of(constitution: Constitution) -> list[Pattern]:
    """Return what is scanned for: the pattern of each rule that has one, and last what may be encoded or a table."""
    patterned = [source.rule for source in sources_of(constitution) if source.rule.pattern is not None]
    return [*map(_pattern, patterned), Pattern(text=TRIGGER), Pattern(text=TABLE, ignore_case=True)]


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


class _Text(Struct, frozen=True):
    """A segment in which `candidates` may hit, as rules read it: without escapes, hidden characters and look-alikes.

    `places` is the way back from it. `found` is what patterns find, in any order.
    """

    segment: Segment
    role: StrictRole
    text: str
    places: Sequence[int] | None
    data: bytes
    candidates: set[int]
    found: list[Found]


class Detectors:
    """Everything that looks at the text of a sample. Principles whose mode is off are not looked for."""

    def __init__(
        self, constitution: Constitution, *, harm: HarmScorer, covered: Callable[[Spoken], Sequence[bool]]
    ) -> None:
        self.version = f"{PATTERNS_VERSION}+{harm.version}"
        sources = tuple(sources_of(constitution))
        self._patterned = tuple(source for source in sources if source.rule.pattern is not None)
        self._scanner = PatternScanner(patterns_of(constitution))
        self._other = dict(enumerate((self._decoded, self._tabled), len(self._patterned)))
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
        said = sayings(samples)
        hits = self._scanner.candidates_of_all([b"" if one is None else one.whole for one in said])
        texts = [
            # Nothing but talk in which no pattern can hit: most samples.
            None
            if one is not None and not candidates
            else self._texts(messages, tools, None if one is None else candidates)
            for (messages, tools), one, candidates in zip(samples, said, hits, strict=True)
        ]
        self._look([text for some in texts if some is not None for text in some])
        for some in texts:
            if some and any(text.found for text in some):
                _look_again(some)
        encoded = [
            _turns(messages, some or ()) if one is None else one.turns
            for (messages, _), one, some in zip(samples, said, texts, strict=True)
        ]
        heard = self._heard([messages for messages, _ in samples], encoded)
        return [
            self._joined(messages, tools, some, heard.get(number, _SILENCE))
            if some is not None or number in heard
            else []
            for number, ((messages, tools), some) in enumerate(zip(samples, texts, strict=True))
        ]

    def _heard(
        self, conversations: Sequence[Sequence[Turn]], encoded: Sequence[Sequence[bytes | None]]
    ) -> dict[int, dict[int, list[Found]]]:
        """Return what is wrong with what a turn says as a whole, by the number of its sample and its own.

        `encoded` has the turns of each conversation as `words_of` knows them.
        """
        numbers, indices, roles = list[int](), list[int](), list[StrictRole]()
        texts, known = list[str](), list[bytes | None]()
        for number, (messages, turns) in enumerate(zip(conversations, encoded, strict=True)):
            for index, message in enumerate(messages):
                content, role = message["content"], message["role"]
                if content and role != "system":
                    numbers.append(number)
                    indices.append(index)
                    roles.append(role)
                    data = turns[index]
                    texts.append(spelt_out(content) if data is None else content)
                    known.append(data)
        heard: dict[int, dict[int, list[Found]]] = {}
        hearing = self._hear(portions(roles, texts, known))
        for turn, (is_covered, scores) in enumerate(hearing):
            if scores or not is_covered:
                number, index = numbers[turn], indices[turn]
                length = len(conversations[number][index]["content"])
                found = list(self._said(index, length, scores, is_covered=is_covered))
                heard.setdefault(number, {})[index] = found
        return heard

    def _hear(self, turns: Iterator[Spoken]) -> Iterator[_Heard]:
        for spoken in turns:
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

    def _texts(self, messages: Sequence[Turn], tools: Tools, candidates: set[int] | None) -> list[_Text]:
        """Return the texts of a sample in which patterns may hit.

        `candidates` are these patterns, None where rules read the sample in another form.
        """
        read = segments(messages, tools)
        views = [Reading(segment.text, None) for segment in read] if candidates is not None else _views(read)
        data = [text.encode() for text, _ in views]
        if candidates is None:
            candidates = self._scanner.candidates(b"\n".join(data))
        return [
            _Text(
                segment,
                messages[segment.message_index]["role"],
                *view,
                encoded,
                self._scanner.narrowed(candidates, encoded),
                [],
            )
            for segment, view, encoded in zip(read, views, data, strict=True)
        ]

    def _look(self, texts: Sequence[_Text]) -> None:
        """Note what is found in texts. One pattern looks at all before the next: its tables then are in a cache."""
        looked_at: dict[int, list[_Text]] = {}
        for text in texts:
            for number in text.candidates:
                looked_at.setdefault(number, []).append(text)
        for number, some in looked_at.items():
            for text in some:
                look = self._other.get(number)
                text.found.extend(look(text) if look else self._spans(number, text))

    def _spans(self, number: int, text: _Text) -> Iterator[Found]:
        source, segment = self._patterned[number], text.segment
        if not source.rule.roles or text.role in source.rule.roles:
            for span in self._scanner.spans(number, text.text, text.data):
                first, last = original_span(text.places, *span)
                yield Found(source, segment.message_index, segment.field, first, last, source.rule.score)

    def _decoded(self, text: _Text) -> Iterator[Found]:
        """Yield what is found in encoded parts of a text, at the place of the part."""
        for start, end, decoded in decoded_views(text.text):
            first, last = original_span(text.places, start, end)
            for found in self._inside(text, decoded, None):
                yield replace(found, start=first, end=last)

    def _tabled(self, text: _Text) -> Iterator[Found]:
        """Yield what is found in the cells of tables once the name of its column stands before each."""
        table = tabled(text.text)
        if table is not None:
            yield from self._inside(text, table.text, through(text.places, table.places or ()))

    def _inside(self, text: _Text, read: str, places: Sequence[int] | None) -> Iterator[Found]:
        """Yield what patterns find in what was read of a text; `places` is the way back from it."""
        data = read.encode()
        inner = replace(text, text=read, places=places, data=data)
        for number in self._scanner.candidates(data) - self._other.keys():
            yield from self._spans(number, inner)

    def _joined(
        self,
        messages: Sequence[Turn],
        tools: Tools,
        texts: Sequence[_Text] | None,
        heard: Mapping[int, list[Found]],
    ) -> list[Found]:
        if texts is None:
            return [one for found in heard.values() for one in found]
        found: list[Found] = []
        for text in texts:
            if text.found:
                found += sorted(text.found, key=_place)
            if text.segment.field == CONTENT:
                found += heard.get(text.segment.message_index, ())
        if self._tools:
            found += self._misused(messages, tools)
        return found

    def _misused(self, messages: Sequence[Turn], tools: Tools) -> Iterator[Found]:
        for name, index, field, start, end in tool_findings(messages, tools):
            source = self._tools.get(name)
            if source is not None:
                yield Found(source, index, field, start, end, TOOL_RULES[name])


def _look_again(texts: Sequence[_Text]) -> None:
    """Note where what has to be redacted is said again, without anything beside it that would tell what it is."""
    told: dict[str, Found] = {}
    for form, found in islice(_told(texts), MOST_VALUES):
        told.setdefault(form, found)
    for text in texts if told else ():
        # What is read in both directions holds everything twice.
        if OVERRIDE not in text.segment.text:
            text.found.extend(_said_again(text, told))


def _said_again(text: _Text, told: Mapping[str, Found]) -> list[Found]:
    known = {(found.start, found.end) for found in text.found}
    index, field = text.segment.message_index, text.segment.field
    return [
        replace(found, message_index=index, field=field, start=start, end=end)
        for form, found in told.items()
        for start, end in (original_span(text.places, *place) for place in places(text.text, form))
        if (start, end) not in known
    ]


def _told(texts: Sequence[_Text]) -> Iterator[tuple[str, Found]]:
    """Yield the forms of the values that have to be redacted, each with a finding of it."""
    for text in texts:
        for found in text.found:
            if found.asks_for(Action.REDACT):
                value = text.segment.text[found.start : found.end]
                for form in forms(unescaped(value)[0] if "\\" in value else value):
                    yield form, found


def _turns(messages: Sequence[Turn], texts: Iterable[_Text]) -> list[bytes | None]:
    """Return the turns that scores read as rules do: those without escapes, and with nothing to read backwards."""
    turns: list[bytes | None] = [None] * len(messages)
    for text in texts:
        segment = text.segment
        if segment.field == CONTENT and OVERRIDE not in segment.text and not has_escapes(segment.text):
            turns[segment.message_index] = text.data
    return turns


def _views(texts: Sequence[Segment]) -> list[Reading]:
    """Return each segment as rules read it; nearly always that is the segment itself."""
    whole = "\n".join([segment.text for segment in texts])
    if not is_disguised(whole) and not any(has_escapes(segment.text) for segment in texts):
        return [Reading(segment.text, None) for segment in texts]
    return [reading(segment.text) for segment in texts]


def _pattern(rule: Rule) -> Pattern:
    return Pattern(text=rule.pattern or "", ignore_case=rule.ignore_case, validator=rule.validator, allow=rule.allow)


def _is(source: Source, detector: str) -> bool:
    return source.rule.detector == detector


def _place(found: Found) -> tuple[int, int, str]:
    return found.start, found.end, found.source.rule.id
