"""What is said in samples, in UTF-8 as rules and scores read it: encoded once for all who look at it."""

from collections.abc import Sequence

from msgspec import Struct

from ctrainer.agents.compliance.conversation import Tools, Turn
from ctrainer.agents.compliance.detectors.normalization import disguised
from ctrainer.agents.compliance.detectors.reading import has_escapes


class Saying(Struct, frozen=True):
    """The content of each turn of a sample, and a line for each of them."""

    turns: Sequence[bytes]
    whole: bytes


def sayings(samples: Sequence[tuple[Sequence[Turn], Tools]]) -> list[Saying | None]:
    """Return what is said in each sample; None where rules read it in another form, and so does whoever scores it."""
    said = [_saying(messages, tools) for messages, tools in samples]
    for number in disguised([None if one is None else one.whole for one in said]):
        said[number] = None
    return said


def _saying(messages: Sequence[Turn], tools: Tools) -> Saying | None:
    """Return what is said, or None where there are tools, which say more, or escapes, or what UTF-8 cannot hold."""
    if tools:
        return None
    for message in messages:
        if message["tool_calls"] or message["role"] == "tool":
            return None
    try:
        turns = [message["content"].encode() for message in messages]
    except UnicodeEncodeError:  # a lone surrogate
        return None
    whole = b"\n".join(turns)
    if (b"\\" in whole or b"&" in whole) and any(has_escapes(message["content"]) for message in messages):
        return None
    return Saying(turns, whole)
