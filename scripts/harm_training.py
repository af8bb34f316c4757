"""Fits the harm score: a linear model whose word weights share what a sentence encoder knows about words."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, hstack, vstack
from sklearn.linear_model import LogisticRegression

from ctrainer.agents.compliance.words import LETTERS, bytes_of
from scripts.harm_corpus import Example

Floats = NDArray[np.float64]
_LEAST_PAIRS = 2
_IDF_SCALE = 6.0
_PAIR_SCALE = 1.5
_INVERSE_PENALTY = 20.0
_HAZARD_INVERSE_PENALTY = 5.0
_UNIT = 0.005
"""What 1 means in the weights file, in logits."""
_LARGEST = 4095
_MOST_WORDS = 21_800
_MOST_PAIRS = 10_900
"""What fits the hash tables of 32,768 and 16,384 places, whose indices stay in a core's own cache."""
_HAZARD_WORDS = 12_000
_TAUGHT_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words and pairs that have weights, commonest first, the words' inverse document frequency and prior vectors.

    The order is that of the weights file: what is common lies together in memory, which halves the time of a look-up.
    """

    words: Mapping[str, int]
    pairs: Mapping[tuple[str, str], int]
    word_counts: Floats
    pair_counts: Floats
    idf: Floats
    vectors: Floats

    def matrix(self, texts: Sequence[str]) -> csr_matrix:
        """Return the features of texts: words, then pairs, then the sum of the words' prior vectors."""
        split = [split_text(text) for text in texts]
        words = _counts(split, self.words) @ diags(self.idf)
        pairs = _counts([list(pairwise(one)) for one in split], self.pairs) * _PAIR_SCALE
        norm = diags(1 / np.sqrt([max(1, len(one)) for one in split]))
        return csr_matrix(norm @ hstack([words, pairs, csr_matrix(words @ self.vectors)]))

    def folded(self, coefficients: Floats) -> tuple[Floats, Floats]:
        """Return the weight of each word, its share of the prior vectors folded in, and of each pair."""
        own, pairs, prior = np.split(coefficients, [len(self.words), len(self.words) + len(self.pairs)])
        return self.idf * (own + self.vectors @ prior), pairs * _PAIR_SCALE

    def without_pairs(self, features: csr_matrix) -> csr_matrix:
        """Return features with nothing in the columns of pairs."""
        kept = np.ones(features.shape[1])
        kept[len(self.words) : len(self.words) + len(self.pairs)] = 0
        return csr_matrix(features @ diags(kept))


def split_text(text: str) -> list[str]:
    """Return the words of a text exactly as the run time sees them."""
    return [word.decode() for word in bytes_of(text).translate(LETTERS).split(b"\0") if word]


def vocabulary(texts: Sequence[str], known: Sequence[str], vectors: NDArray[np.float32]) -> Vocabulary:
    """Return the vocabulary of training texts, widened by the words that the encoder knows."""
    split = [split_text(text) for text in texts]
    frequency = Counter(word for one in split for word in set(one))
    pairs = Counter(pair for one in split for pair in set(pairwise(one)))
    common = sorted({*frequency, *known}, key=lambda word: (-frequency[word], word))
    words = {word: number for number, word in enumerate(common)}
    counts = np.array([frequency[word] for word in common], dtype=np.float64)
    idf = (np.log((len(texts) + 1) / (counts + 1)) + 1) / _IDF_SCALE
    prior = np.zeros((len(words), vectors.shape[1]))
    centred = vectors - vectors.mean(0)
    prior[[words[word] for word in known]] = centred / np.sqrt((centred**2).sum(1).mean())
    often = sorted(
        (pair for pair, count in pairs.items() if count >= _LEAST_PAIRS), key=lambda pair: (-pairs[pair], pair)
    )
    return Vocabulary(
        words=words,
        pairs={pair: number for number, pair in enumerate(often)},
        word_counts=counts,
        pair_counts=np.array([pairs[pair] for pair in often], dtype=np.float64),
        idf=idf,
        vectors=prior,
    )


def _counts(split: Sequence[Sequence[Any]], numbers: Mapping[Any, int]) -> csr_matrix:
    places = [(row, numbers[item]) for row, one in enumerate(split) for item in one if item in numbers]
    rows, columns = zip(*places, strict=True) if places else ((), ())
    return csr_matrix((np.ones(len(places)), (rows, columns)), shape=(len(split), len(numbers)))


def fit_harm(
    features: csr_matrix, examples: Sequence[Example], unlabelled: csr_matrix, taught: Floats
) -> LogisticRegression:
    """Fit harmful against harmless, and what the teacher says about unlabelled texts beside it."""
    weights = np.array([example.weight for example in examples])
    truth = np.array([example.harmful for example in examples])
    rows = np.flatnonzero(weights)
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=500, solver="liblinear", random_state=0)
    return model.fit(
        vstack([features[rows], unlabelled, unlabelled]).tocsr(),
        np.concatenate([truth[rows], np.ones(len(taught), bool), np.zeros(len(taught), bool)]),
        np.concatenate([weights[rows], _TAUGHT_WEIGHT * taught, _TAUGHT_WEIGHT * (1 - taught)]),
    )


def fit_hazards(features: csr_matrix, examples: Sequence[Example]) -> LogisticRegression:
    """Fit which hazard a harmful text is of, each hazard as important as any other."""
    rows = [row for row, example in enumerate(examples) if example.hazard]
    model = LogisticRegression(C=_HAZARD_INVERSE_PENALTY, max_iter=300, class_weight="balanced")
    return model.fit(features[rows], [examples[row].hazard for row in rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Platt's sigmoid of the raw score for each hazard that it is attributed to, and what is chosen with it.

    Texts whose words alone score below `gate` are not looked at further; scores below `floor` are not given;
    `threshold` is where a text is called harmful.
    """

    slope: Mapping[str, float]
    offset: Mapping[str, float]
    gate: float
    floor: float
    threshold: float


def packed(terms: Vocabulary, harm: LogisticRegression, hazards: LogisticRegression, calibration: Calibration) -> bytes:
    """Return the weights file: gzip of JSON, the same bytes for the same weights."""
    words, pairs = terms.folded(harm.coef_[0])
    words, pairs = _largest(words, terms.word_counts, _MOST_WORDS), _largest(pairs, terms.pair_counts, _MOST_PAIRS)
    of_hazards = np.array([terms.folded(row)[0] for row in hazards.coef_])
    of_hazards[:, words == 0] = 0
    document = {
        "threshold": calibration.threshold,
        "floor": calibration.floor,
        "gate": calibration.gate,
        "bias": float(harm.intercept_[0]),
        "unit": _UNIT,
        "hazards": {
            str(code): {"bias": float(bias), "slope": calibration.slope[code], "offset": calibration.offset[code]}
            for code, bias in zip(hazards.classes_, hazards.intercept_, strict=True)
        },
        "words": dict(_word_rows(terms, words, of_hazards)),
        "pairs": {" ".join(pair): weight for pair, weight in zip(terms.pairs, _units(pairs), strict=True) if weight},
    }
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), 9, mtime=0)


def _largest(weights: Floats, counts: Floats, most: int) -> Floats:
    """Return the weights that matter most by size and use, zero for all others."""
    weight_in_use = np.abs(weights) * np.sqrt(counts + 1)
    least = np.sort(weight_in_use)[-min(most, len(weights))]
    return np.where(weight_in_use >= least, weights, 0.0)


def _units(weights: Floats) -> list[int]:
    return [int(weight) for weight in np.clip(np.rint(weights / _UNIT), -_LARGEST, _LARGEST)]


def _word_rows(terms: Vocabulary, harm: Floats, of_hazards: Floats) -> Iterator[tuple[str, list[int]]]:
    """Yield the weight of each word for harm and, where the word tells hazards apart, for each hazard."""
    spread = (of_hazards.max(0) - of_hazards.min(0)) * np.sqrt(terms.word_counts + 1)
    floor = np.sort(spread)[-min(_HAZARD_WORDS, len(spread))]
    for (word, number), weight in zip(terms.words.items(), _units(harm), strict=True):
        if spread[number] >= floor:
            yield word, [weight, *_units(of_hazards[:, number])]
        elif weight:
            yield word, [weight]
