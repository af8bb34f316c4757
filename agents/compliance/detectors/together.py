"""One search through many texts: an expression that rarely hits costs a call for all of them, not one for each."""

from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol


class _Hit(Protocol):
    def start(self) -> int: ...


class Expression(Protocol):
    """A compiled expression of RE2 over bytes."""

    def search(self, text: bytes, pos: int) -> _Hit | None:
        """Return the first hit from a place on."""
        ...


def hit_texts(expression: Expression, texts: Sequence[bytes]) -> Iterator[int]:
    r"""Yield the numbers of the texts that an expression hits, which must not match over a zero byte.

    >>> import re2
    >>> list(hit_texts(re2.compile(b"[0-9]+"), [b"12 and 3", b"none", b"4"]))
    [0, 2]
    """
    together = b"\0".join(texts)
    ends = list(accumulate(len(text) + 1 for text in texts))
    hit = expression.search(together, 0)
    while hit is not None:
        number = bisect(ends, hit.start())
        yield number
        hit = expression.search(together, ends[number]) if number + 1 < len(ends) else None
