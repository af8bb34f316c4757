"""LoRA adapters (Hu et al. 2021) by peft: built, checked, saved and named by digest."""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.errors import UnsupportedAdapterError


def add_adapter(model: Any, settings: LoraSettings) -> Any:
    """Return a peft model with a fresh LoRA adapter on `settings.targets`; every other parameter is frozen.

    Raises:
        UnsupportedAdapterError: the model has no such targets.
    """
    from peft import LoraConfig, TaskType, get_peft_model  # noqa: PLC0415 - seconds; only sessions need it

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=list(settings.targets),
        lora_dropout=0.0,
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UnsupportedAdapterError(
            f"LoRA targets: got {', '.join(settings.targets)}, expected names of linear layers of the base model"
        ) from error


def save_adapter(model: Any, folder: Path) -> str:
    """Save the adapter so that plain peft loads it, and return the digest over its files."""
    model.save_pretrained(folder)
    return folder_digest(folder)


def folder_digest(folder: Path) -> str:
    """Return `sha256:<hex>` over the names and contents of all files below `folder`, in order of name."""
    return digest_of_files(file_digests(folder))


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256, in hexadecimal, of each file below `folder`, by its name from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def digest_of_files(digests: Mapping[str, str]) -> str:
    """Return the digest of a folder from those of its files."""
    lines = (f"{name} {digests[name]}\n" for name in sorted(digests, key=PurePosixPath))
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
