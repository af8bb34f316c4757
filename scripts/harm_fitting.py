"""Puts the harm score together: fits, calibrates by inner folds, and packs what the run time reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from ctrainer.agents.compliance.harm import HarmModel
from scripts.harm_corpus import POOLED, Example, fold_numbers
from scripts.harm_encoder import SentenceEncoder
from scripts.harm_training import Calibration, Floats, Vocabulary, fit_harm, fit_hazards, packed, split_text, vocabulary

_INNER_FOLDS = 4
_INNER_SEED = 11
_FLOOR = 0.2
_LOST_TO_GATE = 0.01
"""Share of the texts above the floor that may be lost by stopping before word pairs are looked at."""
_MOST_FALSE_ALARMS = 0.025
_PSEUDO_COUNT = 200
_TEACHER_PENALTY = 10.0
_TEACHER_STEEPNESS = 2.5
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


def knowledge(examples: Sequence[Example], own: Sequence[Example], unlabelled: Sequence[str]) -> Knowledge:
    """Run the encoder over all texts and words."""
    encoder = SentenceEncoder()
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
class _Linear:
    terms: Vocabulary
    harm: LogisticRegression
    hazards: LogisticRegression

    def applied(self, texts: Sequence[str]) -> tuple[Floats, Floats, NDArray[np.str_]]:
        """Return the logit, the logit without pairs, and the likeliest hazard of each text."""
        features = self.terms.matrix(texts)
        words = self.terms.without_pairs(features)
        return self.harm.decision_function(features), self.harm.decision_function(words), self.hazards.predict(words)


def fit(examples: Sequence[Example], known: Knowledge) -> bytes:
    """Return the weights trained on all examples; everything but the weights is chosen by inner folds."""
    taught = _taught([*examples, *known.own], known)
    held_out = _held_out(examples, known, taught)
    final = _linear(examples, known, taught)
    calibration = _calibration(examples, held_out, [str(code) for code in final.hazards.classes_])
    return packed(final.terms, final.harm, final.hazards, calibration)


def scored(weights: bytes, texts: Sequence[str]) -> tuple[Floats, list[str | None], float]:
    """Return what the run time makes of texts: the highest score, its hazard, and the threshold."""
    model = HarmModel.read(weights)
    best = [max(model.score(text).items(), key=lambda item: item[1], default=(None, 0.0)) for text in texts]
    return np.array([score for _, score in best]), [code for code, _ in best], model.threshold


def _linear(labelled: Sequence[Example], known: Knowledge, taught: Floats) -> _Linear:
    examples = [*labelled, *known.own]
    texts = [example.text for example in examples]
    terms = vocabulary([*texts, *known.unlabelled], known.words, known.word_vectors)
    features = terms.matrix(texts)
    harm = fit_harm(features, examples, terms.matrix(known.unlabelled), taught)
    return _Linear(terms=terms, harm=harm, hazards=fit_hazards(terms.without_pairs(features), examples))


def _taught(examples: Sequence[Example], known: Knowledge) -> Floats:
    """Return how harmful a kernel machine on sentence vectors, fitted to the same examples, finds unlabelled texts."""
    counted = [example for example in examples if example.weight]
    teacher = SVC(C=_TEACHER_PENALTY, gamma=1.0, cache_size=500)
    teacher.fit(
        known.vectors([example.text for example in counted]),
        [example.harmful for example in counted],
        [example.weight for example in counted],
    )
    margin = teacher.decision_function(known.vectors(known.unlabelled))
    taught: Floats = 1 / (1 + np.exp(-_TEACHER_STEEPNESS * margin))
    return taught


def _held_out(examples: Sequence[Example], known: Knowledge, taught: Floats) -> tuple[Floats, Floats, NDArray[np.str_]]:
    fold = fold_numbers(examples, folds=_INNER_FOLDS, seed=_INNER_SEED)
    logits, without_pairs = np.zeros(len(examples)), np.zeros(len(examples))
    hazards = np.full(len(examples), "", dtype="<U4")
    for number in range(_INNER_FOLDS):
        rows = np.flatnonzero(fold == number).tolist()
        model = _linear([e for e, f in zip(examples, fold, strict=True) if f != number], known, taught)
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
    steepness, shift = np.array([slope[code] for code in hazards]), np.array([offset[code] for code in hazards])
    probability = 1 / (1 + np.exp(-(steepness * logits + shift)))
    gate = float(np.quantile(without_pairs[probability >= _FLOOR], _LOST_TO_GATE))
    threshold = _threshold(examples, probability)
    return Calibration(slope=slope, offset=offset, gate=gate, floor=_FLOOR, threshold=threshold)


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
