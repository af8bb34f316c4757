"""What of a text must never change when it is reworded: numbers, names, links, code and placeholders."""

import re
from collections.abc import Collection

_UNITS = (
    r"(?:%|percent|[kmcµn]?g|[kmcdn]?m|mm|[mcd]?l|mcg|lbs?|pounds?|oz|ounces?|cups?|tablespoons?|teaspoons?|tbsp|tsp|miles?"
    r"|feet|foot|ft|inch(?:es)?|in(?=\W*$)|yards?|[kmg]?hz|[kmgt]b|[km]?w|kwh|[km]?v|volts?|watts?|amps?"
    r"|°\s?[cf]|°|degrees?|seconds?|secs?|s|minutes?|mins?|hours?|hrs?|h|days?|weeks?|months?|years?|times"
    r"|a\.?m\.?|p\.?m\.?|dollars?|cents?|euros?|pounds?|usd|eur|gbp|[$€£¥])"
)
_SPELLED = (
    r"two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|million|billion|trillion|half|third|quarter|dozen|twice"
    r"|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
)
_NUMBER = re.compile(
    rf"(?:(?<![\w.,)\]])[-\u2212+±])?[$€£¥]?\s?\d+(?:[.,:/\-]\d+)*(?:\s?-?{_UNITS}(?![\w]))?"
    rf"|\b(?:{_SPELLED})(?:-(?:{_SPELLED}|one))*\b(?:\s-?{_UNITS}(?![\w]))?",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    r"```.*?```|`[^`\n]+`|<([a-z_]\w*)\b[^>]*>.*?</\1>|<[A-Z_]+_\d+>|</?[A-Za-z_]\w*/?>|<\|[^|>\n]{1,40}\|>"
    r"|<</?\w+>>|\[/?[A-Z_]{3,}\]|\{\s*\"[^{}]*\}|\b(?:https?://|www\.)[^\s<>\"')]+|\b[\w.+\-]+@[\w\-]+\.[\w.\-]+",
    re.DOTALL,
)
_WORD = re.compile(r"[^\W\d_][\w'\u2019\-]*")
_OPENS = re.compile(r"(?:^|[.!?:;\n]|^\s*[\-*\u2022])[\s\"'\u201c\u2018(\[*_#>\-\u2022]*$")
_PRONOUN = re.compile(r"^I(?:['\u2019]\w+)?$")


def numbers(text: str) -> frozenset[str]:
    """Return the numbers of a text, in digits and in words, each with its sign, its currency and its unit.

    >>> sorted(numbers("Two of 1,500 came at 10:30, 5 mg each, for $3 at -2 degrees."))
    ['$3', '-2degrees', '1,500', '10:30', '5mg', 'two']
    """
    return frozenset(numbers_in_order(text))


def numbers_in_order(text: str) -> list[str]:
    """Return these numbers as they come, small and without spaces in them.

    >>> numbers_in_order("Thirteen days, then 5 mg or 10mg")
    ['thirteendays', '5mg', '10mg']
    """
    return ["".join(match.group().lower().split()) for match in _NUMBER.finditer(text)]


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
    """Return code, markup, calls written as text, links, mail addresses and placeholders of redaction, each whole.

    >>> sorted(exact_parts("Run `ls` or see https://a.example/b and ask <EMAIL_1>."))
    ['<EMAIL_1>', '`ls`', 'https://a.example/b']
    >>> sorted(exact_parts('So <tool_call>{"name": "pay"}</tool_call> it is. [/INST]'))
    ['<tool_call>{"name": "pay"}</tool_call>', '[/INST]']
    """
    return frozenset(match.group() for match in _WHOLE.finditer(text))


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
