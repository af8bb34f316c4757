"""Deterministic identities: the same input gives the same id, so any consumer can recognise a duplicate."""

import hashlib
from typing import Any
from uuid import UUID

import orjson

NAMESPACE = UUID("6f1c6b0e-2f4b-5a53-9c0e-cdd01ef066bc")
"""The namespace of every uuid5 of this project."""

_NAMESPACE_STATE = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def canonical_bytes(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys and no spaces: equal values give equal bytes.

    >>> canonical_bytes({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a key that is no text, which orjson writes at half the speed
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def content_digest(value: bytes) -> str:
    """Return `sha256:<hex>` of bytes.

    >>> content_digest(b"")
    'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """
    return "sha256:" + hashlib.sha256(value).hexdigest()


def source_reference(topic: str, partition: int, offset: int) -> str:
    """Return the name of one record: `topic/partition/offset`."""
    return f"{topic}/{partition}/{offset}"


def event_id(source: str, kind: str, constitution_digest: str = "") -> str:
    """Return the id of the output that `source` causes: the same whenever that source is handled again.

    >>> event_id("flywheel.samples/0/7", "SampleJudged", "sha256:00")
    '6e9f8e2b-6074-55fc-8902-e2a1cd2508bd'
    """
    return _uuid5(f"{source}/{kind}/{constitution_digest}")


def sample_id(topic: str, partition: int, offset: int) -> str:
    """Return the id of the sample that one input record holds."""
    return event_id(source_reference(topic, partition, offset), "sample")


def _uuid5(name: str) -> str:
    """Return `str(uuid.uuid5(NAMESPACE, name))` (RFC 9562, section 5.5), faster: a sample needs three."""
    state = _NAMESPACE_STATE.copy()
    state.update(name.encode())
    text = state.hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"
