"""What all messages have in common: they are frozen, closed, and read and written as JSON bytes."""

from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ctrainer.schemas.errors import ContractError

MOST_COMMAND_BYTES: Final = 256 * 1024
"""What a person or a program asks for is never as long. To tell all faults of longer ones would take seconds."""
MOST_FAULTS: Final = 20
"""So many faults are told of a message, and how many more there are."""


class Message(BaseModel):
    """A frozen JSON message that refuses unknown fields, and numbers that JSON could not hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> bytes:
        """Return the message as compact UTF-8 JSON; equal messages give equal bytes."""
        return self.__pydantic_serializer__.to_json(self)

    @classmethod
    def from_json(cls, value: bytes | None) -> Self:
        """Read a message from JSON bytes.

        Raises:
            ContractError: `invalid-message`, naming the fields at fault and never their content.
        """
        try:
            return cls.model_validate_json(value or b"")
        except ValidationError as error:
            raise ContractError("invalid-message", f"{cls.__name__}: {describe_faults(error)}") from error


def describe_faults(error: ValidationError) -> str:
    """Return the first faults of a validation as `field.path: kind`, without any of the input's text."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:MOST_FAULTS]
    told = [f"{'.'.join(map(str, fault['loc'])) or 'message'}: {fault['type']}" for fault in faults]
    more = error.error_count() - len(faults)
    return "; ".join([*told, *([f"and {more} more"] if more else [])])


def short(value: bytes | None) -> bytes:
    """Return the bytes of a command, which anybody may have written.

    Raises:
        ContractError: `record-too-large`: it is longer than any command.
    """
    if len(value or b"") > MOST_COMMAND_BYTES:
        raise ContractError("record-too-large", f"command: expected at most {MOST_COMMAND_BYTES} bytes")
    return value or b""
