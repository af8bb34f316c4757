"""YAML as people mean it: a key that is there twice is a fault, and `off`, `no` and dates are texts, as in YAML 1.2.

The library reads YAML 1.1, in which `mode: off` is `mode: false`, and lets the last of equal keys win.
"""

from typing import Any

import yaml

_TEXTS = frozenset({"tag:yaml.org,2002:timestamp"})
_BOOLEAN = "tag:yaml.org,2002:bool"


class YamlError(ValueError):
    """The text is no YAML that can be read."""


class _Reader(yaml.SafeLoader):
    """Notes every key that is there twice, by its line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
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
