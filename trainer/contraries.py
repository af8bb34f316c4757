"""Does a text say the contrary of another one in nearly the same words? Embeddings of two such texts are alike.

A clause with the words of another one, in which a word that turns the meaning came, went or changed ("not", "never",
"safe" and "unsafe"), or which has other numbers or has them in another order, says something else. What is said in
other words, or by names that change places, is not seen.
"""

import re
from collections import Counter
from collections.abc import Iterator

from ctrainer.trainer.excision import sentences
from ctrainer.trainer.facts import numbers_in_order, words

_ALIKE = 0.75
"""The least share of the shorter clause's words that a clause in nearly the same words has."""
_LEAST_WORDS = 3

_NEGATION = re.compile(
    r"not|no|never|none|nothing|nobody|nowhere|neither|nor|without|hardly|scarcely|barely|rarely|seldom"
)
_OPPOSITE = re.compile(
    r"always|often|sometimes|all|every|everybody|nearly|only|even|more|less|fewer|most|least|before|after|until|above"
    r"|below|over|under|inside|outside|up|down|on|off|left|right|wrong|true|false|first|second|last|open|closed?|start"
    r"|stop|(?:in|de)creases?|higher|lower|dangerous|safe|harmless|harmful|allowed|forbidden|prohibited|legal|possible"
    r"|hot|cold|yes|early|late|with|against|for|alive|dead|accepts?|refuses?|buy|sell|rises?|falls?|wins?|loses?|easy"
    r"|hard|good|bad|better|worse"
)
"""One of these in place of another turns a clause; one that merely came or went may be another manner of speaking."""
_UNDONE = re.compile(r"(?:un|in|im|il|ir|dis|non-?)(\w{4,})")
_NOT = re.compile(r"(?:n't|not)$")
_BETWEEN = re.compile(r"[,;:]\s|\s[\u2013\u2014-]\s|\bbut\b", re.IGNORECASE)


def contradicts(original: str, revised: str) -> bool:
    """Return whether a clause of a text turns one of the original, and repeats none.

    >>> contradicts("You fool, do not mix the two liquids.", "Please do mix the two liquids.")
    True
    >>> contradicts("You fool, do not mix the two liquids.", "Please don't mix the two liquids.")
    False
    >>> contradicts("Take 5 mg at noon, 10 mg at night.", "Take 10 mg at noon, 5 mg at night.")
    True
    """
    said = [_Clause(text) for text in _clauses(original)]
    for clause in map(_Clause, _clauses(revised)):
        shared = [one.shared(clause) for one in said]
        if any(shared) and all(
            one.is_turned(clause) for one, count in zip(said, shared, strict=True) if count == max(shared)
        ):
            return True
    return False


class _Clause:
    """A clause as its plain words, those that turn its meaning, and its numbers."""

    def __init__(self, text: str) -> None:
        found = [part for word in words(text) for part in _parted(word)]
        self.words = frozenset(found)
        self.negations = Counter(filter(_NEGATION.fullmatch, found))
        self.opposites = set(filter(_OPPOSITE.fullmatch, found))
        self.plain = {_done(word) for word in self.words - self.opposites - self.negations.keys()}
        self.undone = {match[1] for word in found if (match := _UNDONE.fullmatch(word))}
        self.numbers = numbers_in_order(text)

    def shared(self, other: "_Clause") -> int:
        """Return how many plain words, or their opposites, both have; 0 where the shorter one is not like the other."""
        both = len(self.plain & other.plain)
        return both if both >= max(_LEAST_WORDS, _ALIKE * min(len(self.plain), len(other.plain))) else 0

    def is_turned(self, other: "_Clause") -> bool:
        """Return whether the other clause says something else in those words."""
        lost, new = self.opposites - other.opposites, other.opposites - self.opposites
        return (
            self.negations != other.negations
            or bool(lost and new)
            or bool((self.undone - other.undone) & other.words or (other.undone - self.undone) & self.words)
            or bool(self.numbers and other.numbers and self.numbers != other.numbers)
        )


def _clauses(text: str) -> Iterator[str]:
    for sentence in sentences(text):
        yield from filter(None, _BETWEEN.split(sentence))


def _done(word: str) -> str:
    """Return what a word undoes, or the word: "safe" of "unsafe", and "stead" of "instead" in every text alike."""
    match = _UNDONE.fullmatch(word)
    return match[1] if match else word


def _parted(word: str) -> tuple[str, ...]:
    """Return a word and the "not" in it: "can't" and "cannot" are "can" and "not"."""
    if word in {"not", "knot"} or not _NOT.search(word):
        return (word,)
    return (_NOT.sub("", word), "not")
