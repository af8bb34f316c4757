"""The harm score: how likely a text is a harmful request or harmful content, and of which hazard.

A linear model over words and pairs of words that stand near each other, trained by `scripts/train_harm_model.py`;
docs/harm-score.md has its method, its measured accuracy and its limits.
"""

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ctrainer.agents.compliance.conversation import StrictRole
from ctrainer.agents.compliance.spoken import Spoken
from ctrainer.agents.compliance.weight_table import WeightTable
from ctrainer.agents.compliance.words import Keys, Words, pair_keys, words_of

PLACE_BITS = 18
"""The tables have two to the power of this many places."""
_PACKAGE = "ctrainer.agents.compliance"
_WEIGHTS = "harm_model.json.gz"
_NOTHING: Mapping[str, float] = MappingProxyType({})
_STEEPEST = 60.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Calibration:
    """For each hazard: its bias, and Platt's sigmoid of the logit of harm where it is the likeliest."""

    codes: tuple[str, ...]
    bias: Floats
    slope: Floats
    offset: Floats

    def least(self, floor: float) -> float:
        """Return the logit of harm below which no hazard reaches a probability."""
        return float(np.min((np.log(floor / (1 - floor)) - self.offset) / self.slope))


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmModel:
    """The trained score. `version` is a digest of the weights; `threshold` is where training calls a text harmful.

    Weights are in units of `unit` logits. `words` gives the weight of a word for harm, and `rows` its row in
    `hazard_weights`, where its weights for each hazard are. A turn with fewer than `fewest_words` is weighed as if it
    had so many: few words are little evidence. `shifts` is added to the logit of a role's turns. Below the logit
    `least` no hazard reaches the floor.
    """

    version: str
    threshold: float
    floor: float
    least: float
    bias: float
    unit: float
    fewest_words: int
    gaps: tuple[int, ...]
    shifts: Mapping[str, float]
    words: WeightTable
    pairs: WeightTable
    rows: WeightTable
    hazard_weights: NDArray[np.int16]
    calibration: _Calibration

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
            ValueError: the bytes are not JSON, or two words have one place.
        """
        document = json.loads(gzip.decompress(weights))
        hazards = document["hazards"]
        calibration = _Calibration(
            codes=tuple(hazards), **{name: _column(hazards, name) for name in ("bias", "slope", "offset")}
        )
        words: Mapping[str, Sequence[int]] = document["words"]
        telling = [word for word, row in words.items() if len(row) > 1]
        pairs: Mapping[str, Mapping[str, int]] = document["pairs"]
        return cls(
            version="harm-" + hashlib.sha256(weights).hexdigest()[:16],
            threshold=document["threshold"],
            floor=document["floor"],
            least=calibration.least(document["floor"]),
            bias=document["bias"],
            unit=document["unit"],
            fewest_words=document["fewest_words"],
            gaps=tuple(map(int, pairs)),
            shifts=document["shifts"],
            words=_table(keys_of_words(list(words)), [row[0] for row in words.values()]),
            pairs=_table(
                np.concatenate(
                    [np.zeros(0, np.uint64), *(keys_of_pairs(list(of), int(gap)) for gap, of in pairs.items())]
                ),
                [weight for of in pairs.values() for weight in of.values()],
            ),
            rows=_table(keys_of_words(telling), range(1, len(telling) + 1)),
            hazard_weights=np.array([[0] * len(hazards), *(words[word][1:] for word in telling)], np.int16),
            calibration=calibration,
        )

    def above(self, floor: float) -> Self:
        """Return the same model that keeps probabilities under `floor` to itself, which is faster."""
        return replace(self, floor=floor, least=self.calibration.least(floor))

    def score(self, text: str, role: StrictRole = "user") -> Mapping[str, float]:
        """Return what is said of one turn; see `scores`."""
        return self.scores(Spoken.of([(role, text)]))[0]

    def scores(self, spoken: Spoken) -> list[Mapping[str, float]]:
        """Return for each turn hazard code to calibrated probability, for hazards at or above the floor.

        The likeliest hazard carries the probability that the text is harmful at all; another hazard carries the share
        of it that the model gives to that hazard. Most turns get nothing.
        """
        scores: list[Mapping[str, float]] = [_NOTHING] * len(spoken.texts)
        logits = self.logits(spoken)
        high = np.flatnonzero(logits >= self.least)
        if len(high):
            probabilities = self._attributed(logits[high], self._of_hazards(spoken.words, high))
            rows, hazards = np.nonzero(probabilities >= self.floor)
            said = zip(high[rows].tolist(), hazards.tolist(), probabilities[rows, hazards].tolist(), strict=True)
            for turn, hazard, probability in said:
                scores[turn] = {**scores[turn], self.calibration.codes[hazard]: probability}
        return scores

    def logits(self, spoken: Spoken) -> Floats:
        """Return the logit of harm of each turn, before Platt's sigmoid."""
        words = spoken.words
        weights = self.words.weights(words.keys).astype(np.int64)
        for gap in self.gaps:
            of_pairs = self.pairs.weights(words.pairs(gap))
            weights[: len(of_pairs)] += of_pairs
        logits = self.bias + words.sums(weights) * self._scales(words.counts)
        logits[words.counts == 0] = -np.inf
        if self.shifts:
            logits += [self.shifts.get(role, 0.0) for role in spoken.roles]
        return logits

    def _of_hazards(self, words: Words, turns: NDArray[np.int64]) -> Floats:
        """Return the logits of the hazards for some turns, all of a turn shifted by the same amount."""
        counts = words.counts
        is_asked = np.zeros(len(counts), bool)
        is_asked[turns] = True
        rows = self.rows.weights(words.keys[np.repeat(is_asked, counts)])
        starts = np.concatenate([[0], np.cumsum(counts[turns])[:-1]])
        sums = np.add.reduceat(self.hazard_weights.take(rows, axis=0), starts, dtype=np.int64)
        return self.calibration.bias + sums * self._scales(counts[turns])[:, None]

    def _scales(self, counts: NDArray[np.int64]) -> Floats:
        """Return what the sum of the weights of turns of so many words is worth."""
        return self.unit / np.sqrt(np.maximum(counts, self.fewest_words))

    def _attributed(self, logits: Floats, of_hazards: Floats) -> Floats:
        """Return the probability of each hazard of each turn; none where the likeliest one stays below the floor."""
        calibration, turns = self.calibration, np.arange(len(logits))
        likeliest = of_hazards.argmax(1)
        steep = calibration.slope[likeliest] * logits + calibration.offset[likeliest]
        harmful = 1 / (1 + np.exp(-np.clip(steep, -_STEEPEST, _STEEPEST)))
        shares = np.exp(of_hazards - of_hazards[turns, likeliest][:, None])
        probabilities: Floats = shares * (harmful / shares.sum(1))[:, None]
        probabilities[turns, likeliest] = harmful
        return probabilities


def keys_of_words(words: Sequence[str]) -> Keys:
    """Return the key of each word."""
    return words_of([" ".join(words)]).keys


def keys_of_pairs(pairs: Sequence[str], gap: int) -> Keys:
    """Return the key of each pair of words with a space between them."""
    words = keys_of_words(pairs)
    return pair_keys(words[::2], words[1::2], gap)


def _table(keys: Keys, weights: Sequence[int]) -> WeightTable:
    return WeightTable.of(keys, weights, bits=PLACE_BITS, salts=1)


def _column(hazards: Mapping[str, Mapping[str, float]], name: str) -> Floats:
    return np.array([numbers[name] for numbers in hazards.values()])
