"""What another constitution changes."""

from collections.abc import Iterator
from typing import Any

from ctrainer.schemas.constitution import Constitution

Change = tuple[str, str, str]
"""A place (`principle.field` or `principle/rule.field`), what it was and what it is."""

_ABSENT = "-"


def changes(old: Constitution, new: Constitution) -> list[Change]:
    """Return every difference between two constitutions, in the order of their places."""
    before, after = dict(_facts(old)), dict(_facts(new))
    places = sorted(before.keys() | after.keys())
    return [
        (place, before.get(place, _ABSENT), after.get(place, _ABSENT))
        for place in places
        if before.get(place) != after.get(place)
    ]


def _facts(constitution: Constitution) -> Iterator[tuple[str, str]]:
    yield from _fields("", constitution.model_dump(mode="json", exclude={"principles"}))
    for principle in constitution.principles:
        yield from _fields(f"{principle.id}.", principle.model_dump(mode="json", exclude={"id", "rules"}))
        for rule in principle.rules:
            yield from _fields(f"{principle.id}/{rule.id}.", rule.model_dump(mode="json", exclude={"id"}))


def _fields(prefix: str, fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        yield f"{prefix}{name}", str(value)
