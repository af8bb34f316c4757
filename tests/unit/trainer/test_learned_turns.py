"""What is learned where a chat template renders a turn otherwise at the end of a conversation than inside one."""

from typing import Any

import pytest

from ctrainer.schemas.training import Objective
from ctrainer.trainer.errors import UnusableTemplateError
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.tokenization import IGNORED, call_spans, encode

THINKING = (
    "{%- set ns = namespace(last=-1) %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set said = m.content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- if m.role == 'assistant' and loop.index0 > ns.last %}"
    "{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + said + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + said + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""As Qwen3's: an empty thought before the answers to the last question, and no thought before earlier ones."""
ALTERNATING = (
    "{%- for m in messages %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}"
    "{{- '[' + m.role + '] ' + m.content | trim + '<|im_end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '[assistant]' }}{%- endif %}"
)
"""As those of Mistral and Gemma: roles alternate, and words are trimmed."""
TALK = [
    {"role": "user", "content": "a private question"},
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "another private question"},
    {"role": "assistant", "content": "second answer"},
]


def learned(tiny: LanguageModel, turns: list[dict[str, Any]], max_tokens: int = 1_000) -> str | None:
    example = encode(turns, [], tiny.tokenizer, objective=Objective.SFT, max_tokens=max_tokens)
    return str(tiny.tokenizer.decode([label for label in example.labels if label != IGNORED])) if example else None


def test_no_word_of_a_user_is_learned_where_earlier_answers_are_rendered_without_their_thought(
    tiny: LanguageModel,
) -> None:
    tiny.tokenizer.chat_template = THINKING
    thought = "<think>\n\n</think>\n\n"
    assert learned(tiny, TALK) == f"first answer<|im_end|>\n{thought}second answer<|im_end|>\n"
    assert learned(tiny, TALK[:2]) == f"{thought}first answer<|im_end|>\n"


def test_answers_between_calls_of_tools_are_learned_or_left_out_whole(tiny: LanguageModel) -> None:
    tiny.tokenizer.chat_template = THINKING
    loop = [{"role": "assistant", "content": "wait"}, {"role": "tool", "content": "private result"}]
    text = learned(tiny, [TALK[0], *loop, *loop, *TALK[1:]])
    assert text is not None
    assert "private" not in text
    assert text.endswith("second answer<|im_end|>\n")


def test_words_that_a_template_trims_are_learned_as_it_renders_them(tiny: LanguageModel) -> None:
    tiny.tokenizer.chat_template = ALTERNATING
    assert learned(tiny, [TALK[0], {"role": "assistant", "content": "  padded \n"}]) == " padded<|im_end|>"


def test_an_answer_that_a_template_does_not_show_is_not_learned(tiny: LanguageModel) -> None:
    tiny.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% if loop.first %}{% endif %}{% endfor %}"
    assert learned(tiny, TALK) == "first answersecond answer"
    tiny.tokenizer.chat_template = "{% for m in messages[-2:] %}{{ m.role[0] + ':' + m.content + ';' }}{% endfor %}"
    assert learned(tiny, TALK) == "second answer;"


def test_a_record_that_the_template_refuses_is_left_out_and_stops_no_session(tiny: LanguageModel) -> None:
    tiny.tokenizer.chat_template = ALTERNATING
    refused = [{"role": "system", "content": "be brief"}, *TALK]
    for objective in Objective:
        assert encode(refused, [], tiny.tokenizer, objective=objective, max_tokens=1_000) is None
    assert call_spans(refused, [], tiny.tokenizer, max_tokens=1_000) == ()
    assert learned(tiny, TALK) == " first answer<|im_end|> second answer<|im_end|>"


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", "{{ messages + 1 }}"])
def test_a_model_without_a_usable_template_is_refused_with_a_reason(tiny: LanguageModel, template: str | None) -> None:
    tiny.tokenizer.chat_template = template
    with pytest.raises(UnusableTemplateError, match="expected one with a chat template") as refusal:
        learned(tiny, TALK)
    assert refusal.value.reason == "unusable-template"


def test_a_thousand_turns_are_read_only_as_far_as_they_are_learned(tiny: LanguageModel) -> None:
    """Counting the tokens before each turn would take minutes."""
    counted = list[int]()

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(tiny.tokenizer, name)

        def __call__(self, text: str, **options: Any) -> Any:
            counted.append(len(text))
            return tiny.tokenizer(text, **options)

    encode(TALK * 250, [], Counting(), objective=Objective.SFT, max_tokens=100)
    assert sum(counted) < 2 * sum(len(turn["content"]) + 40 for turn in TALK * 250)
