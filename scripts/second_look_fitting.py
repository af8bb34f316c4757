"""Fits the second look: how the harm score and the teacher's view of a text are weighed together."""

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.second_look import SecondLook
from ctrainer.agents.compliance.spoken import Spoken
from scripts.harm_corpus import Example
from scripts.harm_teacher import UNIT, Teacher, Vectors
from scripts.harm_threshold import lower_for_answers, threshold_of
from scripts.harm_training import Floats


def fit_second_look(
    examples: Sequence[Example], held_out: Floats, teacher: Teacher, *, encoder: str, most_tokens: int, harm: str
) -> bytes:
    """Return the weights file, the same bytes for the same weights.

    `held_out` has for each example the logit of the harm score and of a teacher, by models of other inner folds: shape
    (examples, 2). `teacher` is the one of all examples, `harm` the version of the harm score.
    """
    truth = np.array([example.harmful for example in examples])
    counted = np.array([float(example.weight > 0) for example in examples])
    joint = LogisticRegression(C=1e3).fit(held_out, truth, counted)
    share, weight = map(float, joint.coef_[0])
    offset = float(joint.intercept_[0])
    logits = held_out @ np.array([share, weight]) + offset
    threshold = threshold_of(examples, 1 / (1 + np.exp(-logits)))
    document = {
        "harm": harm,
        "encoder": encoder,
        "most_tokens": most_tokens,
        "bias": offset + weight * teacher.bias,
        "share": share,
        "shifts": {"assistant": lower_for_answers(examples, np.log(threshold / (1 - threshold)) - logits)},
        "threshold": threshold,
        "kernels": [float(f"{number:.6g}") for number in weight * teacher.weights],
        "landmarks": {
            "unit": UNIT,
            "numbers": b64encode(np.rint(teacher.landmarks / UNIT).astype(np.int8).tobytes()).decode(),
        },
    }
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), 9, mtime=0)


def looked_at(
    weights: bytes, harm: HarmModel, examples: Sequence[Example], vectors: Vectors, whole: Sequence[bool]
) -> list[Mapping[str, float]]:
    """Return what the run time makes of texts. `whole` says of each whether its vector is of all of it."""
    spoken = Spoken.of([(example.role, example.text) for example in examples])
    return SecondLook.read(weights).scores(harm, spoken, vectors, whole)
