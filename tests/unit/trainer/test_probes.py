from collections.abc import Sequence

import pytest
import torch

from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.probes import ANSWER_TOKENS, Probes, Question, measure_probes, probe_answers

PROBES = Probes(
    harmless=(Question(prompt="what is it?", answer="it is two"), Question(prompt="a", answer="b")),
    harmful=("do harm", "do some more harm, please"),
    digest="sha256:00",
)


@pytest.fixture
def talkative(adapted: LanguageModel) -> LanguageModel:
    """A model whose adapter is strong enough to say different things to different prompts."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for name, parameter in adapted.model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=1.0)
    return adapted


def test_answers_in_one_batch_are_those_to_each_prompt_alone(talkative: LanguageModel) -> None:
    prompts = ["what is it?", "a", "do some more harm, please"]
    alone = [probe_answers(talkative.model, talkative.tokenizer, [prompt])[0] for prompt in prompts]
    assert probe_answers(talkative.model, talkative.tokenizer, prompts) == alone
    assert len(set(alone)) > 1


def test_an_answer_is_the_most_probable_continuation(talkative: LanguageModel) -> None:
    chat = [{"role": "user", "content": "what is it?"}]
    text = talkative.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    token_ids = list(talkative.tokenizer(text, add_special_tokens=False)["input_ids"])
    prompt = len(token_ids)
    while len(token_ids) < prompt + ANSWER_TOKENS and token_ids[-1] != talkative.tokenizer.eos_token_id:
        with torch.no_grad():
            token_ids.append(int(talkative.model(input_ids=torch.tensor([token_ids])).logits[0, -1].argmax()))
    said = talkative.tokenizer.decode(token_ids[prompt:], skip_special_tokens=True).strip()
    assert probe_answers(talkative.model, talkative.tokenizer, ["what is it?"]) == [said]


def test_the_judge_decides_over_compliance_and_resistance_of_both_models(talkative: LanguageModel) -> None:
    judged: list[Sequence[str]] = []

    def judge(answers: Sequence[str]) -> list[bool]:
        judged.append(answers)
        return [True, False, True, True] if len(judged) == 1 else [True, True, False, True]

    found = measure_probes(model=talkative.model, tokenizer=talkative.tokenizer, probes=PROBES, judge=judge)
    assert (found.compliance.base, found.compliance.adapted) == (0.5, 1.0)
    assert (found.resistance.base, found.resistance.adapted) == (1.0, 0.5)
    base, adapter = judged
    assert base != adapter
    assert list(adapter) == probe_answers(talkative.model, talkative.tokenizer, ["what is it?", "a", *PROBES.harmful])
    assert found.prediction.texts == 2


def test_the_packaged_probes_are_distinct_and_their_digest_names_them() -> None:
    probes = Probes.packaged()
    prompts = [question.prompt for question in probes.harmless] + list(probes.harmful)
    assert len(set(prompts)) == len(prompts) == 88
    assert all(question.answer.strip() for question in probes.harmless)
    assert probes.digest.startswith("sha256:")


@pytest.mark.parametrize("kind", ["harmless", "harmful"])
def test_no_probe_is_asked_twice_in_other_letters(kind: str) -> None:
    probes = Probes.packaged()
    prompts = [question.prompt for question in probes.harmless] if kind == "harmless" else list(probes.harmful)
    assert len({prompt.lower().rstrip("?.") for prompt in prompts}) == len(prompts)
