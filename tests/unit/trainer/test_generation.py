import pytest
import torch

from ctrainer.trainer.generation import greedy_answers
from ctrainer.trainer.models import LanguageModel

CHATS = [[{"role": "user", "content": text}] for text in ("what is it?", "a", "do some more harm, please")]


@pytest.fixture
def talkative(tiny: LanguageModel) -> LanguageModel:
    """A model with weights large enough to say different things to different chats."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in tiny.model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return tiny


def test_answers_in_one_batch_are_those_to_each_chat_alone(talkative: LanguageModel) -> None:
    alone = [greedy_answers(talkative.model, talkative.tokenizer, [chat], most_tokens=12)[0] for chat in CHATS]
    assert greedy_answers(talkative.model, talkative.tokenizer, CHATS, most_tokens=12) == alone
    assert len({said.text for said in alone}) > 1


def test_an_answer_that_the_most_tokens_cut_is_not_whole(talkative: LanguageModel) -> None:
    said = greedy_answers(talkative.model, talkative.tokenizer, CHATS, most_tokens=3)
    assert not any(one.is_whole for one in said)


def test_an_answer_that_the_model_ends_is_whole(talkative: LanguageModel) -> None:
    """The first token it would say is made the one that ends an answer."""
    model, tokenizer = talkative.model, talkative.tokenizer
    text = tokenizer.apply_chat_template(CHATS[0], tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        first = int(model(input_ids=ids).logits[0, -1].argmax())
    model.generation_config.eos_token_id = first
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(first)
    (said,) = greedy_answers(model, tokenizer, CHATS[:1], most_tokens=1)
    assert said.is_whole
