"""Puts the harm score together: fits, calibrates by inner folds, and packs what the run time reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.spoken import Spoken
from scripts.harm_corpus import Example, fold_numbers
from scripts.harm_encoders import MOST_TOKENS, Encoders
from scripts.harm_teacher import Teacher, fit_teacher
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
    """What does not depend on any label: our own sentences, unlabelled texts, and the vectors of encoders.

    `encoder` is the SHA-256 of the weights that made the vectors of texts, `cut` are those that it did not read to
    their end.
    """

    own: Sequence[Example]
    unlabelled: Sequence[str]
    words: Sequence[str]
    word_vectors: NDArray[np.float32]
    encoder: str
    text_vectors: Mapping[str, NDArray[np.float32]]
    cut: frozenset[str]

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
        encoder=encoders.digest,
        text_vectors=dict(zip(texts, encoders.of_texts(texts), strict=True)),
        cut=encoders.cut(texts),
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


class Weights(NamedTuple):
    """The weights files of the harm score and of the second look."""

    harm: bytes
    look: bytes


class Said(NamedTuple):
    """What the run time makes of texts: the harm score, the second look, and the threshold of both."""

    harm: Sequence[Mapping[str, float]]
    look: Sequence[Mapping[str, float]]
    threshold: float


def fit(examples: Sequence[Example], known: Knowledge) -> Weights:
    """Return the weights trained on all examples; everything but the weights is chosen by inner folds."""
    teacher = _teacher([*examples, *known.own], known)
    material = _material(examples, known, teacher)
    held_out = _held_out(examples, material, known)
    harm, hazards = material.fitted(np.zeros(0, np.int64))
    calibration = _calibration(examples, held_out, [str(code) for code in hazards.classes_])
    weights = packed(material.terms, harm, hazards, calibration)
    look = fit_second_look(
        examples,
        np.stack([held_out.logits, held_out.taught], 1),
        teacher,
        encoder=known.encoder,
        most_tokens=MOST_TOKENS,
        harm=HarmModel.read(weights).version,
    )
    return Weights(weights, look)


def scored(weights: Weights, examples: Sequence[Example], known: Knowledge) -> Said:
    """Return what the run time makes of texts."""
    model = HarmModel.read(weights.harm)
    said = model.scores(Spoken.of([(example.role, example.text) for example in examples]))
    texts = [example.text for example in examples]
    whole = [text not in known.cut for text in texts]
    look = looked_at(weights.look, model, examples, known.vectors(texts), whole)
    return Said(said, look, model.threshold)


def _material(labelled: Sequence[Example], known: Knowledge, teacher: Teacher) -> _Material:
    examples = [*labelled, *known.own]
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


def _teacher(examples: Sequence[Example], known: Knowledge) -> Teacher:
    return fit_teacher(known.vectors([example.text for example in examples]), examples)


class _HeldOut(NamedTuple):
    """Of each labelled text by models of other inner folds: logits of the score and a teacher, likeliest hazard."""

    logits: Floats
    taught: Floats
    hazards: NDArray[np.str_]


def _held_out(examples: Sequence[Example], material: _Material, known: Knowledge) -> _HeldOut:
    fold = fold_numbers(examples, folds=_INNER_FOLDS, seed=_INNER_SEED)
    found = _HeldOut(np.zeros(len(examples)), np.zeros(len(examples)), np.full(len(examples), "", dtype="<U4"))
    for number in range(_INNER_FOLDS):
        rows = np.flatnonzero(fold == number)
        harm, hazards = material.fitted(rows)
        texts = [example.text for example, other in zip(examples, fold, strict=True) if other == number]
        found.logits[rows] = harm.logits(Features(material.features.counts[rows], material.features.priors[rows]))
        found.hazards[rows] = hazards.predict(material.words(rows))
        teacher = _teacher([*(e for e, f in zip(examples, fold, strict=True) if f != number), *known.own], known)
        found.taught[rows] = teacher.logits(known.vectors(texts))
    return found


def _calibration(examples: Sequence[Example], held_out: _HeldOut, codes: Sequence[str]) -> Calibration:
    """Fit Platt's sigmoid for each attributed hazard; a hazard with few texts leans on all of them."""
    logits, _, hazards = held_out
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
