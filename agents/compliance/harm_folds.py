"""The harm score of texts that it was trained on, by models that were not trained on them.

`harm_folds.json.gz` holds, for the digest of each training text, what cross-validation said of it. No text is in it.
"""

import gzip
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Self

from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.spoken import Spoken

_FOLDS = "harm_folds.json.gz"


def digest_of_text(text: str) -> str:
    """Return the name of a text among the folds."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


class FoldedHarm:
    """Scores known texts out of fold and all others by the packaged model."""

    def __init__(self, model: HarmModel, folds: Mapping[str, Mapping[str, float]]) -> None:
        self.version = f"{model.version}+folds"
        self._model = model
        self._folds = folds

    @classmethod
    def packaged(cls) -> Self:
        """Return the folds of the packaged model."""
        folds = files("ctrainer.agents.compliance").joinpath(_FOLDS).read_bytes()
        return cls(HarmModel.packaged(), json.loads(gzip.decompress(folds)))

    def scores(self, spoken: Spoken) -> list[Mapping[str, float]]:
        """Return for each turn hazard code to calibrated probability."""
        known = map(self._folds.get, map(digest_of_text, spoken.texts))
        fresh = self._model.scores(spoken)
        return [new if old is None else old for old, new in zip(known, fresh, strict=True)]

    def knows(self, text: str) -> bool:
        """Return whether the packaged model was trained on a text."""
        return digest_of_text(text) in self._folds
