"""Turns of a logged conversation, brought into one form with their tool calls and answers linked."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import orjson

from ctrainer.agents.compliance.conversation import Call, CalledFunction, StrictRole, Turn
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.flywheel import FlywheelRecord, LoggedAnswer, LoggedMessage, LoggedPart, LoggedToolCall

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
_PLAIN: Final[Mapping[str, StrictRole]] = MappingProxyType(
    {"system": "system", "user": "user", "assistant": "assistant"}
)
Note = dict[str, str]
"""A repair as it is written: its `code` and the `path` of its place."""


class Turns:
    """Collects the turns of one record in order, repairs what is safe to repair, and keeps note of it."""

    def __init__(self) -> None:
        self._turns: list[Turn] = []
        self._open: list[Call] = []
        self._open_ids: set[str] = set()
        self._calls: list[tuple[Call, str]] = []
        self._answers: list[tuple[Turn, Call]] = []
        self._notes: list[Note] = []

    def add_request(self, messages: Sequence[LoggedMessage]) -> None:
        """Add the messages of the request.

        Raises:
            ContractError: `broken-tool-link`, `invalid-tool-arguments`, `unsupported-content`.
        """
        for index, message in enumerate(messages):
            self._turns.append(_plain(message) or self._repaired(message, f"request.messages.{index}"))

    def add_response(self, record: FlywheelRecord) -> None:
        """Add the first choice as the last turn.

        Raises:
            ContractError: `no-choices`, `logged-error`, `empty-response`, and those of `add_request`.
        """
        choices = record["response"].get("choices")
        failed = record.get("error_details")
        if not choices:
            reason = "logged-error" if failed else "no-choices"
            raise ContractError(reason, "response.choices: got none, expected at least one")
        if failed:
            self._note("error-details-dropped", "error_details")
        if len(choices) > 1:
            self._note("further-choices-dropped", "response.choices")
        message = choices[0]["message"]
        answer = _plain(message) or self._repaired(message, "response.choices.0.message")
        if not answer["content"].strip() and not answer["tool_calls"]:
            raise ContractError("empty-response", "response.choices.0.message: neither content nor tool calls")
        self._turns.append(answer)

    def finish(self) -> tuple[list[Turn], list[Note]]:
        """Name the calls that nobody named and return the turns with all repairs."""
        taken = {call["id"] for call, _ in self._calls}
        for number, (call, path) in enumerate(self._calls):
            if not call["id"]:
                call["id"] = _free_id(number, taken)
                self._note("tool-call-id-assigned", f"{path}.id")
        for turn, call in self._answers:
            turn["tool_call_id"] = call["id"]
        return self._turns, self._notes

    def _repaired(self, message: LoggedMessage | LoggedAnswer, path: str) -> Turn:
        logged_role = message.get("role", "assistant")
        role = ROLES[logged_role]
        if logged_role != role:
            self._note("role-renamed", f"{path}.role")
        logged_calls = enumerate(message.get("tool_calls") or ())
        calls = [self._opened_call(call, f"{path}.tool_calls.{index}") for index, call in logged_calls]
        if calls and role != "assistant":
            raise ContractError("broken-tool-link", f"{path}.tool_calls: only an assistant can call tools")
        content, name = self._content(message, path), self._name(message, role, path)
        turn = Turn(role=role, content=content, tool_calls=calls, tool_call_id=None, name=name)
        if role == "tool":
            self._answers.append((turn, self._answered_call(message.get("tool_call_id"), path)))
        return turn

    def _content(self, message: LoggedMessage | LoggedAnswer, path: str) -> str:
        content = message.get("content")
        if isinstance(content, str):
            return content
        if content is None:
            if not message.get("tool_calls"):
                self._note("null-content", f"{path}.content")
            return ""
        self._note("content-parts-joined", f"{path}.content")
        return "\n".join(_text(part, path) for part in content)

    def _name(self, message: LoggedMessage | LoggedAnswer, role: str, path: str) -> str | None:
        """Return the name of a tool; a speaker's name is personal and of no use to training."""
        name = message.get("name")
        if name is not None and role != "tool":
            self._note("speaker-name-dropped", f"{path}.name")
            return None
        return name

    def _opened_call(self, logged: LoggedToolCall, path: str) -> Call:
        call_id = logged.get("id") or ""
        if call_id in self._open_ids:
            raise ContractError("broken-tool-link", f"{path}.id: an open call has the same id")
        if logged.get("type") is None:
            self._note("tool-call-type-assigned", f"{path}.type")
        arguments = self._arguments(logged["function"].get("arguments"), f"{path}.function.arguments")
        function = CalledFunction(name=logged["function"]["name"], arguments=arguments)
        call = Call(id=call_id, type="function", function=function)
        self._open.append(call)
        self._open_ids |= {call_id} if call_id else set()
        self._calls.append((call, path))
        return call

    def _arguments(self, arguments: str | dict[str, Any] | None, path: str) -> str:
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

    def _answered_call(self, call_id: str | None, path: str) -> Call:
        """Return the call that a tool's answer belongs to: by id, else by order."""
        by_id = [call for call in self._open if call["id"] == call_id] if call_id in self._open_ids else []
        candidates = by_id or [call for call in self._open if not call_id or not call["id"]]
        if not candidates:
            raise ContractError("broken-tool-link", f"{path}.tool_call_id: answers no open call")
        call = candidates[0]
        if not by_id:
            self._note("tool-answer-linked-by-order", f"{path}.tool_call_id")
            call["id"] = call["id"] or call_id or ""
        self._open.remove(call)
        self._open_ids.discard(call["id"])
        return call

    def _note(self, code: str, path: str) -> None:
        self._notes.append({"code": code, "path": path})


def _plain(message: LoggedMessage | LoggedAnswer) -> Turn | None:
    """Return the turn of a message that needs neither repair nor link: nearly all of them."""
    content, role = message.get("content"), _PLAIN.get(message.get("role", "assistant"))
    if not isinstance(content, str) or role is None or message.get("tool_calls") or message.get("name") is not None:
        return None
    return {"role": role, "content": content, "tool_calls": [], "tool_call_id": None, "name": None}


def _text(part: LoggedPart, path: str) -> str:
    text = part.get("text")
    if text is None:
        raise ContractError("unsupported-content", f"{path}.content: only parts of type text can be trained on")
    return text


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
        encoded = orjson.dumps(arguments)
        is_same = bool(orjson.loads(encoded) == arguments)  # what JSON has no number for is written as null
    except (TypeError, ValueError) as error:
        raise ContractError("invalid-tool-arguments", f"{path}: cannot be written as JSON") from error
    if not is_same:
        raise ContractError("invalid-tool-arguments", f"{path}: holds a number that JSON does not have")
    return encoded.decode()


def _free_id(number: int, taken: set[str]) -> str:
    candidate = f"call_{number + 1}"
    while candidate in taken:
        candidate += "_"
    taken.add(candidate)
    return candidate
