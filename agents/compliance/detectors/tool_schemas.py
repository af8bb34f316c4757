"""Whether the arguments of a call fit the JSON Schema of its tool. Schemas are strangers' data and never trusted.

A schema is checked only where that takes bounded time: nothing is fetched, patterns are automata, references stay
inside the schema without a circle, and schema times arguments stay under a limit.
"""

from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

MAXIMUM_WORK = 10_000_000
"""Places of the schema, references followed, times characters of the arguments: some tens of milliseconds."""
MAXIMUM_DEPTH = 64
"""Levels of the schema, references followed."""
MAXIMUM_BYTES = 65_536
"""Of the schema; compiled, it takes twenty times as much."""
REMEMBERED = 128
"""Schemas that are kept compiled."""


class Fit(Enum):
    """How arguments stand to a schema."""

    FITS = "fits"
    BREAKS = "breaks"
    UNCHECKED = "unchecked"


class _CannotCheckError(Exception):
    pass


def fit(arguments: str, schema: Any) -> Fit:
    """Return whether arguments, as JSON text, fit a schema; `UNCHECKED` where the schema is not one or costs too much.

    >>> schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    >>> fit('{"n": 1}', schema), fit('{"n": "one"}', schema), fit("{}", {"type": "dict"})
    (<Fit.FITS: 'fits'>, <Fit.BREAKS: 'breaks'>, <Fit.UNCHECKED: 'unchecked'>)
    """
    try:
        document = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
        instance = orjson.loads(arguments)
    except (TypeError, orjson.JSONDecodeError):
        return Fit.UNCHECKED
    checker = _checker(document) if len(document) <= MAXIMUM_BYTES else None
    if checker is None or checker[1] * len(arguments) > MAXIMUM_WORK:
        return Fit.UNCHECKED
    try:
        return Fit.FITS if checker[0].is_valid(instance) else Fit.BREAKS
    except ValueError:  # deeper than the library goes
        return Fit.UNCHECKED


@lru_cache(maxsize=REMEMBERED)
def _checker(document: bytes) -> tuple[jsonschema_rs.Validator, int] | None:
    """Return the compiled schema and its weight, or None when it cannot be checked. Equal ones are compiled once."""
    schema = orjson.loads(document)
    try:
        weight = _Weight(schema).total()
        validator = jsonschema_rs.validator_for(schema, offline=True, pattern_options=jsonschema_rs.RegexOptions())
    except (_CannotCheckError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
        return None
    return validator, weight


class _Weight:
    """Counts the places of a schema as they are visited: what is referred to counts where it is referred to."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._known: dict[str, int | None] = {}
        self._depth = 0

    def total(self) -> int:
        """Return the count.

        Raises:
            _CannotCheckError: for references that go round in a circle or leave the document, and for great depth.
        """
        return self._of(self._schema)

    def _of(self, node: Any) -> int:
        if self._depth == MAXIMUM_DEPTH:
            raise _CannotCheckError
        self._depth += 1
        weight = 1 + sum([self._of_member(name, value) for name, value in _members(node)])
        self._depth -= 1
        return weight

    def _of_member(self, name: str, value: Any) -> int:
        if name in {"$dynamicRef", "$recursiveRef", "$id"} and isinstance(value, str):
            raise _CannotCheckError
        return self._of_reference(value) if name == "$ref" and isinstance(value, str) else self._of(value)

    def _of_reference(self, pointer: str) -> int:
        if pointer not in self._known:
            self._known[pointer] = None
            self._known[pointer] = self._of(self._target(pointer))
        weight = self._known[pointer]
        if weight is None:
            raise _CannotCheckError
        return weight

    def _target(self, pointer: str) -> Any:
        node = self._schema
        for step in _steps(pointer):
            if isinstance(node, dict) and step in node:
                node = node[step]
            elif isinstance(node, list) and step.isdecimal() and int(step) < len(node):
                node = node[int(step)]
            else:
                raise _CannotCheckError
        return node


def _members(node: Any) -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return list(node.items())
    return [("", member) for member in node] if isinstance(node, list) else []


def _steps(pointer: str) -> Iterator[str]:
    """Yield the steps of a JSON Pointer in a fragment (RFC 6901)."""
    if not pointer.startswith("#/"):
        raise _CannotCheckError
    return (step.replace("~1", "/").replace("~0", "~") for step in pointer[2:].split("/"))
