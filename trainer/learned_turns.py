"""Where the words of assistants are in a rendered conversation: what is learned of it.

A template may render a turn in another way at the end of a conversation than inside one (without its reasoning, say),
so each turn is looked for where it stands. One that cannot be told from its neighbours is not learned.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ctrainer.trainer.chat_text import ChatText, Turns, UnrenderableError
from ctrainer.trainer.control_tokens import PROBE


class Stretch(NamedTuple):
    """Letters `[start, end)` of a rendered conversation."""

    start: int
    end: int


class _Neighbours(NamedTuple):
    """What is rendered before and after a turn's words, and up to the words of an answer in its place."""

    before: str
    after: str
    opened: str


def learned_turns(chat: ChatText, turns: Turns, tools: Turns, whole: str) -> Iterator[Stretch]:
    """Yield what each assistant's turn adds after its header to the `whole` text: words, calls and end marker."""
    closing = _closing(chat)
    for number, turn in enumerate(turns):
        found = _neighbours(chat, turns, tools, number) if turn["role"] == "assistant" else None
        stretch = found and _stretch(whole, found, closing)
        if stretch:
            yield stretch


def shared(one: str, another: str) -> int:
    """Return with how many equal letters two texts begin; a megabyte of them takes no longer than to compare it."""
    least, most = 0, min(len(one), len(another))
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if one[least:middle] == another[least:middle] else (least, middle - 1)
    return least


def _stretch(whole: str, found: _Neighbours, closing: str) -> Stretch | None:
    """Return where a turn stands, or None where its neighbours look otherwise when only its words differ."""
    rest = found.after[shared(found.after, closing) :]
    start = len(found.opened) if found.opened and whole.startswith(found.opened) else len(found.before)
    end = len(whole) - len(rest)
    is_certain = whole.startswith(found.before[:start]) and whole.endswith(rest) and start <= end
    return Stretch(start, end) if is_certain else None


def _neighbours(chat: ChatText, turns: Turns, tools: Turns, number: int) -> _Neighbours | None:
    """Return the neighbours of a turn, or None where the template does not show the words of such a turn once."""
    probe = {"role": "assistant", "content": PROBE}
    try:
        text = chat.rendered([*turns[:number], probe, *turns[number + 1 :]], tools)
        opened = chat.rendered(turns[:number], tools, opened=True)
    except UnrenderableError:
        return None
    before, _, after = text.partition(PROBE)
    return _Neighbours(before, after, opened) if text.count(PROBE) == 1 else None


def _closing(chat: ChatText) -> str:
    """Return what a template writes after the words of an assistant's last turn."""
    text = chat.rendered([{"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}])
    return text.partition(PROBE)[2]
