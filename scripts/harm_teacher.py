"""The teacher of the harm score: a kernel machine on the sentence vectors of whole texts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Vectors = NDArray[np.float32]
_LANDMARKS = 1_500
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
        logits: NDArray[np.float64] = _kernel(vectors, self.landmarks) @ self.weights + self.bias
        return logits


def fit_teacher(vectors: Vectors, truth: Vectors, weights: Vectors) -> Teacher:
    """Fit a teacher by Nystroem's method (Williams and Seeger 2001); landmarks are some of the texts."""
    chosen = np.random.default_rng(0).choice(len(vectors), min(_LANDMARKS, len(vectors)), replace=False)
    landmarks = vectors[chosen]
    values, directions = np.linalg.eigh(_kernel(landmarks, landmarks).astype(np.float64))
    whitening = (directions / np.sqrt(np.maximum(values, _LEAST_EIGENVALUE))).astype(np.float32)
    features = _kernel(vectors, landmarks) @ whitening

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = features @ point[:-1].astype(np.float32) + np.float32(point[-1])
        slope = weights * (1 / (1 + np.exp(-logits)) - truth)
        penalty = point[:-1] / _INVERSE_PENALTY
        total = float((weights * (np.logaddexp(0, logits) - truth * logits)).sum()) + 0.5 * float(point[:-1] @ penalty)
        return total, np.append(features.T @ slope + penalty, slope.sum())

    start = np.zeros(features.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS}).x
    return Teacher(landmarks, whitening @ found[:-1], float(found[-1]))


def _kernel(vectors: Vectors, landmarks: Vectors) -> Vectors:
    kernel: Vectors = np.exp(2 * vectors @ landmarks.T - 2).astype(np.float32)
    return kernel
