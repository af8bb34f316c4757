"""Records of plain talk, read in a third of the time that pydantic takes for any record.

A record is plain if it needs neither repair nor link: no tools, no parts, no speaker's name, roles as they should be,
one answer. Whatever is not plain, or not valid, is left to `ctrainer.schemas.flywheel`, which knows all shapes and says
what is wrong. Both give the same of a plain record; fields that nobody reads may nest deeper here, and hold longer
numbers.
"""

from functools import lru_cache
from typing import Annotated, Literal, TypeAlias

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder
from pydantic import TypeAdapter, ValidationError

from ctrainer.agents.compliance.conversation import Turn
from ctrainer.schemas.flywheel import MOST_OF_A_NAME
from ctrainer.schemas.training import Name

MAX_MESSAGES = 1_000

_Nothing: TypeAlias = Annotated[list[None], Meta(max_length=0)] | None
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class PlainMessage(Struct, frozen=True, gc=False):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str
    tool_calls: _Nothing = None
    tool_call_id: str | None = None
    name: None = None


class PlainAnswer(Struct, frozen=True, gc=False):
    """The turn of the model."""

    content: str
    role: Literal["assistant"] = "assistant"
    tool_calls: _Nothing = None
    tool_call_id: str | None = None
    name: None = None


class PlainChoice(Struct, frozen=True, gc=False):
    """The only answer."""

    message: PlainAnswer


class PlainRequest(Struct, frozen=True, gc=False):
    """A request for talk."""

    messages: Annotated[list[PlainMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    tools: _Nothing = None
    model: Annotated[str, Meta(max_length=MOST_OF_A_NAME)] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None


class PlainResponse(Struct, frozen=True, gc=False):
    """What came back."""

    choices: Annotated[list[PlainChoice], Meta(min_length=1, max_length=1)]


class PlainRecord(Struct, frozen=True, gc=False):
    """A plain record, in the fields of `FlywheelRecord`."""

    timestamp: Annotated[float, Meta(ge=0, lt=1e14)]
    client_id: str
    workload_id: str
    request: PlainRequest
    response: PlainResponse
    contract_version: str | None = None
    error_details: None = None
    constitutional_hash: str | None = None

    def turns(self) -> list[Turn]:
        """Return the conversation with the answer as its last turn."""
        said: tuple[PlainMessage | PlainAnswer, ...] = (*self.request.messages, self.response.choices[0].message)
        return [
            {"role": one.role, "content": one.content, "tool_calls": [], "tool_call_id": None, "name": None}
            for one in said
        ]


_DECODER = Decoder(PlainRecord)


def plain_record(value: bytes) -> PlainRecord | None:
    """Return a record if it is plain and valid and its answer says something, else None."""
    try:
        if not value.isascii():
            value.decode()  # not all readers look into fields that they skip
        record = _DECODER.decode(value)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None
    answer = record.response.choices[0].message.content
    return record if answer.strip() and _are_names(record.client_id, record.workload_id) else None


@lru_cache(maxsize=4_096)
def _are_names(*texts: str) -> bool:
    try:
        for text in texts:
            _NAME.validate_python(text)
    except ValidationError:
        return False
    return True
