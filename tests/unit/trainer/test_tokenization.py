from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctrainer.schemas.training import Objective
from ctrainer.trainer.chat_text import renders_calls
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.tokenization import IGNORED, EncodedExample, call_spans, collate, encode

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi there"},
    {"role": "user", "content": "pay 3"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "pay", "arguments": '{"amount": 3}'}}],
    },
    {"role": "tool", "content": "paid"},
    {"role": "assistant", "content": "done"},
]
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": st.text(max_size=12)}),
    min_size=1,
    max_size=5,
)


def learned_text(tiny: LanguageModel, example: EncodedExample) -> str:
    return str(tiny.tokenizer.decode([label for label in example.labels if label != IGNORED]))


def test_every_assistant_turn_is_learned_and_nothing_else(tiny: LanguageModel) -> None:
    example = encode(CHAT, [], tiny.tokenizer, objective=Objective.SFT, max_tokens=1_000)
    assert example is not None
    call = '<tool_call>{"name": "pay", "arguments": {"amount": 3}}</tool_call>'
    assert learned_text(tiny, example) == f"hi there<|im_end|>\n{call}<|im_end|>\ndone<|im_end|>\n"


def test_domain_adaptation_learns_the_whole_text(tiny: LanguageModel) -> None:
    example = encode(CHAT, [], tiny.tokenizer, objective=Objective.DAPT, max_tokens=1_000)
    assert example is not None
    assert example.labels == example.token_ids
    assert "be brief" in learned_text(tiny, example)


def test_a_record_is_cut_at_max_tokens(tiny: LanguageModel) -> None:
    whole = encode(CHAT, [], tiny.tokenizer, objective=Objective.SFT, max_tokens=1_000)
    cut = encode(CHAT, [], tiny.tokenizer, objective=Objective.SFT, max_tokens=100)
    assert whole is not None
    assert cut is not None
    assert cut == EncodedExample(token_ids=whole.token_ids[:100], labels=whole.labels[:100])


def test_a_record_without_anything_to_learn_is_none(tiny: LanguageModel) -> None:
    assert encode(CHAT, [], tiny.tokenizer, objective=Objective.SFT, max_tokens=10) is None
    assert encode(CHAT[:2], [], tiny.tokenizer, objective=Objective.SFT, max_tokens=1_000) is None
    assert encode([], [], tiny.tokenizer, objective=Objective.DAPT, max_tokens=1_000) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(turns=TURNS, max_tokens=st.integers(8, 200), objective=st.sampled_from(Objective))
def test_any_conversation_is_encoded_within_its_bounds(
    tiny: LanguageModel, turns: list[dict[str, Any]], max_tokens: int, objective: Objective
) -> None:
    example = encode(turns, [], tiny.tokenizer, objective=objective, max_tokens=max_tokens)
    if example is not None:
        assert len(example.token_ids) == len(example.labels) <= max_tokens
        assert any(label != IGNORED for label in example.labels[1:])
        pairs = zip(example.token_ids, example.labels, strict=True)
        assert all(label in (token, IGNORED) for token, label in pairs)


def test_a_batch_is_padded_on_the_right() -> None:
    long = EncodedExample(token_ids=(5, 6, 7), labels=(IGNORED, 6, 7))
    short = EncodedExample(token_ids=(8, 9), labels=(IGNORED, 9))
    batch = collate([long, short], pad_token_id=0)
    assert batch.token_ids.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]


NATIVE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role }}{%- if m.content %}{{- '\\n' + m.content }}{%- endif %}"
    "{%- for c in m.tool_calls or [] %}"
    "{{- '\\n<call>' + c.function.name + ' ' + (c.function.arguments | tojson) + '</call>' }}"
    "{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant' }}{%- endif %}"
)


@pytest.fixture
def native(tiny: LanguageModel) -> LanguageModel:
    """The tiny model with a chat template that has a form of its own for tool calls."""
    tiny.tokenizer.chat_template = NATIVE
    return tiny


def test_a_template_that_renders_calls_renders_them_and_nothing_is_spelled_beside_it(native: LanguageModel) -> None:
    example = encode(CHAT, [], native.tokenizer, objective=Objective.SFT, max_tokens=1_000)
    assert example is not None
    call = '\n<call>pay {"amount": 3}</call>'
    assert learned_text(native, example) == f"\nhi there<|im_end|>\n{call}<|im_end|>\n\ndone<|im_end|>\n"
    (spans,) = call_spans(CHAT, [], native.tokenizer, max_tokens=1_000)
    assert [native.tokenizer.decode(example.token_ids[span.start : span.end]) for span in spans] == [call]


def test_calls_that_a_template_renders_are_left_out_where_the_record_is_cut(native: LanguageModel) -> None:
    (((_, end),),) = call_spans(CHAT, [], native.tokenizer, max_tokens=1_000)
    assert call_spans(CHAT, [], native.tokenizer, max_tokens=end - 1) == ()


def test_a_template_is_asked_for_calls_and_may_not_know_them(tiny: LanguageModel) -> None:
    assert not renders_calls(tiny.tokenizer)
    tiny.tokenizer.chat_template = "{{ raise_exception('no roles here') }}"
    assert not renders_calls(tiny.tokenizer)
    tiny.tokenizer.chat_template = NATIVE
    assert renders_calls(tiny.tokenizer)
