from collections.abc import Callable
from pathlib import Path

import pytest

from ctrainer.schemas.training import LoraSettings, Objective
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.models import LanguageModel, load_model
from ctrainer.trainer.tiny_model import save_tiny_model
from ctrainer.trainer.tokenization import EncodedExample, encode


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model", seed=1)


@pytest.fixture
def tiny(tiny_folder: Path, tmp_path: Path) -> LanguageModel:
    return load_model(str(tiny_folder), cache_folder=tmp_path)


@pytest.fixture
def adapted(tiny: LanguageModel) -> LanguageModel:
    """The tiny model with an adapter whose outer weights are not zero, so that every gradient is real."""
    import torch  # noqa: PLC0415 - seconds; the pure tests of this folder need it not

    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = add_adapter(tiny.model, LoraSettings(rank=2, alpha=4))
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return LanguageModel(name=tiny.name, model=model, tokenizer=tiny.tokenizer)


@pytest.fixture
def examples(tiny: LanguageModel) -> Callable[[int], list[EncodedExample]]:
    def make(count: int) -> list[EncodedExample]:
        chats = [
            [
                {"role": "user", "content": "what is it " * (1 + number % 3)},
                {"role": "assistant", "content": f"it is {number}"},
            ]
            for number in range(count)
        ]
        encoded = [encode(chat, [], tiny.tokenizer, objective=Objective.SFT, max_tokens=96) for chat in chats]
        return [example for example in encoded if example is not None]

    return make
