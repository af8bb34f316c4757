"""Measures the harm score by cross-validation: nothing of a fold is in the training that it is scored by."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.harm_folds import digest_of_text
from scripts.harm_corpus import POOLED, Example, fold_numbers
from scripts.harm_fitting import Knowledge, fit, scored
from scripts.harm_training import Floats

_FOLDS = 5
_SEED = 3
_BINS = 10


def by_folds(examples: Sequence[Example], known: Knowledge) -> dict[str, Any]:
    """Return the table of grouped five-fold cross-validation, scored by the run time itself."""
    fold = fold_numbers(examples, folds=_FOLDS, seed=_SEED)
    score, threshold = np.zeros(len(examples)), np.zeros(len(examples))
    hazards: list[str | None] = [None] * len(examples)
    for number in range(_FOLDS):
        weights = fit([e for e, f in zip(examples, fold, strict=True) if f != number], known)
        rows = np.flatnonzero(fold == number).tolist()
        score[rows], codes, threshold[rows] = scored(weights, [examples[row].text for row in rows])
        for row, code in zip(rows, codes, strict=True):
            hazards[row] = code
    return table(examples, score, score >= threshold, hazards)


def fold_scores(examples: Sequence[Example], known: Knowledge, *, threshold: float) -> dict[str, dict[str, float]]:
    """Return what models of the other folds say of each text, by the digest of the text.

    Scores are stretched so that the threshold that a fold chose lies at `threshold`.
    """
    fold = fold_numbers(examples, folds=_FOLDS, seed=_SEED)
    scores: dict[str, dict[str, float]] = {}
    for number in range(_FOLDS):
        weights = fit([e for e, f in zip(examples, fold, strict=True) if f != number], known)
        model = HarmModel.read(weights)
        for row in np.flatnonzero(fold == number).tolist():
            text = examples[row].text
            said = model.score(text).items()
            scores[digest_of_text(text)] = {
                code: round(_stretched(score, model.threshold, threshold), 4) for code, score in said
            }
    return scores


def _stretched(score: float, old: float, new: float) -> float:
    return score * new / old if score < old else new + (score - old) * (1 - new) / (1 - old)


def by_source(examples: Sequence[Example], known: Knowledge) -> dict[str, Any]:
    """Return, for each source, what a model says that was trained on all other sources."""
    tables = {}
    for source in sorted({example.source for example in examples}):
        weights = fit([example for example in examples if example.source != source], known)
        left = [example for example in examples if example.source == source]
        score, _, threshold = scored(weights, [example.text for example in left])
        tables[source] = _source_row(left, score, score >= threshold)
    return tables


def table(
    examples: Sequence[Example], score: Floats, said: NDArray[np.bool_], hazards: Sequence[str | None]
) -> dict[str, Any]:
    """Return pooled precision, recall, F1 and calibration error, and a row for each source and hazard."""
    sources = np.array([example.source for example in examples])
    truth = np.array([example.harmful for example in examples])
    pooled = np.isin(sources, POOLED)
    return {
        "pooled": _rates(truth[pooled], said[pooled])
        | {"calibration_error": _calibration_error(truth[pooled], score[pooled])},
        "sources": {
            str(source): _source_row(
                [e for e in examples if e.source == source], score[sources == source], said[sources == source]
            )
            for source in np.unique(sources)
        },
        "hazards": _hazard_rows(examples, said, hazards),
    }


def _source_row(examples: Sequence[Example], score: Floats, said: NDArray[np.bool_]) -> dict[str, float]:
    truth = np.array([example.harmful for example in examples])
    row: dict[str, float] = {"texts": len(examples), "flagged": round(float(said.mean()), 4)}
    if truth.any() and not truth.all():
        row |= _rates(truth, said) | {"auc": round(float(roc_auc_score(truth, score)), 3)}
    return row


def _rates(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> dict[str, float]:
    hit = int((truth & said).sum())
    rates = {
        "precision": hit / max(1, int(said.sum())),
        "recall": hit / max(1, int(truth.sum())),
        "f1": 2 * hit / max(1, int(said.sum() + truth.sum())),
        "accuracy": float((truth == said).mean()),
        "false_alarms": float(said[~truth].mean()),
    }
    return {name: round(rate, 4) for name, rate in rates.items()}


def _calibration_error(truth: NDArray[np.bool_], score: Floats) -> float:
    """Return the expected calibration error over ten equal bins, of texts that got a score at all."""
    bins = np.minimum((score * _BINS).astype(int), _BINS - 1)
    errors = [
        (bins == number).sum() * abs(float(truth[bins == number].mean()) - float(score[bins == number].mean()))
        for number in np.unique(bins[score > 0])
    ]
    return round(float(sum(errors) / max(1, (score > 0).sum())), 4)


def _hazard_rows(
    examples: Sequence[Example], said: NDArray[np.bool_], hazards: Sequence[str | None]
) -> dict[str, dict[str, float]]:
    rows = {}
    for hazard in sorted({example.hazard for example in examples if example.hazard}):
        of = [row for row, example in enumerate(examples) if example.hazard == hazard]
        found = [row for row in of if said[row]]
        rows[hazard] = {
            "texts": len(of),
            "recall": round(len(found) / len(of), 4),
            "named_right": round(sum(hazards[row] == hazard for row in found) / max(1, len(found)), 4),
        }
    return rows
