"""Conversations as the text that a chat template makes of them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from jinja2 import TemplateError

from ctrainer.trainer.control_tokens import ControlTokens
from ctrainer.trainer.errors import UnusableTemplateError

Turns: TypeAlias = Sequence[Mapping[str, Any]]
_PROBE = "name_of_a_probe"


class UnrenderableError(Exception):
    """A chat template does not take a conversation: it wants roles to alternate, say."""


class ChatText:
    """Renders conversations for one tokenizer. What is said in them is quoted, so that nobody speaks for another.

    Raises:
        UnusableTemplateError: the tokenizer has no chat template, or none that renders a question and its answer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.control = ControlTokens.of(tokenizer)
        self.renders_calls = renders_calls(tokenizer)
        try:
            self.rendered([{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
        except UnrenderableError as error:
            message = "base model: expected one with a chat template that renders a question and its answer"
            raise UnusableTemplateError(message) from error

    def turns(self, messages: Turns) -> list[dict[str, Any]]:
        """Return turns to render: calls stand in their text where the template has no form for them."""
        turn = self._with_calls if self.renders_calls else self._with_spelled_calls
        return [turn(message) for message in messages]

    def tools(self, tools: Turns) -> list[Any]:
        """Return tools to render."""
        return [self.control.quoted_json(tool) for tool in tools]

    def rendered(self, turns: Turns, tools: Turns = (), *, opened: bool = False) -> str:
        """Return the text of turns; `opened` adds the header of an assistant's turn.

        Raises:
            UnrenderableError: the template does not take them.
        """
        if not turns:
            return ""
        try:
            text: str = self.tokenizer.apply_chat_template(
                turns, tools=list(tools) or None, tokenize=False, add_generation_prompt=opened
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise UnrenderableError(type(error).__name__) from error
        return text

    def token_ids(self, text: str) -> list[int]:
        """Return the token ids of a rendered text."""
        return self.control.token_ids(text, self.tokenizer)

    def spelled(self, function: Mapping[str, Any]) -> str:
        """Return a call as Hermes-style models write it; `arguments` is JSON text already."""
        call = f'{{"name": {json.dumps(function["name"])}, "arguments": {function["arguments"]}}}'
        return f"<tool_call>{self.control.quoted(call)}</tool_call>"

    def _with_calls(self, message: Mapping[str, Any]) -> dict[str, Any]:
        turn = {"role": message["role"], "content": self.control.quoted(message.get("content") or "")}
        calls = [
            {"type": "function", "function": {"name": function["name"], "arguments": json.loads(function["arguments"])}}
            for function in (call["function"] for call in message.get("tool_calls") or ())
        ]
        return {**turn, "tool_calls": self.control.quoted_json(calls)} if calls else turn

    def _with_spelled_calls(self, message: Mapping[str, Any]) -> dict[str, Any]:
        spelled = "\n".join(self.spelled(call["function"]) for call in message.get("tool_calls") or ())
        content = "\n".join(part for part in (self.control.quoted(message.get("content") or ""), spelled) if part)
        return {"role": message["role"], "content": content}


def prompt_tokens(chat: Turns, tokenizer: Any) -> list[int]:
    """Return the token ids of a chat that ends with the header of the answer to it.

    Raises:
        UnusableTemplateError: the chat template does not render it.
    """
    text = ChatText(tokenizer)
    try:
        return text.token_ids(text.rendered(text.turns(chat), opened=True))
    except UnrenderableError as error:
        raise UnusableTemplateError("base model: expected one whose chat template renders a prompt") from error


def renders_calls(tokenizer: Any) -> bool:
    """Return whether the chat template has a form of its own for tool calls."""
    call = {"type": "function", "function": {"name": _PROBE, "arguments": {}}}
    turns: Turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    try:
        return _PROBE in tokenizer.apply_chat_template(turns, tokenize=False)
    except (TemplateError, TypeError, ValueError):
        return False
