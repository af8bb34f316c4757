"""Puts the harm score together: fits, calibrates by inner folds, and packs what the run time reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.spoken import Spoken
from scripts.frozen_layers import FrozenLayers
from scripts.harm_corpus import Example, fold_numbers
from scripts.harm_encoders import Encoders
from scripts.harm_teacher import fit_teacher
from scripts.harm_threshold import FLOOR, lower_for_answers, threshold_of
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
from scripts.second_look_fitting import fit_second_look, looked_at

_INNER_FOLDS = 3
_INNER_SEED = 11
_PSEUDO_COUNT = 200
_TAUGHT_WEIGHT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What does not depend on any label: our own sentences, unlabelled texts, and what encoders make of texts."""

    own: Sequence[Example]
    unlabelled: Sequence[str]
    words: Sequence[str]
    word_vectors: NDArray[np.float32]
    text_vectors: Mapping[str, NDArray[np.float32]]
    frozen: FrozenLayers

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the encoder's vectors of texts: shape (texts, dimensions)."""
        return np.array([self.text_vectors[text] for text in texts])


def knowledge(
    examples: Sequence[Example], own: Sequence[Example], unlabelled: Sequence[str], encoders: Encoders
) -> Knowledge:
    """Run the encoders over all texts and words."""
    texts = sorted({*(example.text for example in [*examples, *own]), *unlabelled})
    seen = {word for example in [*examples, *own] for word in split_text(example.text)}
    words = sorted({*encoders.vocabulary, *seen})
    return Knowledge(
        own=own,
        unlabelled=unlabelled,
        words=words,
        word_vectors=encoders.of_words(words),
        text_vectors=dict(zip(texts, encoders.of_texts(texts), strict=True)),
        frozen=encoders.frozen,
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


class Said(NamedTuple):
    """What the run time makes of texts: the harm score, the second look, and the threshold of both."""

    harm: Sequence[Mapping[str, float]]
    look: Sequence[Mapping[str, float]]
    threshold: float


def fit(examples: Sequence[Example], known: Knowledge, look: Path) -> bytes:
    """Return the weights of the harm score trained on all examples, and write those of the second look to a folder.

    Everything but the weights is chosen by inner folds, or by examples that are held out.
    """
    material = _material(examples, known)
    held_out = _held_out(examples, material)
    harm, hazards = material.fitted(np.zeros(0, np.int64))
    calibration = _calibration(examples, held_out, [str(code) for code in hazards.classes_])
    weights = packed(material.terms, harm, hazards, calibration)
    fit_second_look(examples, known.own, held_out.logits, known.frozen, look, harm=HarmModel.read(weights).version)
    return weights


def scored(weights: bytes, look: Path, examples: Sequence[Example], known: Knowledge) -> Said:
    """Return what the run time makes of texts."""
    model = HarmModel.read(weights)
    said = model.scores(Spoken.of([(example.role, example.text) for example in examples]))
    return Said(said, looked_at(look, model, examples, known.frozen), model.threshold)


def _material(labelled: Sequence[Example], known: Knowledge) -> _Material:
    examples = [*labelled, *known.own]
    teacher = fit_teacher(known.vectors([example.text for example in examples]), examples)
    taught: Floats = 1 / (1 + np.exp(-teacher.logits(known.vectors(known.unlabelled))))
    texts = [*(example.text for example in examples), *known.unlabelled]
    terms = vocabulary(texts, known.words, known.word_vectors)
    return _Material(
        terms=terms,
        examples=examples,
        features=terms.features(texts),
        truth=np.concatenate([[example.harmful for example in examples], taught]),
        weights=np.concatenate([[example.weight for example in examples], np.full(len(taught), _TAUGHT_WEIGHT)]),
    )


class _HeldOut(NamedTuple):
    """Of each labelled text by models of other inner folds: logits of the score, likeliest hazard."""

    logits: Floats
    hazards: NDArray[np.str_]


def _held_out(examples: Sequence[Example], material: _Material) -> _HeldOut:
    fold = fold_numbers(examples, folds=_INNER_FOLDS, seed=_INNER_SEED)
    found = _HeldOut(np.zeros(len(examples)), np.full(len(examples), "", dtype="<U4"))
    for number in range(_INNER_FOLDS):
        rows = np.flatnonzero(fold == number)
        harm, hazards = material.fitted(rows)
        found.logits[rows] = harm.logits(Features(material.features.counts[rows], material.features.priors[rows]))
        found.hazards[rows] = hazards.predict(material.words(rows))
    return found


def _calibration(examples: Sequence[Example], held_out: _HeldOut, codes: Sequence[str]) -> Calibration:
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
    threshold = threshold_of(examples, probability)
    room = (np.log(threshold / (1 - threshold)) - shift) / steepness - logits
    shifts = {"assistant": lower_for_answers(examples, room)}
    return Calibration(slope=slope, offset=offset, shifts=shifts, floor=FLOOR, threshold=threshold)
