from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ctrainer.trainer.base_answers import KnownAnswers, answers_file
from ctrainer.trainer.models import LanguageModel


class Base:
    """Answers, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, prompts: Sequence[str]) -> list[str]:
        self.asked += prompts
        return [f"to {prompt}" for prompt in prompts]


def test_a_prompt_is_answered_once_over_all_sessions_and_order_is_kept(tmp_path: Path) -> None:
    base, file = Base(), tmp_path / "answers" / "some.json"
    first = KnownAnswers(base.answer, file)
    assert first(["a", "b"]) == ["to a", "to b"]
    assert first(["b", "c", "a"]) == ["to b", "to c", "to a"]
    assert KnownAnswers(base.answer, file)(["c", "b"]) == ["to c", "to b"]
    assert base.asked == ["a", "b", "c"]
    assert [path.name for path in file.parent.iterdir()] == ["some.json"]


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b'{"a": 1}'])
def test_a_file_that_is_not_as_it_should_be_changes_no_answer(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "some.json"
    file.write_bytes(content)
    assert KnownAnswers(Base().answer, file)(["a"]) == ["to a"]


def test_answers_need_no_place_to_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert KnownAnswers(Base().answer, tmp_path / "file" / "some.json")(["a"]) == ["to a"]
    assert KnownAnswers(Base().answer)(["a"]) == ["to a"]


def test_the_file_is_that_of_the_base_weights_and_of_no_adapter(adapted: LanguageModel, tmp_path: Path) -> None:
    def file() -> Path | None:
        return answers_file(tmp_path, adapted.model, adapted.tokenizer, tokens=32)

    before = file()
    assert before is not None
    weights = dict(adapted.model.named_parameters())
    with torch.no_grad():
        next(weight for name, weight in weights.items() if "lora_B" in name).add_(1.0)
        assert file() == before
        changed = next(weight for name, weight in weights.items() if "lora_" not in name)
        changed.view(-1)[0] += 1.0
    assert file() != before
    assert answers_file(tmp_path, adapted.model, adapted.tokenizer, tokens=16) != file()
