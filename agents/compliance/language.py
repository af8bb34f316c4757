"""Which texts are in the language that the harm score was trained for.

Only positive evidence counts: the commonest words of other languages, or letters of another script. What gives no
evidence (code, JSON, tables, names, very short texts) is covered.
"""

import re
from importlib.resources import files
from itertools import repeat

import yaml

_HEAD = 256
_TAIL = 128
"""So many characters of a text are looked at, from its start and from its end."""
_LEAST_EVIDENCE = 4
_LEAST_FOREIGN_SHARE = 2
"""One letter in so many, of another script, makes a text foreign."""
_OTHER_SCRIPT = re.compile(
    "[\u0370-\u03ff\u0400-\u1cff\u1f00-\u1fff\u2c00-\u2c5f\u2d00-\u2ddf\u3005-\ua63f\ua6a0-\ua6ff\ua840-\uaaff\uabc0-\ufaff"
    "\ufb1d-\ufdff\ufe70-\ufeff\uff66-\uffdc\U00010000-\U0001d3ff\U00020000-\U0003ffff]"
)
_LETTER = re.compile(r"[^\W\d_]")
_TYPOGRAPHIC = b"\xe2\x80\x93\x94\x98\x99\x9c\x9d"
"""The bytes of curly quotes and dashes in UTF-8."""
_SPACED = bytes(
    byte | 32
    if 65 <= byte <= 90  # noqa: PLR2004 - ASCII capitals
    else byte
    if chr(byte).isalpha() or (byte > 127 and byte not in _TYPOGRAPHIC)  # noqa: PLR2004 - ASCII ends there
    else 32
    for byte in range(256)
)

_EVIDENCE_OF = {"english": -2, "foreign": 2, "ambiguous": 1}


def _evidence() -> dict[bytes, int]:
    lists = yaml.safe_load(
        files("ctrainer.agents.compliance").joinpath("language_words.yaml").read_text(encoding="utf-8")
    )
    return {word.encode(): weight for kind, weight in _EVIDENCE_OF.items() for word in lists[kind].split()}


_EVIDENCE = _evidence()
_NO_EVIDENCE = repeat(0)


def is_covered(text: str) -> bool:
    """Return False where positive evidence says that a text is in another language than English.

    >>> is_covered("How do I bake bread?"), is_covered("Comment est-ce que je fais du pain pour vous ?")
    (True, False)
    >>> is_covered("Как испечь хлеб?"), is_covered('{"le": [1, 2], "der": null}')
    (False, True)
    """
    sample = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} {text[-_TAIL:]}"
    words = sample.encode("utf-8", "replace").translate(_SPACED).split()
    if sum(map(_EVIDENCE.get, words, _NO_EVIDENCE)) >= _LEAST_EVIDENCE:
        return False
    return sample.isascii() or not _other_script(sample)


def _other_script(sample: str) -> bool:
    foreign = len(_OTHER_SCRIPT.findall(sample))
    return foreign > 1 and foreign * _LEAST_FOREIGN_SHARE >= len(_LETTER.findall(sample))
