import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.second_look import SecondLook, kernel
from ctrainer.agents.compliance.spoken import Spoken

LOOK = SecondLook.packaged()
HARM = HarmModel.packaged()
SPOKEN = Spoken.of([("user", "Immigrants are vermin, these filthy people must be driven out."), ("assistant", "Yes.")])


def probability(look: SecondLook, *, bias: float) -> float:
    still = replace(look, bias=bias, share=0.0, kernels=np.zeros(1), landmarks=np.ones((1, 2), np.float32))
    (said, _) = still.scores(HARM, SPOKEN, np.ones((2, 2), np.float32), [True, True])
    return max(said.values(), default=0.0)


def test_the_packaged_weights_were_trained_beside_the_packaged_harm_score() -> None:
    assert LOOK.harm == HARM.version


def test_what_training_calls_harmful_reaches_the_threshold_of_the_harm_score() -> None:
    border = float(np.log(LOOK.threshold / (1 - LOOK.threshold)))
    assert probability(LOOK, bias=border + 1e-6) == pytest.approx(HARM.threshold, abs=1e-4)
    assert probability(LOOK, bias=border + 0.01) > HARM.threshold > probability(LOOK, bias=border - 0.01)


def test_probabilities_grow_with_the_logit_up_to_one() -> None:
    said = [probability(LOOK, bias=bias) for bias in np.linspace(-2, 100, 60)]
    assert said == sorted(said)
    assert said[-1] == pytest.approx(1.0)


def test_the_weights_see_vectors_of_the_encoder_and_no_others() -> None:
    vectors = np.zeros((2, LOOK.landmarks.shape[1]), np.float32)
    vectors[:, 0] = 1.0
    assert len(LOOK.scores(HARM, SPOKEN, vectors, [True, True])) == 2
    with pytest.raises(ValueError, match=r"shape|dimension"):
        LOOK.scores(HARM, SPOKEN, vectors[:, :-1], [True, True])


def test_the_kernel_is_one_at_a_landmark_and_falls_with_the_distance() -> None:
    first, second, third = np.eye(3, dtype=np.float32)
    near = (first + 0.5 * second) / np.linalg.norm(first + 0.5 * second)
    values = kernel(np.stack([first, near, third]).astype(np.float32), first[None])[:, 0]
    assert values[0] == pytest.approx(1.0)
    assert values[0] > values[1] > values[2] == pytest.approx(float(np.exp(-2)))


def test_the_version_changes_with_the_weights() -> None:
    document = {
        "harm": "", "encoder": "", "most_tokens": 1, "bias": 0.0, "share": 1.0, "shifts": {}, "threshold": 0.5,
        "kernels": [1.0], "landmarks": {"unit": 0.5, "numbers": "Av4="},
    }  # fmt: skip
    one, other = (SecondLook.read(gzip.compress(json.dumps(document | {"bias": bias}).encode())) for bias in (0, 1))
    assert one.version != other.version
    assert one.landmarks.tolist() == [[1.0, -1.0]]
