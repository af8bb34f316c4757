"""The teacher of the harm score: a kernel machine on the sentence vectors of whole texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.cluster import MiniBatchKMeans

from scripts.harm_corpus import Example

Vectors = NDArray[np.float32]
_UNIT = 1 / 400
"""Landmarks are whole multiples of this."""
_LANDMARKS = 512
_INVERSE_PENALTY = 10.0
_ITERATIONS = 60
_LEAST_EIGENVALUE = 1e-6


@dataclass(frozen=True, slots=True)
class Teacher:
    """A logistic regression on Gaussian kernels of texts to `landmarks`: one `weights` each, and a bias."""

    landmarks: Vectors
    weights: NDArray[np.float64]
    bias: float

    def logits(self, vectors: Vectors) -> NDArray[np.float64]:
        """Return the logit of harm of texts by their vectors, each of length one."""
        logits: NDArray[np.float64] = kernel(vectors, self.landmarks) @ self.weights + self.bias
        return logits


def fit_teacher(vectors: Vectors, examples: Sequence[Example]) -> Teacher:
    """Fit a teacher to examples and their vectors by Nystroem's method (Williams and Seeger 2001).

    Landmarks are the centres of clusters (Zhang, Tsang and Kwok 2008): no text's own vector is among them.
    """
    counted = [row for row, example in enumerate(examples) if example.weight]
    truth = np.array([examples[row].harmful for row in counted], np.float32)
    weights = np.array([examples[row].weight for row in counted], np.float32)
    landmarks = _landmarks(vectors[counted])
    values, directions = np.linalg.eigh(kernel(landmarks, landmarks).astype(np.float64))
    whitening = (directions / np.sqrt(np.maximum(values, _LEAST_EIGENVALUE))).astype(np.float32)
    features = kernel(vectors[counted], landmarks) @ whitening

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = features @ point[:-1].astype(np.float32) + np.float32(point[-1])
        slope = weights * (1 / (1 + np.exp(-logits)) - truth)
        penalty = point[:-1] / _INVERSE_PENALTY
        total = float((weights * (np.logaddexp(0, logits) - truth * logits)).sum()) + 0.5 * float(point[:-1] @ penalty)
        return total, np.append(features.T @ slope + penalty, slope.sum())

    start = np.zeros(features.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS}).x
    return Teacher(landmarks, whitening @ found[:-1], float(found[-1]))


def kernel(vectors: Vectors, landmarks: Vectors) -> Vectors:
    """Return the Gaussian kernel of each vector to each landmark: shape (vectors, landmarks)."""
    squares = (vectors**2).sum(1)[:, None] + (landmarks**2).sum(1) - 2 * vectors @ landmarks.T
    values: Vectors = np.exp(-np.maximum(squares, 0)).astype(np.float32)
    return values


def _landmarks(vectors: Vectors) -> Vectors:
    clusters = MiniBatchKMeans(
        min(_LANDMARKS, len(vectors)), random_state=0, n_init=1, batch_size=2_048, max_iter=20
    ).fit(vectors)
    landmarks: Vectors = np.clip(np.rint(clusters.cluster_centers_ / _UNIT), -127, 127).astype(np.float32)
    return landmarks * np.float32(_UNIT)
