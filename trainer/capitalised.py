"""Words that English text nearly always capitalises: names of people, places and days, as far as they are frequent.

They are read off a vocabulary that was merged by frequency (byte-pair encoding, Sennrich et al. 2016): where the
capitalised form of a word came before its small one, or the small one never came, the word is mostly capitalised.
"""

import json
import re
from functools import cache

from ctrainer.trainer.embedding_files import TOKENIZER, packaged_folder

_BEGINS_WORD = "\u2581"
_CAPITALISED = re.compile(rf"{_BEGINS_WORD}([A-Z][a-z]+)")
_OPENERS = frozenset(
    {
        "Additionally",
        "Ah",
        "Alternatively",
        "Answer",
        "Comment",
        "Furthermore",
        "Hell",
        "Hello",
        "Hey",
        "Hi",
        "Hmm",
        "However",
        "Meanwhile",
        "Moreover",
        "Nevertheless",
        "Note",
        "Notes",
        "Oh",
        "Okay",
        "Question",
        "Similarly",
        "Thank",
        "Thanks",
        "Unfortunately",
        "Yeah",
        "Yes",
    }
)
"""What is mostly capitalised because it mostly begins a sentence."""


@cache
def capitalised_words() -> frozenset[str]:
    """Return those of the vocabulary that comes with the word embeddings: about 1,900, some of them parts of words.

    Raises:
        NoEmbeddingsError: it is not installed.

    >>> [word for word in ("Anna", "Rome", "Monday", "The", "However", "May", "Mark") if word in capitalised_words()]
    ['Anna', 'Rome', 'Monday']
    """
    text = (packaged_folder() / TOKENIZER).read_text(encoding="utf-8")
    ranks: dict[str, int] = json.loads(text)["model"]["vocab"]
    matches = [match for token in ranks if (match := _CAPITALISED.fullmatch(token))]
    return (
        frozenset(match[1] for match in matches if ranks[match[0]] < ranks.get(match[0].lower(), len(ranks))) - _OPENERS
    )
