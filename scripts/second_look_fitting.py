"""Fits the second look: the encoder's adapter, and how the harm score and the adapted encoder are weighed together."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.second_look import WEIGHTS, SecondLook
from ctrainer.agents.compliance.spoken import Spoken
from ctrainer.trainer.sentence_encoder import SentenceEncoder
from scripts.frozen_layers import MOST_TOKENS, FrozenLayers
from scripts.harm_corpus import Example, fold_numbers
from scripts.harm_threshold import lower_for_answers, threshold_of
from scripts.harm_training import Floats
from scripts.second_look_adapter import fit_adapter, learnt_from

_PARTS = 5
_SEED = 17


def fit_second_look(
    examples: Sequence[Example],
    own: Sequence[Example],
    logits: Floats,
    frozen: FrozenLayers,
    folder: Path,
    *,
    harm: str,
) -> None:
    """Write the second look to a folder.

    A fifth of the examples is held out of the adapter's training: on it the shares, the threshold and the shift of
    answers are chosen. `logits` has for each example what the harm score says by models that did not see it, `harm` is
    the version of the harm score.
    """
    part = fold_numbers(examples, folds=_PARTS, seed=_SEED)
    adapted = fit_adapter(frozen, learnt_from([*(e for e, p in zip(examples, part, strict=True) if p), *own]))
    digest = adapted.write(folder)
    held_out = [example for example, p in zip(examples, part, strict=True) if not p]
    encoder = SentenceEncoder.load(frozen.folder, adapter=folder)
    vectors = encoder.encode([example.text for example in held_out], most_tokens=MOST_TOKENS)
    both = np.stack([logits[part == 0], vectors @ adapted.direction], 1)
    truth = np.array([example.harmful for example in held_out])
    counted = np.array([float(example.weight > 0) for example in held_out])
    joint = LogisticRegression(C=1e3).fit(both, truth, counted)
    share, length = map(float, joint.coef_[0])
    offset = float(joint.intercept_[0])
    said = both @ np.array([share, length]) + offset
    threshold = threshold_of(held_out, 1 / (1 + np.exp(-said)))
    document = {
        "harm": harm,
        "encoder": encoder.digest,
        "adapted": digest,
        "most_tokens": MOST_TOKENS,
        "bias": offset,
        "share": share,
        "shifts": {"assistant": lower_for_answers(held_out, np.log(threshold / (1 - threshold)) - said)},
        "threshold": threshold,
        "direction": [float(f"{number:.6g}") for number in length * adapted.direction],
    }
    (folder / WEIGHTS).write_text(json.dumps(document, separators=(",", ":")) + "\n")


def looked_at(
    folder: Path, harm: HarmModel, examples: Sequence[Example], frozen: FrozenLayers
) -> list[Mapping[str, float]]:
    """Return what the run time makes of texts."""
    look = SecondLook.read(folder)
    encoder = SentenceEncoder.load(frozen.folder, digest=look.encoder, adapter=look.adapter)
    texts = [example.text for example in examples]
    spoken = Spoken.of([(example.role, example.text) for example in examples])
    whole = encoder.reads_whole(texts, most_tokens=look.most_tokens)
    return look.scores(harm, spoken, encoder.encode(texts, most_tokens=look.most_tokens), whole)
