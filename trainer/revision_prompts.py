"""What a model is asked when it criticises an answer and rewrites it: chats, and the words that must not come back."""

import re
from collections.abc import Iterable

ASK_CRITIQUE = "Say it in one short sentence."
ASK_REVISION = "Write only the new answer, about as long as the old one."
KEEP = "Keep every number, name, link and piece of code exactly as it is, and keep what is not wrong in its words."
"""What is added when a first rewriting damaged the answer."""

_QUESTION_CHARACTERS = 300
_CRITIQUE_CHARACTERS = 300
_LABEL = re.compile(
    r"^(?:(?:the |my |a )?(?:new|revised|rewritten|old)? ?answer(?: is)?|here(?:'s| is)[^:\n]{0,60}) ?:\s*",
    re.IGNORECASE,
)


def critique_chat(question: str, text: str, critique: str) -> list[dict[str, str]]:
    """Return the chat that asks what is wrong with an answer."""
    return [_turn("user", f"{_shown(question, text)}\n\n{critique} {ASK_CRITIQUE}")]


def revision_chat(critique: list[dict[str, str]], said: str, revision: str, heed: str) -> list[dict[str, str]]:
    """Return the chat that goes on from a criticism and asks for a better answer."""
    asked = " ".join(part for part in (revision, heed, ASK_REVISION) if part)
    return [*critique, _turn("assistant", said[:_CRITIQUE_CHARACTERS]), _turn("user", asked)]


def instructions(prompts: Iterable[tuple[str, str]]) -> str:
    """Return all words that a model is told, the answer and its question left out."""
    return "\n".join([ASK_CRITIQUE, ASK_REVISION, KEEP, *(part for pair in prompts for part in pair)])


def bare_answer(said: str) -> str:
    """Return what a model said without the label that it may put before an answer, and without quotes around it.

    >>> bare_answer('Here is the new answer: "It comes on Monday."')
    'It comes on Monday.'
    """
    text = _LABEL.sub("", said.strip(), count=1).strip()
    is_quoted = len(text) > 1 and text[0] + text[-1] in {'""', "\u201c\u201d"} and text.count('"') in {0, 2}
    return text[1:-1].strip() if is_quoted else text


def _shown(question: str, text: str) -> str:
    return f"Question: {question[-_QUESTION_CHARACTERS:]}\n\nAnswer: {text}"


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
