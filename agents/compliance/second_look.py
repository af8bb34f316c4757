"""The second look: what the harm score and a sentence encoder's vector of a text together say of it.

A direction in the vectors of an encoder that was adapted to tell harm, beside the linear score: they err on different
texts. Trained by `scripts/train_harm_model.py`; docs/harm-score.md has its measured accuracy.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.spoken import Spoken

_PACKAGE = "ctrainer.agents.compliance"
_FOLDER = "second_look_weights"
WEIGHTS = "second_look.json"
_STEEPEST = 60.0
_NAMED_FROM = 1e-9
"""The likeliest hazard of a text is asked for, however unlikely harm is."""

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondLook:
    """The trained weights. `version` is a digest of them; `encoder` is the SHA-256 of the encoder's own weights.

    `adapter` is the folder of the LoRA adapter that the encoder needs, `adapted` the SHA-256 of its weights. The logit
    of harm is `bias`, `share` of the harm score's logit and the length of the vector along `direction`. `shifts` is
    added to the logit of a role's turns. The probability is stretched so that where training calls a text harmful
    (`threshold`) lies at the threshold of the harm score `harm`.
    """

    version: str
    harm: str
    encoder: str
    adapter: Path
    adapted: str
    most_tokens: int
    bias: float
    share: float
    shifts: Mapping[str, float]
    threshold: float
    direction: Vectors

    @classmethod
    @cache
    def packaged(cls) -> Self:
        """Return the weights that come with this package, read once."""
        return cls.read(Path(str(files(_PACKAGE).joinpath(_FOLDER))))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the second look of a folder that holds its weights beside its adapter.

        Raises:
            OSError: there are no weights.
            ValueError: they are not JSON, or numbers are missing.
        """
        weights = (folder / WEIGHTS).read_bytes()
        document = json.loads(weights)
        return cls(
            version="second-" + hashlib.sha256(weights).hexdigest()[:16],
            adapter=folder,
            direction=np.array(document.pop("direction"), np.float32),
            **document,
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
        logits += vectors @ self.direction
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


def _highest(scores: Mapping[str, float]) -> float:
    return max(scores.values(), default=0.0)
