"""The second look: what the harm score and a sentence encoder's vector of a text together say of it.

A kernel machine on vectors beside the linear score: they err on different texts. Trained by
`scripts/train_harm_model.py`; docs/harm-score.md has its measured accuracy.
"""

import gzip
import hashlib
import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.spoken import Spoken

_PACKAGE = "ctrainer.agents.compliance"
_WEIGHTS = "second_look.json.gz"
_STEEPEST = 60.0
_NAMED_FROM = 1e-9
"""The likeliest hazard of a text is asked for, however unlikely harm is."""

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondLook:
    """The trained weights. `version` is a digest of them; `encoder` is the SHA-256 of the weights that make vectors.

    The logit of harm is `bias`, `share` of the harm score's logit and the Gaussian kernels of the vector to
    `landmarks`, weighted by `kernels`. `shifts` is added to the logit of a role's turns. The probability is stretched
    so that where training calls a text harmful (`threshold`) lies at the threshold of the harm score `harm`.
    """

    version: str
    harm: str
    encoder: str
    most_tokens: int
    bias: float
    share: float
    shifts: Mapping[str, float]
    threshold: float
    landmarks: Vectors
    kernels: Floats

    @classmethod
    @cache
    def packaged(cls) -> Self:
        """Return the weights that come with this package, read once."""
        return cls.read(files(_PACKAGE).joinpath(_WEIGHTS).read_bytes())

    @classmethod
    def read(cls, weights: bytes) -> Self:
        """Return the second look of a weights file.

        Raises:
            OSError: the bytes are not gzip.
            ValueError: the bytes are not JSON, or numbers are missing.
        """
        document = json.loads(gzip.decompress(weights))
        kernels = np.array(document["kernels"], np.float64)
        return cls(
            version="second-" + hashlib.sha256(weights).hexdigest()[:16],
            **{
                name: document[name]
                for name in ("harm", "encoder", "most_tokens", "bias", "share", "shifts", "threshold")
            },
            landmarks=_landmarks(document["landmarks"]).reshape(len(kernels), -1),
            kernels=kernels,
        )

    def scores(
        self, harm: HarmModel, spoken: Spoken, vectors: Vectors, whole: Sequence[bool]
    ) -> list[Mapping[str, float]]:
        """Return for each turn the probability of harm under the hazard that the harm score finds likeliest.

        Nothing is said of turns below the floor of the harm score, nor of those without a word. Each turn has one of
        `vectors`, of length one, and one of `whole`: whether the encoder read the text to its end. Where it did not, no
        less is said than by the harm score, so that nothing is acquitted for its beginning.
        """
        logits = self.bias + self.share * replace(harm, shifts={}).logits(spoken)
        logits += kernel(vectors, self.landmarks) @ self.kernels
        logits += [self.shifts.get(role, 0.0) for role in spoken.roles]
        named = [max(said, key=said.__getitem__, default=None) for said in harm.above(_NAMED_FROM).scores(spoken)]
        seen: list[Mapping[str, float]] = [
            {hazard: probability} if hazard is not None and probability >= harm.floor else {}
            for hazard, probability in zip(named, self._stretched(logits, harm.threshold).tolist(), strict=True)
        ]
        return [
            second if is_whole else max(first, second, key=_highest)
            for first, second, is_whole in zip(harm.scores(spoken), seen, whole, strict=True)
        ]

    def _stretched(self, logits: Floats, threshold: float) -> Floats:
        """Return probabilities, stretched so that `self.threshold` lies at `threshold`."""
        given: Floats = 1 / (1 + np.exp(-np.clip(logits, -_STEEPEST, _STEEPEST)))
        low, high = threshold / self.threshold, (1 - threshold) / (1 - self.threshold)
        return np.where(given < self.threshold, given * low, 1 - (1 - given) * high)


def kernel(vectors: Vectors, landmarks: Vectors) -> Vectors:
    """Return the Gaussian kernel of each vector to each landmark: shape (vectors, landmarks)."""
    squares = (vectors**2).sum(1)[:, None] + (landmarks**2).sum(1) - 2 * vectors @ landmarks.T
    values: Vectors = np.exp(-np.maximum(squares, 0)).astype(np.float32)
    return values


def _highest(scores: Mapping[str, float]) -> float:
    return max(scores.values(), default=0.0)


def _landmarks(packed: Mapping[str, Any]) -> Vectors:
    """Return what is stored as one signed byte a number, in units of `unit`."""
    numbers = np.frombuffer(b64decode(packed["numbers"]), np.int8)
    return numbers.astype(np.float32) * np.float32(packed["unit"])
