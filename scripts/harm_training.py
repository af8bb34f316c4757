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
from scipy.sparse import csr_matrix, diags, hstack
from sklearn.linear_model import LogisticRegression

from ctrainer.agents.compliance.harm import words_of
from scripts.harm_corpus import Example

Floats = NDArray[np.float64]
_LEAST_PAIRS = 2
_IDF_SCALE = 6.0
_INVERSE_PENALTY = 20.0
_HAZARD_INVERSE_PENALTY = 5.0
_UNIT = 0.001
"""What 1 means in the weights file, in logits."""
_HAZARD_UNIT = 0.02
_HAZARD_WORDS = 12_000


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words and pairs that have weights, the words' inverse document frequency and their prior vectors."""

    words: Mapping[str, int]
    pairs: Mapping[tuple[str, str], int]
    idf: Floats
    vectors: Floats

    def matrix(self, texts: Sequence[str]) -> csr_matrix:
        """Return the features of texts: words, then pairs, then the sum of the words' prior vectors."""
        split = [split_text(text) for text in texts]
        words = _counts(split, self.words) @ diags(self.idf)
        pairs = _counts([list(pairwise(one)) for one in split], self.pairs)
        norm = diags(1 / np.sqrt([max(1, len(one)) for one in split]))
        return csr_matrix(norm @ hstack([words, pairs, csr_matrix(words @ self.vectors)]))

    def folded(self, coefficients: Floats) -> tuple[Floats, Floats]:
        """Return the weight of each word, its share of the prior vectors folded in, and of each pair."""
        own, pairs, prior = np.split(coefficients, [len(self.words), len(self.words) + len(self.pairs)])
        return self.idf * (own + self.vectors @ prior), pairs


def split_text(text: str) -> list[str]:
    """Return the words of a text exactly as the run time sees them."""
    return [word.decode("latin-1") for word in words_of(text)]


def vocabulary(texts: Sequence[str], known: Sequence[str], vectors: NDArray[np.float32]) -> Vocabulary:
    """Return the vocabulary of training texts, widened by the words that the encoder knows."""
    split = [split_text(text) for text in texts]
    frequency = Counter(word for one in split for word in set(one))
    pairs = Counter(pair for one in split for pair in set(pairwise(one)))
    words = {word: number for number, word in enumerate(sorted({*frequency, *known}))}
    idf = np.array([np.log((len(texts) + 1) / (frequency[word] + 1)) + 1 for word in words]) / _IDF_SCALE
    prior = np.zeros((len(words), vectors.shape[1]))
    centred = vectors - vectors.mean(0)
    prior[[words[word] for word in known]] = centred / np.sqrt((centred**2).sum(1).mean())
    often = sorted(pair for pair, count in pairs.items() if count >= _LEAST_PAIRS)
    return Vocabulary(words, {pair: number for number, pair in enumerate(often)}, idf, prior)


def _counts(split: Sequence[Sequence[Any]], numbers: Mapping[Any, int]) -> csr_matrix:
    places = [(row, numbers[item]) for row, one in enumerate(split) for item in one if item in numbers]
    rows, columns = zip(*places, strict=True) if places else ((), ())
    return csr_matrix((np.ones(len(places)), (rows, columns)), shape=(len(split), len(numbers)))


def fit_harm(features: csr_matrix, examples: Sequence[Example]) -> LogisticRegression:
    """Fit harmful against harmless."""
    weights = np.array([example.weight for example in examples])
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=500, solver="liblinear", random_state=0)
    return model.fit(features[weights > 0], _truth(examples)[weights > 0], weights[weights > 0])


def fit_hazards(features: csr_matrix, examples: Sequence[Example]) -> LogisticRegression:
    """Fit which hazard a harmful text is of."""
    rows = [row for row, example in enumerate(examples) if example.hazard]
    model = LogisticRegression(C=_HAZARD_INVERSE_PENALTY, max_iter=300, solver="lbfgs", random_state=0)
    return model.fit(features[rows], [examples[row].hazard for row in rows])


def _truth(examples: Sequence[Example]) -> NDArray[np.bool_]:
    return np.array([example.harmful for example in examples])


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Platt's sigmoid of the raw score for each hazard that it is attributed to, and where scoring may stop early."""

    slope: Mapping[str, float]
    offset: Mapping[str, float]
    gate: float
    floor: float


def packed(terms: Vocabulary, harm: LogisticRegression, hazards: LogisticRegression, calibration: Calibration) -> bytes:
    """Return the weights file: gzip of JSON, the same bytes for the same weights."""
    words, pairs = terms.folded(harm.coef_[0])
    of_hazards = np.array([terms.folded(row)[0] for row in hazards.coef_])
    document = {
        "unit": _UNIT,
        "bias": float(harm.intercept_[0]),
        "gate": calibration.gate,
        "floor": calibration.floor,
        "words": dict(_rounded(terms.words, words)),
        "pairs": {" ".join(pair): weight for pair, weight in _rounded(terms.pairs, pairs)},
        "hazards": {
            str(code): {"bias": float(bias), "slope": calibration.slope[code], "offset": calibration.offset[code]}
            for code, bias in zip(hazards.classes_, hazards.intercept_, strict=True)
        },
        "hazard_unit": _HAZARD_UNIT,
        "hazard_words": dict(_hazard_words(terms, of_hazards)),
    }
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), 9, mtime=0)


def _rounded(numbers: Mapping[Any, int], weights: Floats) -> Iterator[tuple[Any, int]]:
    for term, number in numbers.items():
        if weight := round(float(weights[number]) / _UNIT):
            yield term, weight


def _hazard_words(terms: Vocabulary, weights: Floats) -> Iterator[tuple[str, list[int]]]:
    """Yield the words that tell hazards apart."""
    spread = weights.max(0) - weights.min(0)
    floor = np.sort(spread)[-min(_HAZARD_WORDS, len(spread))]
    for word, number in terms.words.items():
        if spread[number] >= floor:
            yield word, [max(-4095, min(4095, round(float(weight) / _HAZARD_UNIT))) for weight in weights[:, number]]
