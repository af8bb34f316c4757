"""Patterns over text: Hyperscan says which rules can hit, `re` and a validator confirm and give the spans.

Both run the same dialect on the same bytes: case folding, word characters and digits are those of ASCII.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import hyperscan

from ctrainer.agents.compliance.detectors.validators import VALIDATORS
from ctrainer.schemas.constitution import Rule


@dataclass(frozen=True, slots=True)
class Span:
    """Where a rule hits: characters `[start, end)` of the text. `rule` is its place in the list of rules."""

    rule: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    pattern: re.Pattern[str]
    group: int
    validator: Callable[[str], bool] | None
    allow: tuple[re.Pattern[str], ...]

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        for match in self.pattern.finditer(text):
            start, end = match.span(self.group)
            if end > start and self._confirms(text[start:end]):
                yield start, end

    def _confirms(self, found: str) -> bool:
        if any(pattern.fullmatch(found) for pattern in self.allow):
            return False
        return self.validator is None or self.validator(found)


class PatternScanner:
    """Finds every span of a list of rules. Not for use by two threads at a time."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(_compile(rule) for rule in rules)
        self._database = _database(rules)

    def scan(self, text: str) -> list[Span]:
        """Return the confirmed spans of `text`, ordered by place and then by rule."""
        hits: set[int] = set()
        self._database.scan(text.encode(), match_event_handler=lambda rule, *_: hits.add(rule))
        if not hits:
            return []
        spans = [Span(rule, start, end) for rule in hits for start, end in self._rules[rule].spans(text)]
        return sorted(spans, key=lambda span: (span.start, span.end, span.rule))


def fault_of_pattern(pattern: str, *, ignore_case: bool = False) -> str | None:
    """Return why a pattern is outside the dialect, or None."""
    try:
        re.compile(pattern, re.ASCII)
        hyperscan.Database().compile(expressions=[pattern.encode()], ids=[0], flags=[_flags(ignore_case)])
    except (re.error, hyperscan.error) as error:
        return str(error)
    return None


def _database(rules: Sequence[Rule]) -> hyperscan.Database:
    database = hyperscan.Database()
    database.compile(
        expressions=[rule.pattern.encode() for rule in rules],
        ids=list(range(len(rules))),
        flags=[_flags(rule.ignore_case) for rule in rules],
    )
    return database


def _flags(ignore_case: bool) -> int:  # noqa: FBT001 - the value of a rule's field
    flags: int = hyperscan.HS_FLAG_SINGLEMATCH
    return flags | hyperscan.HS_FLAG_CASELESS if ignore_case else flags


def _compile(rule: Rule) -> _Compiled:
    pattern = re.compile(rule.pattern, re.ASCII | re.IGNORECASE if rule.ignore_case else re.ASCII)
    return _Compiled(
        pattern=pattern,
        group=1 if pattern.groups else 0,
        validator=VALIDATORS[rule.validator] if rule.validator else None,
        allow=tuple(re.compile(allowed, re.ASCII | re.IGNORECASE) for allowed in rule.allow),
    )
