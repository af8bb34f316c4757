"""Puts the harm score together: fits, calibrates by inner folds, and packs what the run time reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.spoken import Spoken
from scripts.harm_corpus import ANSWERS, POOLED, Example, fold_numbers
from scripts.harm_encoder import SentenceEncoder
from scripts.harm_teacher import fit_teacher
from scripts.harm_training import (
    Calibration,
    Features,
    Floats,
    Linear,
    Vocabulary,
    fit_hazards,
    fit_linear,
    packed,
    split_text,
    vocabulary,
)

_INNER_FOLDS = 3
_INNER_SEED = 11
_FLOOR = 0.2
_MOST_FALSE_ALARMS = 0.02
"""On plain instructions."""
_MOST_FALSE_ALARMS_ON_ANSWERS = 0.004
_PSEUDO_COUNT = 200
_TAUGHT_WEIGHT = 0.5
_LONGEST_WORD_TOKENS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What does not depend on any label: our own sentences, unlabelled texts, and the encoder's vectors."""

    own: Sequence[Example]
    unlabelled: Sequence[str]
    words: Sequence[str]
    word_vectors: NDArray[np.float32]
    text_vectors: Mapping[str, NDArray[np.float32]]

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the encoder's vectors of texts: shape (texts, dimensions)."""
        return np.array([self.text_vectors[text] for text in texts])


def knowledge(
    examples: Sequence[Example], own: Sequence[Example], unlabelled: Sequence[str], remembered: Path | None = None
) -> Knowledge:
    """Run the encoder over all texts and words; what the file `remembered` holds is not run again."""
    encoder = SentenceEncoder(remembered)
    texts = sorted({*(example.text for example in [*examples, *own]), *unlabelled})
    seen = {word for example in [*examples, *own] for word in split_text(example.text)}
    words = sorted({*encoder.words(), *seen})
    return Knowledge(
        own=own,
        unlabelled=unlabelled,
        words=words,
        word_vectors=encoder.encode(words, max_tokens=_LONGEST_WORD_TOKENS),
        text_vectors=dict(zip(texts, encoder.encode(texts), strict=True)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Material:
    """All that a model may be fitted to: labelled examples, then our own, then unlabelled texts with what is taught."""

    terms: Vocabulary
    examples: Sequence[Example]
    features: Features
    truth: Floats
    weights: Floats

    def fitted(self, left_out: NDArray[np.int64]) -> tuple[Linear, LogisticRegression]:
        """Return the score and the hazards, fitted without some of the examples."""
        rows = np.setdiff1d(np.flatnonzero(self.weights), left_out)
        features = Features(self.features.counts[rows], self.features.priors[rows])
        harm = fit_linear(features, self.truth[rows], self.weights[rows])
        kept = np.setdiff1d(np.arange(len(self.examples)), left_out)
        return harm, fit_hazards(self.words(kept), [self.examples[row] for row in kept])

    def words(self, rows: NDArray[np.int64]) -> csr_matrix:
        """Return the features of some examples, without pairs."""
        words = self.features.counts[rows][:, : len(self.terms.words)]
        return csr_matrix(hstack([words, csr_matrix(self.features.priors[rows])]))


def fit(examples: Sequence[Example], known: Knowledge) -> bytes:
    """Return the weights trained on all examples; everything but the weights is chosen by inner folds."""
    material = _material(examples, known)
    held_out = _held_out(examples, material)
    harm, hazards = material.fitted(np.zeros(0, np.int64))
    calibration = _calibration(examples, held_out, [str(code) for code in hazards.classes_])
    return packed(material.terms, harm, hazards, calibration)


def scored(weights: bytes, examples: Sequence[Example]) -> tuple[list[Mapping[str, float]], float]:
    """Return what the run time makes of texts, and the threshold."""
    model = HarmModel.read(weights)
    return model.scores(Spoken.of([(example.role, example.text) for example in examples])), model.threshold


def _material(labelled: Sequence[Example], known: Knowledge) -> _Material:
    examples = [*labelled, *known.own]
    taught = _taught(examples, known)
    texts = [*(example.text for example in examples), *known.unlabelled]
    terms = vocabulary(texts, known.words, known.word_vectors)
    return _Material(
        terms=terms,
        examples=examples,
        features=terms.features(texts),
        truth=np.concatenate([[example.harmful for example in examples], taught]),
        weights=np.concatenate([[example.weight for example in examples], np.full(len(taught), _TAUGHT_WEIGHT)]),
    )


def _taught(examples: Sequence[Example], known: Knowledge) -> Floats:
    """Return how likely a teacher, fitted to the same examples, finds unlabelled texts harmful."""
    counted = [example for example in examples if example.weight]
    teacher = fit_teacher(
        known.vectors([example.text for example in counted]),
        np.array([example.harmful for example in counted], np.float32),
        np.array([example.weight for example in counted], np.float32),
    )
    taught: Floats = 1 / (1 + np.exp(-teacher.logits(known.vectors(known.unlabelled))))
    return taught


def _held_out(examples: Sequence[Example], material: _Material) -> tuple[Floats, NDArray[np.str_]]:
    """Return the logit of harm and the likeliest hazard of each labelled text, by models of the other inner folds."""
    fold = fold_numbers(examples, folds=_INNER_FOLDS, seed=_INNER_SEED)
    logits, named = np.zeros(len(examples)), np.full(len(examples), "", dtype="<U4")
    for number in range(_INNER_FOLDS):
        rows = np.flatnonzero(fold == number)
        harm, hazards = material.fitted(rows)
        logits[rows] = harm.logits(Features(material.features.counts[rows], material.features.priors[rows]))
        named[rows] = hazards.predict(material.words(rows))
    return logits, named


def _calibration(
    examples: Sequence[Example], held_out: tuple[Floats, NDArray[np.str_]], codes: Sequence[str]
) -> Calibration:
    """Fit Platt's sigmoid for each attributed hazard; a hazard with few texts leans on all of them."""
    logits, hazards = held_out
    truth = np.array([example.harmful for example in examples])
    counted = np.array([example.weight > 0 for example in examples])
    slope, offset = {}, {}
    for code in codes:
        weights = np.where(hazards == code, 1.0, _PSEUDO_COUNT / len(examples)) * counted
        model = LogisticRegression(C=1e3).fit(logits[:, None], truth, weights)
        slope[code], offset[code] = float(model.coef_[0, 0]), float(model.intercept_[0])
    steepness, shift = np.array([slope[code] for code in hazards]), np.array([offset[code] for code in hazards])
    probability = 1 / (1 + np.exp(-(steepness * logits + shift)))
    threshold = _threshold(examples, probability)
    room = (np.log(threshold / (1 - threshold)) - shift) / steepness - logits
    answers = room[[example.source == ANSWERS for example in examples]]
    lower = float(np.quantile(answers, _MOST_FALSE_ALARMS_ON_ANSWERS)) if len(answers) else 0.0
    shifts = {"assistant": min(0.0, lower)}
    return Calibration(slope=slope, offset=offset, shifts=shifts, floor=_FLOOR, threshold=threshold)


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
