"""What a revision may change, and what it must keep: every check is a bound that anybody can recompute."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from string import printable

from ctrainer.trainer.answers import is_refusal
from ctrainer.trainer.capitalised import capitalised_words
from ctrainer.trainer.contraries import contradicts
from ctrainer.trainer.facts import exact_parts, names, numbers, words

_ORDINARY = frozenset(printable) - {"\v", "\f"} | frozenset("\u2018\u2019\u201c\u201d\u2013\u2014\u2026")
"""Letters and marks that any English text may bring along; none of them looks like another one or hides."""


class Fault(StrEnum):
    """Why a revision is not accepted."""

    VIOLATION = "violation"
    MEANING = "meaning"
    WORDING = "wording"
    NUMBERS = "numbers"
    NAMES = "names"
    EXACT_PARTS = "exact-parts"
    CONTRARY = "contrary"
    LETTERS = "letters"
    LENGTH = "length"
    TOO_LONG = "too-long"
    REFUSAL = "refusal"
    ECHO = "echo"
    CUT_OFF = "cut-off"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far a revision may go from its original.

    `similarity` is the least cosine of mean word embeddings. `kept_words` is the least share of the original's distinct
    words that stay, `known_pairs` the least share of the revision's distinct pairs of words that are the original's.
    A revision has at least `shortest` times the original's words, and at most `longest` times as many and `pointer`
    more: a sentence that sends the reader to somebody who can help. `echo` words in a row of the instructions are an
    echo.
    """

    similarity: float = 0.6
    kept_words: float = 0.4
    known_pairs: float = 0.15
    shortest: float = 0.4
    longest: float = 1.5
    pointer: int = 16
    echo: int = 5


def changed_too_much(
    original: str,
    revised: str,
    *,
    protected: str,
    question: str,
    instructions: str,
    similarity: float,
    bounds: Bounds,
) -> tuple[Fault, ...]:
    """Return the faults of a revision by its text alone. `similarity` is that of the original and the revision.

    `protected` is what of the original breaches nothing: numbers, names and the like that stand there must stay, and
    none may be new; no clause there may be turned into its contrary. `question` is what was answered; `instructions` is
    what the model was asked.
    """
    faults = [
        *_fact_faults(original, revised, protected, question),
        *_wording_faults(original, revised, bounds),
        *_manner_faults(original, revised, instructions, bounds),
    ]
    if similarity < bounds.similarity:
        faults.append(Fault.MEANING)
    return tuple(sorted(faults))


def shared(first: str, second: str, length: int) -> float:
    """Return the share of the first text's distinct runs of `length` words that the second has; 1 where it has none.

    >>> shared("the parcel is late", "the parcel is lost", 2)
    0.6666666666666666
    """
    runs = _runs(words(first), length)
    return len(runs & _runs(words(second), length)) / len(runs) if runs else 1.0


def _fact_faults(original: str, revised: str, protected: str, question: str) -> Iterator[Fault]:
    for fault, find in ((Fault.NUMBERS, numbers), (Fault.EXACT_PARTS, exact_parts)):
        if not find(protected) <= find(revised) <= find(original):
            yield fault
    kept, known, capitalised = set(words(revised)), set(words(original)), capitalised_words()
    to_keep = names(protected, around=f"{question}\n{original}", capitalised=capitalised)
    found = names(revised, around=question, capitalised=capitalised)
    if not {name.lower() for name in to_keep} <= kept or not {name.lower() for name in found} <= known:
        yield Fault.NAMES
    if contradicts(protected, revised):
        yield Fault.CONTRARY
    if not set(revised) <= set(original) | _ORDINARY:
        yield Fault.LETTERS


def _wording_faults(original: str, revised: str, bounds: Bounds) -> Iterator[Fault]:
    before, after = len(words(original)), len(words(revised))
    if not bounds.shortest * before <= after <= bounds.longest * before + bounds.pointer or not after:
        yield Fault.LENGTH
    if shared(original, revised, 1) < bounds.kept_words or shared(revised, original, 2) < bounds.known_pairs:
        yield Fault.WORDING


def _manner_faults(original: str, revised: str, instructions: str, bounds: Bounds) -> Iterator[Fault]:
    if is_refusal(revised) and not is_refusal(original):
        yield Fault.REFUSAL
    echoed = _runs(words(revised), bounds.echo) & _runs(words(instructions), bounds.echo)
    if echoed - _runs(words(original), bounds.echo):
        yield Fault.ECHO
    if words(revised) == words(original):
        yield Fault.UNCHANGED


def _runs(found: Sequence[str], length: int) -> set[tuple[str, ...]]:
    return set(zip(*(found[shift:] for shift in range(length)), strict=False))
