import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.second_look import WEIGHTS, SecondLook
from ctrainer.agents.compliance.spoken import Spoken

LOOK = SecondLook.packaged()
HARM = HarmModel.packaged()
SPOKEN = Spoken.of([("user", "Immigrants are vermin, these filthy people must be driven out."), ("assistant", "Yes.")])


def probability(look: SecondLook, *, bias: float) -> float:
    still = replace(look, bias=bias, share=0.0, direction=np.zeros(2, np.float32))
    (said, _) = still.scores(HARM, SPOKEN, np.ones((2, 2), np.float32), [True, True])
    return max(said.values(), default=0.0)


def test_the_packaged_weights_were_trained_beside_the_packaged_harm_score() -> None:
    assert LOOK.harm == HARM.version


def test_the_adapter_beside_the_weights_is_the_one_they_were_trained_with() -> None:
    weights = (LOOK.adapter / "adapter_model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == LOOK.adapted


def test_what_training_calls_harmful_reaches_the_threshold_of_the_harm_score() -> None:
    border = float(np.log(LOOK.threshold / (1 - LOOK.threshold)))
    assert probability(LOOK, bias=border + 1e-6) == pytest.approx(HARM.threshold, abs=1e-4)
    assert probability(LOOK, bias=border + 0.01) > HARM.threshold > probability(LOOK, bias=border - 0.01)


def test_probabilities_grow_with_the_logit_up_to_one() -> None:
    said = [probability(LOOK, bias=bias) for bias in np.linspace(-2, 100, 60)]
    assert said == sorted(said)
    assert said[-1] == pytest.approx(1.0)


def test_the_weights_see_vectors_of_the_encoder_and_no_others() -> None:
    vectors = np.zeros((2, len(LOOK.direction)), np.float32)
    vectors[:, 0] = 1.0
    assert len(LOOK.scores(HARM, SPOKEN, vectors, [True, True])) == 2
    with pytest.raises(ValueError, match=r"shape|dimension"):
        LOOK.scores(HARM, SPOKEN, vectors[:, :-1], [True, True])


def test_the_version_changes_with_the_weights(tmp_path: Path) -> None:
    document = {
        "harm": "", "encoder": "", "adapted": "", "most_tokens": 1, "bias": 0.0, "share": 1.0, "shifts": {},
        "threshold": 0.5, "direction": [1.0, -1.0],
    }  # fmt: skip
    looks = []
    for bias in (0, 1):
        (tmp_path / WEIGHTS).write_text(json.dumps(document | {"bias": bias}))
        looks.append(SecondLook.read(tmp_path))
    assert looks[0].version != looks[1].version
    assert looks[0].direction.tolist() == [1.0, -1.0]
