"""YAML as people mean it: a key that is there twice is a fault, and `off`, `no` and dates are texts, as in YAML 1.2.

The library reads YAML 1.1, in which `mode: off` is `mode: false`, and lets the last of equal keys win.
JSON is YAML, but read as what it is: a hundred times faster. What is not flawless JSON is read as YAML, which tells the
lines of its faults.
"""

import json
from typing import Any, NoReturn

import yaml
from yaml.composer import Composer

_TEXTS = frozenset({"tag:yaml.org,2002:timestamp"})
_BOOLEAN = "tag:yaml.org,2002:bool"


class YamlError(ValueError):
    """The text is no YAML that can be read."""


class _NoJsonError(ValueError):
    """The text is no JSON object, or has faults that are better told by line."""


class _Reader(Composer, yaml.CSafeLoader):
    """Notes every key that is there twice, by its line. Scans in C, composes as `yaml.SafeLoader` does."""

    def __init__(self, text: str) -> None:
        yaml.CSafeLoader.__init__(self, text)
        Composer.__init__(self)
        self.repeated: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Return the node of a mapping."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    self.repeated.append(f"line {key.start_mark.line + 1}: the key {key.value!r} is there twice")
                seen.add(key.value)
        return node


_Reader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in _TEXTS and (tag != _BOOLEAN or first in {"t", "T", "f", "F"})
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str) -> tuple[Any, list[str]]:
    r"""Return the value of a document, and the faults that do not keep it from being read.

    Raises:
        YamlError: it cannot be read.

    >>> read_yaml("mode: off")
    ({'mode': 'off'}, [])
    >>> read_yaml("a: 1\na: 2")[1]
    ["line 2: the key 'a' is there twice"]
    """
    try:
        return _json_object(text), []
    except (ValueError, RecursionError):
        return _read(text)


def _json_object(text: str) -> dict[str, Any]:
    if not text.lstrip().startswith("{"):
        raise _NoJsonError
    found: dict[str, Any] = json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_no_constant)
    return found


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NoJsonError
    return found


def _no_constant(_: str) -> NoReturn:
    """Refuse `NaN` and its like, which JSON does not have."""
    raise _NoJsonError


def _read(text: str) -> tuple[Any, list[str]]:
    reader = _Reader(text)
    try:
        return reader.get_single_data(), reader.repeated
    except yaml.YAMLError as error:
        raise YamlError(f"not well-formed YAML: {error}") from error
    except RecursionError as error:
        raise YamlError("nested too deeply") from error
    except ValueError as error:
        raise YamlError("holds a number that cannot be read") from error
    finally:
        reader.dispose()
