"""The harm score: how likely a text is a harmful request or harmful content, and of which hazard.

A linear model over words and pairs of neighbouring words, trained by `scripts/train_harm_model.py`; docs/harm-score.md
has its method, its measured accuracy and its limits.
"""

import gzip
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import pairwise, repeat
from struct import unpack
from types import MappingProxyType
from typing import Self

from ctrainer.agents.compliance.detectors.normalization import normalized

_PACKAGE = "ctrainer.agents.compliance"
_WEIGHTS = "harm_model.json.gz"
_ENCODING = "latin-1"
"""How the weights file writes a word: a character for each byte."""
_BITS = 32
_HALF = 1 << (_BITS - 1)
_MASK = (1 << _BITS) - 1
_MOST_WORDS = 500_000
"""So many weights of at most 4095 units cannot overflow a field; later words of a text are not looked at."""
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
    r"""Return the words of a text as the model sees them, without disguises.

    >>> words_of("Don't PANIC, naïve reader: 42!")
    [b'don', b't', b'panic', b'na\xc3\xafve', b'reader', b'42']
    """
    return normalized(text)[0].encode("utf-8", "replace").translate(_LETTERS).split()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hazard:
    code: str
    bias: float
    slope: float
    offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmModel:
    """The trained score. `version` is a digest of the weights; `threshold` is where training calls a text harmful.

    `words` holds one number for each word: its weights for harm and for each hazard, in fields of 32 bits, so that one
    addition adds to all of them. `pairs` holds the weights of neighbouring words for harm. Weights are in units of
    `unit` logits. Below the logit `least` no hazard reaches the floor.
    """

    version: str
    threshold: float
    floor: float
    gate: float
    least: float
    bias: float
    unit: float
    words: Mapping[bytes, int]
    pairs: Mapping[tuple[bytes, bytes], int]
    hazards: tuple[_Hazard, ...]

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
        hazards = tuple(_Hazard(code=code, **numbers) for code, numbers in document["hazards"].items())
        floor = document["floor"]
        return cls(
            version="harm-" + hashlib.sha256(weights).hexdigest()[:16],
            threshold=document["threshold"],
            floor=floor,
            least=_least_logit(floor, hazards),
            gate=document["gate"],
            bias=document["bias"],
            unit=document["unit"],
            words={word.encode(_ENCODING): _in_fields(row) for word, row in document["words"].items()},
            pairs={_pair(name): weight for name, weight in document["pairs"].items()},
            hazards=hazards,
        )

    def above(self, floor: float) -> Self:
        """Return the same model that keeps probabilities under `floor` to itself, which is faster."""
        return replace(self, floor=floor, least=_least_logit(floor, self.hazards))

    def scores(self, turns: Sequence[tuple[str, str]]) -> list[Mapping[str, float]]:
        """Return what `score` says of each turn, given as its role and text."""
        return [self.score(text) for _, text in turns]

    def score(self, text: str) -> Mapping[str, float]:
        """Return hazard code to calibrated probability, for hazards at or above the floor; empty for most texts.

        The likeliest hazard carries the probability that the text is harmful at all; another hazard carries the share
        of it that the model gives to that hazard.
        """
        words = words_of(text)
        if not words:
            return _NOTHING
        if len(words) > _MOST_WORDS:
            words = words[:_MOST_WORDS]
        fields = sum(map(self.words.get, words, _ZEROS))
        harm = ((fields + _HALF) & _MASK) - _HALF
        norm = self.unit / math.sqrt(len(words))
        if self.bias + harm * norm < self.gate:
            return _NOTHING
        logit = self.bias + (harm + sum(map(self.pairs.get, pairwise(words), _ZEROS))) * norm
        return self._attributed(logit, self._hazard_logits(fields, norm)) if logit >= self.least else _NOTHING

    def _attributed(self, logit: float, hazard_logits: list[float]) -> Mapping[str, float]:
        highest = max(hazard_logits)
        likeliest = self.hazards[hazard_logits.index(highest)]
        probability = _sigmoid(likeliest.slope * logit + likeliest.offset)
        if probability < self.floor:
            return _NOTHING
        shares = [math.exp(other - highest) for other in hazard_logits]
        least = self.floor / probability * sum(shares)
        if least > 1:
            return {likeliest.code: probability}
        scale = self.floor / least
        scored = {
            hazard.code: share * scale for hazard, share in zip(self.hazards, shares, strict=True) if share >= least
        }
        scored[likeliest.code] = probability
        return scored

    def _hazard_logits(self, fields: int, norm: float) -> list[float]:
        """Return the logits of the hazards, all shifted by the same amount."""
        places = len(self.hazards) + 1
        sums = unpack(
            f"<{places}I", (fields + _HALF * _ONES & (1 << _BITS * places) - 1).to_bytes(4 * places, "little")
        )
        return [hazard.bias + total * norm for hazard, total in zip(self.hazards, sums[1:], strict=True)]


_ZEROS = repeat(0)
_ONES = sum(1 << (_BITS * place) for place in range(16))
"""One in every field, for more fields than there are hazards."""


def _least_logit(floor: float, hazards: Sequence[_Hazard]) -> float:
    return min((math.log(floor / (1 - floor)) - hazard.offset) / hazard.slope for hazard in hazards)


def _pair(name: str) -> tuple[bytes, bytes]:
    first, _, second = name.partition(" ")
    return first.encode(_ENCODING), second.encode(_ENCODING)


def _in_fields(weights: list[int]) -> int:
    """Return one number whose fields are the weights: the fields of a sum are the sums of the fields."""
    return sum(weight << (_BITS * place) for place, weight in enumerate(weights))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))
