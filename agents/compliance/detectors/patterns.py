"""Patterns over text: Hyperscan says which rules can hit, RE2 and a validator confirm and give the spans.

Both are automata: their time grows with the length of the text alone, whatever pattern a constitution brings. Both read
UTF-8 as bytes: word characters, digits and the folding of case are those of ASCII.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import hyperscan
import re2

from ctrainer.agents.compliance.detectors.digits import without_digits
from ctrainer.agents.compliance.detectors.shortened import shortened
from ctrainer.agents.compliance.detectors.validators import VALIDATORS

_ABSOLUTE_ANCHORS = (rb"\A", rb"\z", rb"\Z", rb"\C", rb"\Q")
_DIGIT = re.compile(b"[0-9]")
_CONTINUATION = 0b1000_0000
_LEADING_BITS = 0b1100_0000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What to look for. The first group, or the whole match without one, is the span; `allow` takes spans back."""

    text: str
    ignore_case: bool = False
    validator: str | None = None
    allow: tuple[str, ...] = ()


_Expressed = tuple[str, bool]
"""A pattern, and whether it ignores case."""
_Numbered = tuple[int, _Expressed]
_Known = tuple[int, int]
"""A place in bytes, and the same place in characters."""
_START: _Known = (0, 0)


class _Match(Protocol):
    def span(self, group: int) -> tuple[int, int]: ...


class _Expression(Protocol):
    groups: int

    def finditer(self, text: bytes) -> Iterator[_Match]: ...

    def fullmatch(self, text: bytes, pos: int, endpos: int) -> _Match | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    expression: _Expression
    group: int
    validator: Callable[[str], bool] | None
    allow: tuple[_Expression, ...]

    def spans(self, text: str, data: bytes) -> Iterator[tuple[int, int]]:
        known = _START
        for match in self.expression.finditer(data):
            start, end = match.span(self.group)
            if end > start and not any(allowed.fullmatch(data, start, end) for allowed in self.allow):
                if len(text) == len(data):
                    first, last = start, end
                else:
                    first, last, known = _characters(data, start, end, known)
                if self.validator is None or self.validator(text[first:last]):
                    yield first, last


class PatternScanner:
    """Finds every span of a list of patterns. Not for use by two threads at a time.

    Patterns that need a digit are the dearest to look for, and most texts have none. Long ones are looked for by the
    short forms that `shortened` makes of them.
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._compiled = tuple(_compile(pattern) for pattern in patterns)
        self._databases = _databases(_expressions(patterns))
        self._digit = len(patterns)
        self._hits = set[int]()

    def candidates(self, data: bytes) -> set[int]:
        """Return the numbers of the patterns that may have a span in a text (UTF-8), or in a line of it alone."""
        return self.candidates_of_all([data])[0]

    def candidates_of_all(self, texts: Sequence[bytes]) -> list[set[int]]:
        """Return `candidates` of each text. One database after the other looks at all: each fills a core's cache."""
        found: list[set[int]] = [set() for _ in texts]
        self._scan(self._databases.for_all, texts, found)
        with_digits = [(data, hits) for data, hits in zip(texts, found, strict=True) if self._digit in hits]
        self._scan(self._databases.for_digits, [data for data, _ in with_digits], [hits for _, hits in with_digits])
        for _, hits in with_digits:
            hits.remove(self._digit)
        return found

    def _scan(self, database: hyperscan.Database, texts: Sequence[bytes], found: Sequence[set[int]]) -> None:
        note, scan = self._note, database.scan
        for data, self._hits in zip(texts, found, strict=True):
            scan(data, match_event_handler=note)

    def _note(self, number: int, *_place: object) -> None:
        self._hits.add(number)

    def narrowed(self, candidates: set[int], part: bytes) -> set[int]:
        """Return which of the candidates of a text may have a span in a part of it."""
        needing = self._databases.needing
        return candidates if needing.isdisjoint(candidates) or _DIGIT.search(part) else candidates - needing

    def spans(self, number: int, text: str, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield the confirmed spans of one pattern, in characters, in order. `data` is the text in UTF-8."""
        return self._compiled[number].spans(text, data)


@lru_cache(maxsize=4_096)
def fault_of_pattern(pattern: str, *, ignore_case: bool = False) -> str | None:
    """Return why Hyperscan cannot use a pattern, or None."""
    try:
        hyperscan.Database().compile(expressions=[pattern.encode()], ids=[0], flags=[_flags(ignore_case)])
    except hyperscan.error as error:
        return str(error)
    return None


@lru_cache(maxsize=4_096)
def fault_of_expression(expression: str) -> str | None:
    """Return why RE2 alone, which confirms spans and takes them back, cannot use an expression, or None."""
    if any(anchor in expression.encode().replace(rb"\\", b"") for anchor in _ABSOLUTE_ANCHORS):
        return r"\A, \z, \Z, \C and \Q are not part of the dialect; use ^ and $"
    try:
        re2.compile(expression.encode(), _options(ignore_case=True))
    except re2.error as error:
        (fault,) = error.args
        return fault.decode("utf-8", "replace") if isinstance(fault, bytes) else str(fault)
    return None


def are_in_dialect(patterns: Sequence[Pattern]) -> bool:
    """Return whether Hyperscan can use all patterns together; a scanner of the same patterns is then made at once."""
    expressions = _expressions(patterns)
    try:
        _databases(expressions)
    except hyperscan.error:
        return False
    return all(
        fault_of_pattern(text, ignore_case=case) is None for text, case in expressions if shortened(text) != text
    )


class _Databases(NamedTuple):
    """One for all texts, whose last pattern says whether there is a digit, and one for texts with digits.

    `needing` are the numbers of the patterns of the second.
    """

    for_all: hyperscan.Database
    for_digits: hyperscan.Database
    needing: frozenset[int]


@lru_cache(maxsize=4)
def _databases(expressions: tuple[_Expressed, ...]) -> _Databases:
    """Return the compiled databases: they take seconds to make, during which other threads run, and are only read."""
    needing, others = list[_Numbered](), list[_Numbered]()
    for number, one in enumerate(expressions):
        (needing if _needs_digit(*one) else others).append((number, one))
    digit = (len(expressions), ("[0-9]", False))
    return _Databases(_database([*others, digit]), _database(needing or [digit]), frozenset(dict(needing)))


def _needs_digit(text: str, ignore_case: bool) -> bool:  # noqa: FBT001 - the value of a rule's field
    """Return whether every match of a pattern has a digit; False also where Hyperscan does not see it."""
    bare = without_digits(text)
    return bare != text and "never match" in (fault_of_pattern(bare, ignore_case=ignore_case) or "")


def _database(numbered: Sequence[_Numbered]) -> hyperscan.Database:
    database = hyperscan.Database()
    database.compile(
        expressions=[_looked_for(*expressed).encode() for _, expressed in numbered],
        ids=[number for number, _ in numbered],
        flags=[_flags(ignore_case) for _, (_, ignore_case) in numbered],
    )
    return database


def _looked_for(text: str, ignore_case: bool) -> str:  # noqa: FBT001 - the value of a rule's field
    """Return the short form of a pattern; the pattern itself where nothing is left of it that Hyperscan can use."""
    short = shortened(text)
    return short if short == text or fault_of_pattern(short, ignore_case=ignore_case) is None else text


def _expressions(patterns: Sequence[Pattern]) -> tuple[_Expressed, ...]:
    return tuple((pattern.text, pattern.ignore_case) for pattern in patterns)


def _flags(ignore_case: bool) -> int:  # noqa: FBT001 - the value of a rule's field
    """Return flags under which a text that holds several segments as lines hits wherever one of them would."""
    flags: int = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_MULTILINE
    return flags | hyperscan.HS_FLAG_CASELESS if ignore_case else flags


def _options(ignore_case: bool) -> re2.Options:  # noqa: FBT001 - the value of a rule's field
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = not ignore_case
    options.log_errors = False
    return options


def _compile(pattern: Pattern) -> _Compiled:
    expression: _Expression = re2.compile(pattern.text.encode(), _options(pattern.ignore_case))
    return _Compiled(
        expression=expression,
        group=1 if expression.groups else 0,
        validator=VALIDATORS[pattern.validator] if pattern.validator else None,
        allow=tuple(re2.compile(allowed.encode(), _options(ignore_case=True)) for allowed in pattern.allow),
    )


def _characters(data: bytes, start: int, end: int, known: _Known) -> tuple[int, int, _Known]:
    """Return a span of bytes as the span of the characters that it touches, and where it begins in both.

    `known` is such a place of an earlier span: counting goes on from there, so that many spans cost one pass.
    """
    while end < len(data) and data[end] & _LEADING_BITS == _CONTINUATION:
        end += 1
    while data[start] & _LEADING_BITS == _CONTINUATION:
        start -= 1
    place, before = known if known[0] <= start else _START
    if data[place:end].isascii():
        return before + start - place, before + end - place, known
    first = before + len(data[place:start].decode())
    return first, first + len(data[start:end].decode()), (start, first)
