"""Turns of a logged conversation, brought into one form with their tool calls and answers linked."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import orjson

from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.flywheel import FlywheelRecord, LoggedMessage, LoggedPart, LoggedToolCall
from ctrainer.schemas.samples import ChatMessage, Repair, ToolCall, ToolFunction

StrictRole = Literal["system", "user", "assistant", "tool"]
ROLES: Final[Mapping[str, StrictRole]] = MappingProxyType(
    {
        "system": "system",
        "developer": "system",
        "user": "user",
        "human": "user",
        "assistant": "assistant",
        "ai": "assistant",
        "chain": "assistant",
        "tool": "tool",
        "function": "tool",
    }
)


class _Call:
    """A tool call whose id may still be unknown."""

    __slots__ = ("arguments", "id", "name", "path")

    def __init__(self, call_id: str | None, name: str, arguments: str, path: str) -> None:
        self.id = call_id
        self.name = name
        self.arguments = arguments
        self.path = path


class _Turn:
    """A turn whose calls are not closed yet."""

    __slots__ = ("answers", "calls", "content", "name", "role")

    def __init__(self, role: StrictRole, content: str, calls: list[_Call], name: str | None) -> None:
        self.role = role
        self.content = content
        self.calls = calls
        self.name = name
        self.answers: _Call | None = None


class Turns:
    """Collects the turns of one record in order, repairs what is safe to repair, and keeps note of it."""

    def __init__(self) -> None:
        self._turns: list[_Turn] = []
        self._open: list[_Call] = []
        self._repairs: list[Repair] = []

    def add_request(self, record: FlywheelRecord) -> None:
        """Add the messages of the request.

        Raises:
            ContractError: `broken-tool-link`, `invalid-tool-arguments`, `unsupported-content`.
        """
        for index, message in enumerate(record.request.messages or ()):
            self._add(message, f"request.messages.{index}")

    def add_response(self, record: FlywheelRecord) -> None:
        """Add the first choice as the last turn.

        Raises:
            ContractError: `no-choices`, `logged-error`, `empty-response`, and those of `add_request`.
        """
        choices = record.response.choices
        if not choices:
            reason = "logged-error" if record.error_details else "no-choices"
            raise ContractError(reason, "response.choices: got none, expected at least one")
        if record.error_details:
            self._note("error-details-dropped", "error_details")
        if len(choices) > 1:
            self._note("further-choices-dropped", "response.choices")
        self._add(choices[0].message, "response.choices.0.message")
        answer = self._turns[-1]
        if not answer.content.strip() and not answer.calls:
            raise ContractError("empty-response", "response.choices.0.message: neither content nor tool calls")

    def finish(self) -> tuple[tuple[ChatMessage, ...], tuple[Repair, ...]]:
        """Name the calls that nobody named and return the turns with all repairs."""
        calls = [call for turn in self._turns for call in turn.calls]
        taken = {call.id for call in calls}
        for number, call in enumerate(calls):
            if call.id is None:
                call.id = _free_id(number, taken)
                self._note("tool-call-id-assigned", f"{call.path}.id")
        return tuple(map(_strict, self._turns)), tuple(self._repairs)

    def _add(self, message: LoggedMessage, path: str) -> None:
        role = ROLES[message.role]
        if message.role != role:
            self._note("role-renamed", f"{path}.role")
        calls = [
            self._opened_call(call, f"{path}.tool_calls.{index}") for index, call in enumerate(message.tool_calls or ())
        ]
        if calls and role != "assistant":
            raise ContractError("broken-tool-link", f"{path}.tool_calls: only an assistant can call tools")
        turn = _Turn(role, self._content(message, path), calls, self._name(message, role, path))
        if role == "tool":
            turn.answers = self._answered_call(message.tool_call_id, path)
        self._turns.append(turn)

    def _content(self, message: LoggedMessage, path: str) -> str:
        if isinstance(message.content, str):
            return message.content
        if message.content is None:
            if not message.tool_calls:
                self._note("null-content", f"{path}.content")
            return ""
        self._note("content-parts-joined", f"{path}.content")
        return "\n".join(_text(part, path) for part in message.content)

    def _name(self, message: LoggedMessage, role: str, path: str) -> str | None:
        """Return the name of a tool; a speaker's name is personal and of no use to training."""
        if message.name is not None and role != "tool":
            self._note("speaker-name-dropped", f"{path}.name")
            return None
        return message.name

    def _opened_call(self, call: LoggedToolCall, path: str) -> _Call:
        if call.id and any(other.id == call.id for other in self._open):
            raise ContractError("broken-tool-link", f"{path}.id: an open call has the same id")
        if call.type is None:
            self._note("tool-call-type-assigned", f"{path}.type")
        arguments = self._arguments(call.function.arguments, f"{path}.function.arguments")
        opened = _Call(call.id or None, call.function.name, arguments, path)
        self._open.append(opened)
        return opened

    def _arguments(self, arguments: str | dict[str, object] | None, path: str) -> str:
        if isinstance(arguments, dict):
            self._note("arguments-as-object", path)
            return _encode(arguments, path)
        if not arguments or not arguments.strip():
            self._note("empty-arguments", path)
            return "{}"
        parsed = _decode(arguments, path)
        if "\\u" not in arguments:
            return arguments
        self._note("arguments-unescaped", path)
        return _encode(parsed, path)

    def _answered_call(self, call_id: str | None, path: str) -> _Call:
        """Return the call that a tool's answer belongs to: by id, else by order."""
        by_id = [call for call in self._open if call.id == call_id] if call_id else []
        candidates = by_id or [call for call in self._open if call_id is None or not call_id or call.id is None]
        if not candidates:
            raise ContractError("broken-tool-link", f"{path}.tool_call_id: answers no open call")
        call = candidates[0]
        if not by_id:
            self._note("tool-answer-linked-by-order", f"{path}.tool_call_id")
            call.id = call.id or call_id or None
        self._open.remove(call)
        return call

    def _note(self, code: str, path: str) -> None:
        self._repairs.append(Repair(code=code, path=path))


def _text(part: LoggedPart, path: str) -> str:
    if part.text is None:
        raise ContractError("unsupported-content", f"{path}.content: only parts of type text can be trained on")
    return part.text


def _decode(arguments: str, path: str) -> dict[str, object]:
    try:
        parsed = orjson.loads(arguments)
    except orjson.JSONDecodeError as error:
        raise ContractError("invalid-tool-arguments", f"{path}: not well-formed JSON") from error
    if not isinstance(parsed, dict):
        raise ContractError("invalid-tool-arguments", f"{path}: expected a JSON object")
    return parsed


def _encode(arguments: dict[str, object], path: str) -> str:
    try:
        return orjson.dumps(arguments).decode()
    except (TypeError, ValueError) as error:
        raise ContractError("invalid-tool-arguments", f"{path}: cannot be written as JSON") from error


def _free_id(number: int, taken: set[str | None]) -> str:
    candidate = f"call_{number + 1}"
    while candidate in taken:
        candidate += "_"
    taken.add(candidate)
    return candidate


def _strict(turn: _Turn) -> ChatMessage:
    return ChatMessage(
        role=turn.role,
        content=turn.content,
        tool_calls=tuple(
            ToolCall(id=call.id or "", function=ToolFunction(name=call.name, arguments=call.arguments))
            for call in turn.calls
        ),
        tool_call_id=turn.answers.id if turn.answers else None,
        name=turn.name,
    )
