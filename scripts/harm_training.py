"""Fits the harm score: a linear model whose word weights share what a sentence encoder knows about words."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, diags, hstack
from sklearn.linear_model import LogisticRegression

from ctrainer.agents.compliance.harm import PLACE_BITS, keys_of_pairs, keys_of_words
from ctrainer.agents.compliance.weight_table import without_clashes
from ctrainer.agents.compliance.words import LETTERS, bytes_of
from scripts.harm_corpus import Example

Floats = NDArray[np.float64]
Pair: TypeAlias = tuple[int, str, str]
"""The distance of two words, and the words."""
_GAPS = {1: 1.5, 2: 1.2, 3: 1.2}
"""Distance of two words of a pair to the scale of its feature."""
FEWEST_WORDS = 8
"""Shorter texts are weighed as if they had so many words: a word or two are little evidence."""
_LEAST_PAIRS = 2
_IDF_SCALE = 6.0
_INVERSE_PENALTY = 12.0
_HAZARD_INVERSE_PENALTY = 5.0
_ITERATIONS = 80
_HAZARD_ITERATIONS = 300
_UNIT = 0.005
"""What 1 means in the weights file, in logits."""
_LARGEST = 4095
_MOST_WORDS = 24_000
_MOST_PAIRS = 32_000
_HAZARD_WORDS = 12_000


class Features(NamedTuple):
    """The features of texts: counts of words, then of pairs, and the sums of the words' prior vectors."""

    counts: csr_matrix
    priors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words and pairs that have weights, commonest first, the words' inverse document frequency and prior vectors."""

    words: Mapping[str, int]
    pairs: Mapping[Pair, int]
    word_counts: Floats
    pair_counts: Floats
    idf: Floats
    vectors: NDArray[np.float32]

    def features(self, texts: Sequence[str]) -> Features:
        """Return the features of texts."""
        split = [split_text(text) for text in texts]
        norm = diags(1 / np.sqrt([max(FEWEST_WORDS, len(one)) for one in split]))
        words = csr_matrix(norm @ _counts(split, self.words) @ diags(self.idf))
        pairs = norm @ _counts([list(_pairs(one)) for one in split], self.pairs) @ diags(self._pair_scales())
        return Features(csr_matrix(hstack([words, pairs])), np.asarray(words @ self.vectors, np.float32))

    def weights(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the weight of each word, its share of the prior vectors folded in, and of each pair."""
        own, pairs, prior = np.split(weights, [len(self.words), len(self.words) + len(self.pairs)])
        return self.idf * (own + self.vectors @ prior), pairs * self._pair_scales()

    def _pair_scales(self) -> Floats:
        return np.array([_GAPS[gap] for gap, _, _ in self.pairs])


def split_text(text: str) -> list[str]:
    """Return the words of a text as the run time sees them."""
    return [word.decode() for word in bytes_of(text).translate(LETTERS).split(b"\0") if word]


def _pairs(words: Sequence[str]) -> Iterator[Pair]:
    for gap in _GAPS:
        for first, second in zip(words, words[gap:], strict=False):
            yield gap, first, second


def vocabulary(texts: Sequence[str], known: Sequence[str], vectors: NDArray[np.float32]) -> Vocabulary:
    """Return the vocabulary of training texts, widened by the words that the encoder knows."""
    split = [split_text(text) for text in texts]
    frequency = Counter(word for one in split for word in set(one))
    pairs = Counter(pair for one in split for pair in set(_pairs(one)))
    common = sorted({*frequency, *known}, key=lambda word: (-frequency[word], word))
    words = {word: number for number, word in enumerate(common)}
    counts = np.array([frequency[word] for word in common], dtype=np.float64)
    prior = np.zeros((len(words), vectors.shape[1]), np.float32)
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
        idf=(np.log((len(texts) + 1) / (counts + 1)) + 1) / _IDF_SCALE,
        vectors=prior,
    )


def _counts(split: Sequence[Sequence[Any]], numbers: Mapping[Any, int]) -> csr_matrix:
    places = [(row, numbers[item]) for row, one in enumerate(split) for item in one if item in numbers]
    rows, columns = zip(*places, strict=True) if places else ((), ())
    return csr_matrix((np.ones(len(places)), (rows, columns)), shape=(len(split), len(numbers)))


@dataclass(frozen=True, slots=True)
class Linear:
    """A fitted score: weights of all features, and what is added."""

    weights: Floats
    bias: float

    def logits(self, features: Features) -> Floats:
        """Return the logit of each text."""
        own, prior = np.split(self.weights, [features.counts.shape[1]])
        logits: Floats = features.counts @ own + features.priors @ prior + self.bias
        return logits


def fit_linear(features: Features, truth: Floats, weights: Floats) -> Linear:
    """Fit a logistic regression to probabilities of harm, by L-BFGS. The bias bears no penalty."""
    counts, priors = features
    transposed, wide = counts.T.tocsr(), counts.shape[1]

    def loss(point: Floats) -> tuple[float, Floats]:
        own, prior, bias = point[:wide], point[wide:-1].astype(np.float32), point[-1]
        logits = counts @ own + priors @ prior + bias
        slope = weights * (1 / (1 + np.exp(-logits)) - truth)
        penalty = point[:-1] / _INVERSE_PENALTY
        gradient = np.concatenate([transposed @ slope, priors.T @ slope.astype(np.float32)]) + penalty
        total = weights @ (np.logaddexp(0, logits) - truth * logits) + 0.5 * point[:-1] @ penalty
        return float(total), np.append(gradient, slope.sum())

    start = np.zeros(wide + priors.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS}).x
    return Linear(found[:-1], float(found[-1]))


def fit_hazards(features: csr_matrix, examples: Sequence[Example]) -> LogisticRegression:
    """Fit which hazard a harmful text is of by its words and priors, each hazard as important as any other."""
    rows = [row for row, example in enumerate(examples) if example.hazard]
    model = LogisticRegression(C=_HAZARD_INVERSE_PENALTY, max_iter=_HAZARD_ITERATIONS, class_weight="balanced")
    return model.fit(features[rows], [examples[row].hazard for row in rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Platt's sigmoid of the raw score for each hazard that it is attributed to, and what is chosen with it.

    `shifts` is added to the logit of a role; scores below `floor` are not given; `threshold` is where a text is called
    harmful.
    """

    slope: Mapping[str, float]
    offset: Mapping[str, float]
    shifts: Mapping[str, float]
    floor: float
    threshold: float


def packed(terms: Vocabulary, harm: Linear, hazards: LogisticRegression, calibration: Calibration) -> bytes:
    """Return the weights file: gzip of JSON, the same bytes for the same weights."""
    words, pairs = terms.weights(harm.weights)
    words = _placed(words, terms.word_counts, keys_of_words(list(terms.words)), _MOST_WORDS)
    pairs = _placed(pairs, terms.pair_counts, _pair_keys(terms.pairs), _MOST_PAIRS)
    own, prior = np.split(np.asarray(hazards.coef_), [len(terms.words)], axis=1)
    of_hazards = terms.idf * (own + prior @ terms.vectors.T)
    of_hazards[:, words == 0] = 0
    document = {
        "threshold": calibration.threshold,
        "floor": calibration.floor,
        "bias": harm.bias,
        "unit": _UNIT,
        "fewest_words": FEWEST_WORDS,
        "shifts": dict(calibration.shifts),
        "hazards": {
            str(code): {"bias": float(bias), "slope": calibration.slope[code], "offset": calibration.offset[code]}
            for code, bias in zip(hazards.classes_, hazards.intercept_, strict=True)
        },
        "words": dict(_word_rows(terms, words, of_hazards)),
        "pairs": {
            str(distance): {
                f"{first} {second}": weight
                for (gap, first, second), weight in zip(terms.pairs, _units(pairs), strict=True)
                if weight and gap == distance
            }
            for distance in _GAPS
        },
    }
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), 9, mtime=0)


def _pair_keys(pairs: Mapping[Pair, int]) -> NDArray[np.uint64]:
    keys = np.zeros(len(pairs), np.uint64)
    for distance in _GAPS:
        places = [number for (gap, _, _), number in pairs.items() if gap == distance]
        named = [f"{first} {second}" for gap, first, second in pairs if gap == distance]
        keys[places] = keys_of_pairs(named, distance)
    return keys


def _placed(weights: Floats, counts: Floats, keys: NDArray[np.uint64], most: int) -> Floats:
    """Return the weights that matter most by size and use and have a place of their own, zero for all others."""
    order = np.argsort(-np.abs(weights) * np.sqrt(counts + 1), kind="stable")[:most]
    order = order[without_clashes(keys[order], bits=PLACE_BITS)]
    placed = np.zeros(len(weights))
    placed[order] = weights[order]
    return placed


def _units(weights: Floats) -> list[int]:
    return [int(weight) for weight in np.clip(np.rint(weights / _UNIT), -_LARGEST, _LARGEST)]


def _word_rows(terms: Vocabulary, harm: Floats, of_hazards: Floats) -> Iterator[tuple[str, list[int]]]:
    """Yield the weight of each word for harm and, where the word tells hazards apart, for each hazard."""
    spread = (of_hazards.max(0) - of_hazards.min(0)) * np.sqrt(terms.word_counts + 1)
    floor = max(1e-9, np.sort(spread)[-min(_HAZARD_WORDS, len(spread))])
    for (word, number), weight in zip(terms.words.items(), _units(harm), strict=True):
        if spread[number] >= floor:
            yield word, [weight, *_units(of_hazards[:, number])]
        elif weight:
            yield word, [weight]
