"""The harm score: how likely a text is a harmful request or harmful content, and of which hazard.

A linear model over words and pairs of neighbouring words, trained by `scripts/train_harm_model.py`; docs/harm-score.md
has its method, its measured accuracy and its limits.
"""

import gzip
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise, repeat
from types import MappingProxyType
from typing import Self

_PACKAGE = "ctrainer.agents.compliance"
_WEIGHTS = "harm_model.json.gz"
_ENCODING = "latin-1"
"""How the weights file writes a word: a character for each byte."""
_BITS = 24
_HALF = 1 << (_BITS - 1)
_MASK = (1 << _BITS) - 1
_MOST_HAZARD_WORDS = 2048
"""So many weights of at most 4095 units cannot overflow a field."""
_NOTHING: Mapping[str, float] = MappingProxyType({})
_TYPOGRAPHIC = b"\xe2\x80\x93\x94\x98\x99\x9c\x9d"
"""The bytes of curly quotes and dashes in UTF-8."""
_LETTERS = bytes(
    byte | 32
    if 65 <= byte <= 90  # noqa: PLR2004 - ASCII capitals
    else byte
    if (chr(byte).isascii() and chr(byte).isalnum()) or (byte > 127 and byte not in _TYPOGRAPHIC)  # noqa: PLR2004 - ASCII ends there
    else 32
    for byte in range(256)
)
"""Byte to byte: ASCII letters to lower case, other ASCII that is no digit to a space, the rest as it is."""


def words_of(text: str) -> list[bytes]:
    r"""Return the words of a text as the model sees them.

    >>> words_of("Don't PANIC, naïve reader: 42!")
    [b'don', b't', b'panic', b'na\xc3\xafve', b'reader', b'42']
    """
    return text.encode("utf-8", "replace").translate(_LETTERS).split()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hazard:
    code: str
    bias: float
    slope: float
    offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmModel:
    """The trained score. `version` is a digest of the weights.

    `words` and `pairs` hold weights in units of `unit` logits. `hazard_words` holds, for each word, one number with a
    weight for each hazard in fields of 24 bits, so that one addition adds to every hazard.
    """

    version: str
    unit: float
    bias: float
    gate: float
    floor: float
    words: Mapping[bytes, int]
    pairs: Mapping[tuple[bytes, bytes], int]
    hazards: tuple[_Hazard, ...]
    hazard_words: Mapping[bytes, int]
    hazard_unit: float

    @classmethod
    @cache
    def packaged(cls) -> Self:
        """Return the model that comes with this package, read once."""
        return cls.read(files(_PACKAGE).joinpath(_WEIGHTS).read_bytes())

    @classmethod
    def read(cls, weights: bytes) -> Self:
        """Return the model of a weights file.

        Raises:
            OSError: the bytes are not gzip.
            ValueError: the bytes are not JSON.
        """
        document = json.loads(gzip.decompress(weights))
        return cls(
            version="harm-" + hashlib.sha256(weights).hexdigest()[:16],
            unit=document["unit"],
            bias=document["bias"],
            gate=document["gate"],
            floor=document["floor"],
            words={word.encode(_ENCODING): weight for word, weight in document["words"].items()},
            pairs={_pair(name): weight for name, weight in document["pairs"].items()},
            hazards=tuple(_Hazard(code=code, **numbers) for code, numbers in document["hazards"].items()),
            hazard_words={word.encode(_ENCODING): _packed(row) for word, row in document["hazard_words"].items()},
            hazard_unit=document["hazard_unit"],
        )

    def scores(self, text: str) -> Mapping[str, float]:
        """Return hazard code to calibrated probability, for hazards at or above the floor; empty for most texts.

        The likeliest hazard carries the probability that the text is harmful at all; another hazard carries the share
        of it that the model gives to that hazard.
        """
        words = words_of(text)
        if not words:
            return _NOTHING
        norm = self.unit / math.sqrt(len(words))
        total = sum(map(self.words.get, words, _ZEROS))
        if self.bias + total * norm < self.gate:
            return _NOTHING
        total += sum(map(self.pairs.get, pairwise(words), _ZEROS))
        return self._attributed(self.bias + total * norm, words)

    def raw(self, text: str) -> float:
        """Return the score of a text in logits before calibration, whether or not it passes the gate."""
        words = words_of(text)
        total = sum(map(self.words.get, words, _ZEROS)) + sum(map(self.pairs.get, pairwise(words), _ZEROS))
        return self.bias + total * self.unit / math.sqrt(max(1, len(words)))

    def _attributed(self, logit: float, words: list[bytes]) -> Mapping[str, float]:
        logits = self._hazard_logits(words)
        best = max(range(len(logits)), key=logits.__getitem__)
        probability = _sigmoid(self.hazards[best].slope * logit + self.hazards[best].offset)
        if probability < self.floor:
            return _NOTHING
        shares = [math.exp(other - logits[best]) for other in logits]
        scale = probability / sum(shares)
        scored = {
            hazard.code: share * scale
            for hazard, share in zip(self.hazards, shares, strict=True)
            if share * scale >= self.floor
        }
        return scored | {self.hazards[best].code: probability}

    def _hazard_logits(self, words: list[bytes]) -> list[float]:
        words = words[:_MOST_HAZARD_WORDS]
        total = sum(map(self.hazard_words.get, words, _ZEROS))
        norm = self.hazard_unit / math.sqrt(len(words))
        logits = []
        for hazard in self.hazards:
            low = total & _MASK
            signed = low - (1 << _BITS) if low & _HALF else low
            logits.append(hazard.bias + signed * norm)
            total = (total - signed) >> _BITS
        return logits


_ZEROS = repeat(0)


def _pair(name: str) -> tuple[bytes, bytes]:
    first, _, second = name.partition(" ")
    return first.encode(_ENCODING), second.encode(_ENCODING)


def _packed(weights: list[int]) -> int:
    """Return one number whose fields are the weights: fields of sums are the sums of fields."""
    return sum(weight << (_BITS * place) for place, weight in enumerate(weights))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))
