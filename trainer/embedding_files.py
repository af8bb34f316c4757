"""The files of WordLlama (MIT licence), read from its package as plain data.

Nothing of the package is run: importing it configures logging, and it fetches models.
"""

import importlib.util
from pathlib import Path

from ctrainer.schemas.errors import ConstitutionalTrainerError

WEIGHTS = Path("weights", "l2_supercat_256.safetensors")
TOKENIZER = Path("tokenizers", "l2_supercat_tokenizer_config.json")
_PACKAGE = "wordllama"


class NoEmbeddingsError(ConstitutionalTrainerError):
    """The word embeddings are not installed."""


def packaged_folder() -> Path:
    """Return the folder of the installed package.

    Raises:
        NoEmbeddingsError: it is not installed.
    """
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise NoEmbeddingsError("package wordllama is not installed: it holds the word embeddings; run make setup")
    return Path(package.origin).parent
