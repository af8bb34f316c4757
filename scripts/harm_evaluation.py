"""Measures the harm score by cross-validation: nothing of a fold is in the training that it is scored by."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ctrainer.agents.compliance.harm_folds import digest_of_text
from scripts.harm_corpus import POOLED, Example, fold_numbers
from scripts.harm_fitting import Knowledge, Said, fit, scored
from scripts.harm_training import Floats

_FOLDS = 5
_SEED = 3
_BINS = 10
_BANDS = ((0.0, 1.0), (0.2, 0.9), (0.2, 0.8))
"""Of the harm score: only texts within are looked at a second time."""


class Folded(NamedTuple):
    """What models said of texts that they were not trained on, and the threshold of each text's models."""

    harm: Sequence[Mapping[str, float]]
    look: Sequence[Mapping[str, float]]
    thresholds: Floats


def cross_validated(examples: Sequence[Example], known: Knowledge) -> Folded:
    """Score each text by models of the other folds, with the run time itself."""
    fold = fold_numbers(examples, folds=_FOLDS, seed=_SEED)
    harm: list[Mapping[str, float]] = [{}] * len(examples)
    look: list[Mapping[str, float]] = [{}] * len(examples)
    thresholds = np.zeros(len(examples))
    for number in range(_FOLDS):
        rows = np.flatnonzero(fold == number).tolist()
        training = [e for e, f in zip(examples, fold, strict=True) if f != number]
        said = _said(training, [examples[row] for row in rows], known)
        thresholds[rows] = said.threshold
        for row, score, second in zip(rows, said.harm, said.look, strict=True):
            harm[row], look[row] = score, second
    return Folded(harm, look, thresholds)


def _said(training: Sequence[Example], examples: Sequence[Example], known: Knowledge) -> Said:
    with tempfile.TemporaryDirectory() as folder:
        return scored(fit(training, known, Path(folder)), Path(folder), examples, known)


def fold_scores(examples: Sequence[Example], folded: Folded, *, threshold: float) -> dict[str, dict[str, float]]:
    """Return what was said of each text, by its digest, stretched so that its fold's threshold lies at `threshold`."""
    return {
        digest_of_text(example.text): {
            code: round(_stretched(score, own, threshold), 4) for code, score in said.items()
        }
        for example, said, own in zip(examples, folded.harm, folded.thresholds, strict=True)
    }


def _stretched(score: float, old: float, new: float) -> float:
    return score * new / old if score < old else new + (score - old) * (1 - new) / (1 - old)


def by_source(examples: Sequence[Example], known: Knowledge, sources: Sequence[str]) -> dict[str, Any]:
    """Return, for each of some sources, what a model says that was trained on all others."""
    tables = {}
    for source in sources:
        left = [example for example in examples if example.source == source]
        said = _said([example for example in examples if example.source != source], left, known)
        harm, look = _highest(said.harm), _highest(said.look)
        tables[source] = {
            "harm": _source_row(left, harm, harm >= said.threshold),
            "look": _source_row(left, look, look >= said.threshold),
        }
    return tables


def by_folds(examples: Sequence[Example], folded: Folded) -> dict[str, Any]:
    """Return the tables of cross-validation: of the harm score, and of the second look at bands of its scores."""
    harm = _highest(folded.harm)
    tables = {"harm": _table(examples, folded.harm, folded.thresholds)}
    for low, high in _BANDS:
        is_asked = (harm >= low) & (harm <= high)
        said = [two if asked else one for one, two, asked in zip(folded.harm, folded.look, is_asked, strict=True)]
        tables[f"second look {low}-{high}"] = _table(examples, said, folded.thresholds) | {
            "asked": round(float(is_asked.mean()), 4)
        }
    return tables


def _table(examples: Sequence[Example], said: Sequence[Mapping[str, float]], thresholds: Floats) -> dict[str, Any]:
    score = _highest(said)
    return table(examples, score, score >= thresholds, [max(one, key=one.__getitem__, default=None) for one in said])


def _highest(said: Sequence[Mapping[str, float]]) -> Floats:
    return np.array([max(one.values(), default=0.0) for one in said])


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
