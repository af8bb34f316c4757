"""Puts the harm score together: fits, calibrates by inner folds, and packs what the run time reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ctrainer.agents.compliance.harm import HarmModel
from scripts.harm_corpus import POOLED, Example, fold_numbers
from scripts.harm_training import Calibration, Floats, Vocabulary, fit_harm, fit_hazards, packed, vocabulary

_INNER_FOLDS = 4
_INNER_SEED = 11
_FLOOR = 0.2
_LOST_TO_GATE = 0.005
"""Share of the texts above the floor that may be lost by stopping before word pairs are looked at."""
_MOST_FALSE_ALARMS = 0.025
_PSEUDO_COUNT = 40


@dataclass(frozen=True, slots=True)
class Prior:
    """Words and what the encoder says about each."""

    words: Sequence[str]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A weights file, and the threshold that inner folds chose for it."""

    weights: bytes
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Linear:
    terms: Vocabulary
    harm: LogisticRegression
    hazards: LogisticRegression

    def applied(self, texts: Sequence[str]) -> tuple[Floats, Floats, NDArray[np.str_]]:
        """Return the logit, the logit without pairs, and the likeliest hazard of each text."""
        features = self.terms.matrix(texts)
        coefficients = self.harm.coef_[0].copy()
        logits = self.harm.decision_function(features)
        first, last = len(self.terms.words), len(self.terms.words) + len(self.terms.pairs)
        coefficients[first:last] = 0
        return logits, features @ coefficients + self.harm.intercept_[0], self.hazards.predict(features)


def fit(examples: Sequence[Example], own: Sequence[Example], prior: Prior) -> Fitted:
    """Return the weights trained on all examples; everything but the weights is chosen by inner folds."""
    held_out = _held_out(examples, own, prior)
    final = _linear([*examples, *own], prior)
    calibration = _calibration(examples, held_out, [str(code) for code in final.hazards.classes_])
    weights = packed(final.terms, final.harm, final.hazards, calibration)
    logits, _, hazards = held_out
    probability = np.array([_platt(calibration, *pair) for pair in zip(hazards, logits, strict=True)])
    return Fitted(weights=weights, threshold=_threshold(examples, probability))


def scored(weights: bytes, texts: Sequence[str]) -> tuple[Floats, list[str | None]]:
    """Return what the run time makes of texts: the highest score and its hazard."""
    model = HarmModel.read(weights)
    best = [max(model.scores(text).items(), key=lambda item: item[1], default=(None, 0.0)) for text in texts]
    return np.array([score for _, score in best]), [code for code, _ in best]


def _linear(examples: Sequence[Example], prior: Prior) -> _Linear:
    terms = vocabulary([example.text for example in examples], prior.words, prior.vectors)
    features = terms.matrix([example.text for example in examples])
    return _Linear(terms=terms, harm=fit_harm(features, examples), hazards=fit_hazards(features, examples))


def _held_out(
    examples: Sequence[Example], own: Sequence[Example], prior: Prior
) -> tuple[Floats, Floats, NDArray[np.str_]]:
    fold = fold_numbers(examples, folds=_INNER_FOLDS, seed=_INNER_SEED)
    logits, without_pairs = np.zeros(len(examples)), np.zeros(len(examples))
    hazards = np.full(len(examples), "", dtype="<U4")
    for number in range(_INNER_FOLDS):
        rows = np.flatnonzero(fold == number)
        model = _linear([*(e for e, f in zip(examples, fold, strict=True) if f != number), *own], prior)
        logits[rows], without_pairs[rows], hazards[rows] = model.applied([examples[row].text for row in rows])
    return logits, without_pairs, hazards


def _calibration(
    examples: Sequence[Example], held_out: tuple[Floats, Floats, NDArray[np.str_]], codes: Sequence[str]
) -> Calibration:
    """Fit Platt's sigmoid for each attributed hazard; a hazard with few texts leans on all of them."""
    logits, without_pairs, hazards = held_out
    truth = np.array([example.harmful for example in examples])
    counted = np.array([example.weight > 0 for example in examples])
    slope, offset = {}, {}
    for code in codes:
        weights = np.where(hazards == code, 1.0, _PSEUDO_COUNT / len(examples)) * counted
        model = LogisticRegression(C=1e3).fit(logits[:, None], truth, weights)
        slope[code], offset[code] = float(model.coef_[0, 0]), float(model.intercept_[0])
    ungated = Calibration(slope=slope, offset=offset, gate=-np.inf, floor=_FLOOR)
    probability = np.array([_platt(ungated, *pair) for pair in zip(hazards, logits, strict=True)])
    gate = float(np.quantile(without_pairs[probability >= _FLOOR], _LOST_TO_GATE))
    return Calibration(slope=slope, offset=offset, gate=gate, floor=_FLOOR)


def _platt(calibration: Calibration, code: str, logit: float) -> float:
    return float(1 / (1 + np.exp(-(calibration.slope[code] * logit + calibration.offset[code]))))


def _threshold(examples: Sequence[Example], probability: Floats) -> float:
    """Return the threshold of the best pooled F1 that keeps false alarms on plain instructions rare."""
    pooled = np.array([example.source in POOLED for example in examples])
    truth = np.array([example.harmful for example in examples])[pooled]
    plain = probability[[example.source == "self_instruct" for example in examples]]
    lowest = float(np.quantile(plain, 1 - _MOST_FALSE_ALARMS)) if len(plain) else 0.0
    candidates = np.unique(
        np.append(probability[pooled & (probability > max(lowest, _FLOOR))], [max(lowest, _FLOOR) + 1e-6])
    )
    return float(max(candidates, key=lambda threshold: _f1(truth, probability[pooled] >= threshold)))


def _f1(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> float:
    return float(2 * (truth & said).sum() / max(1, truth.sum() + said.sum()))
