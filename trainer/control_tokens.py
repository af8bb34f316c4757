"""Control tokens, such as those that begin and end a turn: only a chat template writes them, nobody says them.

A tokenizer reads a control token wherever its letters stand. A user who writes them would end their turn and speak as
the assistant, in a training text as in a prompt. So what was said is quoted before it is rendered: a control token that
is spelled in it stays text, letter for letter.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from jinja2 import TemplateError

PROBE = "\ue0c8"
"""A letter for private use that no quoted text has: it shows where a template puts what stands in its place."""

_MARK = "\ue0c7"
_QUOTED = re.compile(f"{_MARK}([0-9]+){_MARK}")
_SHORTEST = 2
"""A control token of one letter cannot be told from that letter."""


class _Piece(NamedTuple):
    """Text to tokenise by itself. Its letters stand at `[start, end)`; all at once where they were quoted."""

    text: str
    start: int
    end: int
    is_quoted: bool


@dataclass(frozen=True, slots=True)
class ControlTokens:
    """Quotes texts for one tokenizer, and reads quoted ones. `spellings` has the longest first."""

    spellings: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> "ControlTokens":
        """Return those that a tokenizer calls special, and added ones with which its chat template opens turns."""
        added = tokenizer.added_tokens_decoder.values()
        opening = _opening(tokenizer)
        found = {token.content for token in added if token.special or token.content in opening}
        spelled = {token for token in found | set(tokenizer.all_special_tokens) if len(token) >= _SHORTEST}
        return cls((*sorted(spelled, key=lambda token: (-len(token), token)), PROBE, _MARK))

    def quoted(self, text: str) -> str:
        """Return a text whose control tokens no tokenizer reads as such; to be read by `token_ids` alone."""
        return self._pattern().sub(lambda found: f"{_MARK}{self.spellings.index(found.group())}{_MARK}", text)

    def quoted_json(self, value: Any) -> Any:
        """Return a JSON value with all its texts and names quoted."""
        text = json.dumps(value, ensure_ascii=False)
        return json.loads(self.quoted(text)) if self._pattern().search(text) else value

    def token_ids(self, text: str, tokenizer: Any) -> list[int]:
        """Return the token ids of a rendered text. What was quoted becomes its letters again, and no control token."""
        return [
            token
            for piece in self._pieces(text)
            for token in tokenizer(piece.text, add_special_tokens=False)["input_ids"]
        ]

    def places(self, text: str, tokenizer: Any) -> list[tuple[int, int]]:
        """Return where the letters of each of those tokens stand in the rendered text: `[start, end)`."""
        return [
            (piece.start, piece.end) if piece.is_quoted else (piece.start + first, piece.start + last)
            for piece in self._pieces(text)
            for first, last in tokenizer(piece.text, add_special_tokens=False, return_offsets_mapping=True)[
                "offset_mapping"
            ]
        ]

    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.spellings)))

    def _pieces(self, text: str) -> Iterator[_Piece]:
        done = 0
        for match in _QUOTED.finditer(text):
            if match.start() > done:
                yield _Piece(text[done : match.start()], done, match.start(), is_quoted=False)
            done = match.end()
            spelled = self.spellings[int(match[1])]
            # Apart, its first letter and the others are no control token.
            for part in filter(None, (spelled[:1], spelled[1:])):
                yield _Piece(part, *match.span(), is_quoted=True)
        if done < len(text):
            yield _Piece(text[done:], done, len(text), is_quoted=False)


def _opening(tokenizer: Any) -> str:
    """Return a user's turn without words and the header of the answer; nothing where a template does not render it."""
    try:
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": ""}], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, TypeError, ValueError):
        return ""
    return text
