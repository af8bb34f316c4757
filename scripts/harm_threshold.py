"""From which probability on a text is called harmful: chosen by scores of texts that were held out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scripts.harm_corpus import ANSWERS, POOLED, Example
from scripts.harm_training import Floats

FLOOR = 0.2
_MOST_FALSE_ALARMS = 0.02
"""On plain instructions."""
_MOST_FALSE_ALARMS_ON_ANSWERS = 0.004


def threshold_of(examples: Sequence[Example], probability: Floats) -> float:
    """Return the threshold of the best pooled F1 that keeps false alarms on plain instructions rare."""
    pooled = np.array([example.source in POOLED for example in examples])
    truth = np.array([example.harmful for example in examples])[pooled]
    plain = probability[[example.source == "self_instruct" for example in examples]]
    lowest = float(np.quantile(plain, 1 - _MOST_FALSE_ALARMS)) if len(plain) else 0.0
    candidates = np.unique(
        np.append(probability[pooled & (probability > max(lowest, FLOOR))], [max(lowest, FLOOR) + 1e-6])
    )
    return float(max(candidates, key=lambda threshold: _f1(truth, probability[pooled] >= threshold)))


def lower_for_answers(examples: Sequence[Example], room: Floats) -> float:
    """Return what to add to the logits of an assistant's turns: at most 0, so that few plain answers are alarms.

    `room` is the distance of the logit of each example from the threshold.
    """
    answers = room[[example.source == ANSWERS for example in examples]]
    return min(0.0, float(np.quantile(answers, _MOST_FALSE_ALARMS_ON_ANSWERS))) if len(answers) else 0.0


def _f1(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> float:
    return float(2 * (truth & said).sum() / max(1, truth.sum() + said.sum()))
