"""A trial: records or plain texts judged without Kafka, as the screening stage would judge them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ctrainer.agents.compliance.conversation import StrictRole, Turn
from ctrainer.agents.compliance.judgement import Court, Examination, judged_json
from ctrainer.agents.compliance.policy import Decision
from ctrainer.agents.compliance.shape import MAX_RECORD_BYTES, ShapedSample, shape
from ctrainer.agents.compliance.verdicts import Verdicts
from ctrainer.schemas.errors import ContractError

Json = dict[str, Any]
Read = Callable[[bytes], ShapedSample]


def record(line: bytes) -> ShapedSample:
    """Read a flywheel record, or a chat as it is fine-tuned on: `messages`, the last one the answer, perhaps `tools`.

    Raises:
        ContractError: the line is neither.
    """
    value = line.rstrip(b"\r\n")
    try:
        return shape(value)
    except ContractError as error:
        logged = _logged(value) if error.reason == "missing-field" else None
        if logged is None:
            raise
    return shape(orjson.dumps(logged))


def _logged(value: bytes) -> Json | None:
    """Return a chat as the record that would log it, or None where it is none."""
    try:
        chat = orjson.loads(value)
    except orjson.JSONDecodeError:  # what other readers of JSON take
        return None
    if {"request", "response"} & chat.keys() or not isinstance(chat.get("messages"), list) or not chat["messages"]:
        return None
    *asked, answer = chat["messages"]
    return {
        "timestamp": 0,
        "client_id": "chat",
        "workload_id": "chat",
        "request": {"messages": asked, "tools": chat.get("tools")},
        "response": {"choices": [{"message": answer}]},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Reads a line as one turn of `role`: the whole line, or the text field of its JSON object."""

    role: StrictRole
    field: str | None = None

    def __call__(self, line: bytes) -> ShapedSample:
        """Read a line.

        Raises:
            ContractError: the line is too long, not UTF-8, or not a JSON object with such a field.
        """
        line = line.rstrip(b"\r\n")
        if len(line) > MAX_RECORD_BYTES:
            raise ContractError("record-too-large", f"line: expected at most {MAX_RECORD_BYTES} bytes")
        return spoken(self._text(line), self.role)

    def _text(self, line: bytes) -> str:
        try:
            if self.field is None:
                return line.decode()
            value = orjson.loads(line)
        except UnicodeDecodeError as error:
            raise ContractError("not-utf8", f"line: byte {error.start} is not UTF-8") from error
        except orjson.JSONDecodeError as error:
            raise ContractError("not-json", "line: expected a JSON object") from error
        text = value.get(self.field) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise ContractError("missing-field", f"{self.field}: expected a text of this name in each line")
        return text


def spoken(text: str, role: StrictRole) -> ShapedSample:
    """Return a sample of one turn."""
    turn = Turn(role=role, content=text, tool_calls=[], tool_call_id=None, name=None)
    return ShapedSample(
        tenant="",
        workload_id="",
        logged_at=0,
        model="",
        conversation="",
        user_digest=None,
        messages=[turn],
        tools=[],
        repairs=[],
    )


class Trial:
    """Judges lines under one constitution."""

    def __init__(self, *, court: Court, verdicts: Verdicts, read: Read, show_text: bool = False) -> None:
        self._court = court
        self._verdicts = verdicts
        self._read = read
        self._show_text = show_text

    async def of(self, lines: Sequence[bytes]) -> list[Json]:
        """Return the decision on each line in order: the data of `SampleJudged`, or why the line is no sample."""
        docket = [self._shaped(line) for line in lines]
        examined = self._court.examine_all([entry for entry in docket if isinstance(entry, ShapedSample)])
        decided = iter(await self._court.decide(self._verdicts, examined))
        return [self._concluded(*next(decided)) if isinstance(entry, ShapedSample) else entry for entry in docket]

    def _shaped(self, line: bytes) -> ShapedSample | Json:
        try:
            return self._read(line)
        except ContractError as error:
            return {"verdict": "dead-letter", "reason": error.reason, "message": str(error)}

    def _concluded(self, examination: Examination, decision: Decision) -> Json:
        judgement = self._court.conclude(examination, decision)
        judged = judged_json(examination, judgement, detector_version=self._court.detector_version)
        shown = {"messages": judgement.redacted.messages, "tools": judgement.redacted.tools} if self._show_text else {}
        return {**judged, **shown}
