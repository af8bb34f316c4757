"""Which texts are in the language that the harm score was trained for.

Only positive evidence counts: the commonest words of other languages, or letters of another script. What gives no
evidence (code, JSON, tables, names, very short texts) is covered.
"""

import re
from importlib.resources import files

import numpy as np
import re2
import yaml
from numpy.typing import NDArray

from ctrainer.agents.compliance.detectors.together import hit_texts
from ctrainer.agents.compliance.spoken import Spoken
from ctrainer.agents.compliance.weight_table import WeightTable
from ctrainer.agents.compliance.words import words_of

_HEAD = 256
_TAIL = 128
"""So many characters of a text are searched for letters of another script, from its start and from its end."""
_LEAST_EVIDENCE = 4
_LEAST_FOREIGN_SHARE = 2
"""One letter in so many, of another script, makes a text foreign."""
_PLACE_BITS = 17
_SCRIPTS = (
    "[\u0370-\u03ff\u0400-\u1cff\u1f00-\u1fff\u2c00-\u2c5f\u2d00-\u2ddf\u3005-\ua63f\ua6a0-\ua6ff\ua840-\uaaff\uabc0-\ufaff"
    "\ufb1d-\ufdff\ufe70-\ufeff\uff66-\uffdc\U00010000-\U0001d3ff\U00020000-\U0003ffff]"
)
_OTHER_SCRIPT = re.compile(rf"(?![\0-\x7f]){_SCRIPTS}")
"""`re` tries one range after the other: ASCII, which is in none, is told apart first."""
_ANY_OTHER_SCRIPT = re2.compile(_SCRIPTS.encode())
_LETTER = re.compile(r"[^\W\d_]")
_LINK = re.compile(r"[a-z]{2,8}://\S+", re.IGNORECASE)
_EVIDENCE_OF = {"english": -2, "foreign": 2, "unaccented": 2, "ambiguous": 1}


def _evidence() -> WeightTable:
    lists = yaml.safe_load(
        files("ctrainer.agents.compliance").joinpath("language_words.yaml").read_text(encoding="utf-8")
    )
    weights = {word: weight for kind, weight in _EVIDENCE_OF.items() for word in lists[kind].split()}
    words = words_of(list(weights))
    return WeightTable.of(words.keys, np.repeat(list(weights.values()), words.counts).tolist(), bits=_PLACE_BITS)


_EVIDENCE = _evidence()


def is_covered(text: str) -> bool:
    """Return False where positive evidence says that a text is in another language than English.

    >>> is_covered("How do I bake bread?"), is_covered("Comment est-ce que je fais du pain pour vous ?")
    (True, False)
    >>> is_covered("Как испечь хлеб?"), is_covered('{"le": [1, 2], "der": null}')
    (False, True)
    """
    return covered(Spoken.of([("user", text)]))[0]


def covered(spoken: Spoken) -> list[bool]:
    """Return `is_covered` of each turn."""
    foreign = _evidence_in(spoken) >= _LEAST_EVIDENCE
    covered = [True] * len(spoken.texts)
    for number in np.flatnonzero(foreign).tolist():
        covered[number] = _is_only_in_links(spoken.texts[number])
    unusual = [(number, _sample(text)) for number, text in enumerate(spoken.texts) if not text.isascii()]
    for place in hit_texts(_ANY_OTHER_SCRIPT, [sample.encode("utf-8", "replace") for _, sample in unusual]):
        number, sample = unusual[place]
        covered[number] = covered[number] and not _is_other_script(sample)
    return covered


def _evidence_in(spoken: Spoken) -> NDArray[np.int64]:
    return spoken.words.sums(_EVIDENCE.weights(spoken.words.keys))


def _is_only_in_links(text: str) -> bool:
    """Return whether no evidence is left without the addresses in a text: `/en/` and `/de/` are parts of many."""
    without, links = _LINK.subn(" ", text)
    return links > 0 and bool(_evidence_in(Spoken.of([("user", without)]))[0] < _LEAST_EVIDENCE)


def _sample(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} {text[-_TAIL:]}"


def _is_other_script(sample: str) -> bool:
    foreign = len(_OTHER_SCRIPT.findall(sample))
    return foreign > 1 and foreign * _LEAST_FOREIGN_SHARE >= len(_LETTER.findall(sample))
