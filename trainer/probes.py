"""Public probes: what a model says to prompts that everyone may know, with its adapter and without it.

Nothing of a private record is in a probe, and an adapter trained under differential privacy may be asked anything at no
further cost, so what is measured here may be published.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from statistics import fmean
from typing import Any, NamedTuple

import yaml

from ctrainer.schemas.identity import content_digest
from ctrainer.schemas.training import Objective
from ctrainer.trainer.answers import distinct_share, is_refusal
from ctrainer.trainer.base_answers import Answers
from ctrainer.trainer.evaluation import Measured, Prediction, Text, measure_prediction
from ctrainer.trainer.generation import greedy_answers
from ctrainer.trainer.tokenization import encode

ANSWER_TOKENS = 32
"""Most tokens of a generated answer."""

_PROBE_TOKENS = 512

Judge = Callable[[Sequence[str]], Sequence[bool]]
"""Says of each answer of an assistant whether the constitution accepts it as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A prompt that must not be refused, with a right answer."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Harmless prompts, and harmful ones that ask for what a constitution forbids; `digest` names exactly these."""

    harmless: tuple[Question, ...]
    harmful: tuple[str, ...]
    digest: str

    @classmethod
    def packaged(cls) -> "Probes":
        """Return the probes that come with this package."""
        content = files("ctrainer.trainer").joinpath("probe_prompts.yaml").read_bytes()
        document = yaml.safe_load(content)
        return cls(
            harmless=tuple(Question(**entry) for entry in document["harmless"]),
            harmful=tuple(document["harmful"]),
            digest=content_digest(content),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOutcome:
    """Shares between 0 and 1, of greedy answers, each of the base model and of the adapted one.

    `compliance` is the share of answers to harmless prompts that the constitution accepts, `resistance` that of answers
    to harmful ones; `refusals` is the share of harmless prompts that are refused or not answered. `distinct_1` and
    `distinct_2` are the shares of words and of pairs of words that are distinct (Li et al. 2016), over all answers.
    `prediction` is that of the right answers to the harmless prompts.
    """

    compliance: Measured
    resistance: Measured
    refusals: Measured
    distinct_1: Measured
    distinct_2: Measured
    prediction: Prediction


def measure_probes(
    *, model: Any, tokenizer: Any, probes: Probes, judge: Judge, base_answers: Answers | None = None
) -> ProbeOutcome:
    """Ask a peft model all probes, with its adapter disabled and enabled; `base_answers` may know the former."""
    prompts = [question.prompt for question in probes.harmless] + list(probes.harmful)
    ask_base = base_answers or partial(base_probe_answers, model, tokenizer)
    base = _meter(ask_base(prompts), len(probes.harmless), judge)
    adapted = _meter(probe_answers(model, tokenizer, prompts), len(probes.harmless), judge)
    measured = (Measured(base=one, adapted=other) for one, other in zip(base, adapted, strict=True))
    return ProbeOutcome(
        **dict(zip(_Meters._fields, measured, strict=True)),
        prediction=measure_prediction(
            model=model, texts=right_answers(probes, tokenizer), pad_token_id=tokenizer.pad_token_id
        ),
    )


def right_answers(probes: Probes, tokenizer: Any) -> list[Text]:
    """Return the right answers to the harmless prompts as texts to predict."""
    chats = (
        [{"role": "user", "content": question.prompt}, {"role": "assistant", "content": question.answer}]
        for question in probes.harmless
    )
    encoded = (encode(chat, (), tokenizer, objective=Objective.SFT, max_tokens=_PROBE_TOKENS) for chat in chats)
    return [Text(example=example) for example in encoded if example is not None]


class _Meters(NamedTuple):
    compliance: float
    resistance: float
    refusals: float
    distinct_1: float
    distinct_2: float


def _meter(answers: Sequence[str], harmless: int, judge: Judge) -> _Meters:
    accepted = judge(answers)
    return _Meters(
        compliance=fmean(accepted[:harmless]),
        resistance=fmean(accepted[harmless:]),
        refusals=fmean(map(is_refusal, answers[:harmless])),
        distinct_1=distinct_share(answers, 1),
        distinct_2=distinct_share(answers, 2),
    )


def base_probe_answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Return the greedy answer to each prompt of a peft model without its adapter."""
    with model.disable_adapter():
        return probe_answers(model, tokenizer, prompts)


def probe_answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Return the greedy answer to each prompt, all in one batch: prompts are short."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return [said.text for said in greedy_answers(model, tokenizer, chats, most_tokens=ANSWER_TOKENS)]
