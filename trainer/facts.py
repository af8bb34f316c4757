"""What of a text must never change when it is reworded: numbers, names, links, code and placeholders."""

import re
from collections.abc import Collection

_NUMBER = re.compile(
    r"\d+(?:[.,:/\-]\d+)*%?"
    r"|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|seventy|eighty"
    r"|ninety|hundred|thousand|million|billion|half|third|quarter|dozen|twice)\b",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    r"```.*?```|`[^`\n]+`|<[A-Z_]+_\d+>|\b(?:https?://|www\.)[^\s<>\"')]+|\b[\w.+\-]+@[\w\-]+\.[\w.\-]+", re.DOTALL
)
_WORD = re.compile(r"[^\W\d_][\w'\u2019\-]*")
_OPENS = re.compile(r"(?:^|[.!?:;\n]|^\s*[\-*\u2022])[\s\"'\u201c\u2018(\[*_#>\-\u2022]*$")
_PRONOUN = re.compile(r"^I(?:['\u2019]\w+)?$")


def numbers(text: str) -> frozenset[str]:
    """Return the numbers of a text, in digits and in words.

    >>> sorted(numbers("Two of 1,500 came at 10:30."))
    ['1,500', '10:30', 'two']
    """
    return frozenset(found.lower() for found in _NUMBER.findall(text))


def names(text: str, *, around: str = "", capitalised: Collection[str] = ()) -> frozenset[str]:
    """Return the words that are capitalised though no sentence begins with them; exact parts have none.

    A word that only begins sentences is a name, too, where it stands capitalised inside a sentence of what was said
    `around` the text, or is one of the words that are always `capitalised`; but not where it is written small as well.

    >>> sorted(names("Yesterday Anna met Bob's team in New York. I liked it."))
    ['Anna', 'Bob', 'New', 'York']
    >>> text = "Priya waits. Rome waits. May they come? They may."
    >>> sorted(names(text, around="Where is Priya?", capitalised={"Rome", "May"}))
    ['Priya', 'Rome']
    """
    inside, first = _capitals(text)
    known = (_capitals(around)[0] | set(capitalised)) - _small_words(f"{text}\n{around}") if first else set()
    return frozenset(inside | (first & known))


def exact_parts(text: str) -> frozenset[str]:
    """Return code, links, mail addresses and placeholders of redaction, each whole.

    >>> sorted(exact_parts("Run `ls` or see https://a.example/b and ask <EMAIL_1>."))
    ['<EMAIL_1>', '`ls`', 'https://a.example/b']
    """
    return frozenset(_WHOLE.findall(text))


def words(text: str) -> list[str]:
    """Return the words of a text in order, in small letters, without the ending of possession.

    >>> words("Bob's team DIDN'T come.")
    ['bob', 'team', "didn't", 'come']
    """
    return [
        _bare(found).lower().replace("\u2019", "'") for found in re.findall(r"[^\W_]+(?:['\u2019\-][^\W_]+)*", text)
    ]


def _capitals(text: str) -> tuple[set[str], set[str]]:
    """Return the capitalised words of a text: those inside sentences, and those that begin one."""
    text = _WHOLE.sub(lambda part: "x" * len(part.group()), text)
    inside, first = set[str](), set[str]()
    for match in _WORD.finditer(text):
        word, start = _bare(match.group()), match.start()
        if word[:1].isupper() and not _PRONOUN.match(word):
            (first if _OPENS.search(text[max(0, start - 80) : start]) else inside).add(word)
    return inside, first


def _small_words(text: str) -> set[str]:
    """Return the words that are written small somewhere, as they begin when capitalised."""
    return {word[0].upper() + word[1:] for found in _WORD.findall(text) if (word := _bare(found))[:1].islower()}


def _bare(word: str) -> str:
    return re.sub(r"['\u2019]s$", "", word).rstrip("-'\u2019")
