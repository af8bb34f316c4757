"""Commands on `training.requests`: read, verified, and refused with a reason where they may not be carried out."""

from collections.abc import Mapping
from dataclasses import dataclass

from ctrainer.agents.events import event_record
from ctrainer.agents.force import InForce
from ctrainer.agents.records import OutputRecord, Record
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.envelope import header, require_known_version
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.identity import event_id
from ctrainer.schemas.signature import SIGNATURE_HEADER, Requester, verify
from ctrainer.schemas.topics import TRAINING_PROGRESS
from ctrainer.schemas.training import CommandRefused, SessionCommand, TrainAdapter, TrainingCommand, read_command

Command = TrainingCommand


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a command is not carried out, and what would be."""

    reason: str
    message: str
    acceptable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandDesk:
    """Decides who may command what. `in_force` gives the constitution that commands must name."""

    requesters: Mapping[str, Requester]
    in_force: InForce
    unsafe_accept_unsigned: bool = False

    def read(self, record: Record) -> Command:
        """Read the command of a record.

        Raises:
            ContractError: the record holds no command: it is a dead letter.
        """
        require_known_version(record.headers)
        return read_command(record.value)

    @staticmethod
    def is_unsigned(record: Record) -> bool:
        """Return whether nobody signed a command: such a one is carried out only where that is allowed."""
        return header(record.headers, SIGNATURE_HEADER) is None

    @staticmethod
    def signer(record: Record) -> str:
        """Return the key id of the signature that a record bears, or `unsigned`."""
        return (header(record.headers, SIGNATURE_HEADER) or "unsigned").partition(":")[0]

    def objection(self, record: Record, command: Command) -> Refusal | None:
        """Return why this command may not be carried out whatever it asks, or None."""
        return (
            self._wrong_key(record, command)
            or self.signature_objection(record, command.tenant)
            or self.constitution_objection(command.constitution)
        )

    def refused(self, record: Record, command: Command, refusal: Refusal) -> OutputRecord:
        """Return the event that tells the requester."""
        data = CommandRefused(
            request_id=str(command.request_id),
            session_id=session_id_of(command),
            tenant=command.tenant,
            command=command.kind,
            reason=refusal.reason,
            message=refusal.message,
            acceptable=refusal.acceptable,
        )
        return event_record(
            topic=TRAINING_PROGRESS,
            key=data.session_id or data.request_id,
            data=data,
            cause=record,
            constitution=self.in_force(),
        )

    def _wrong_key(self, record: Record, command: Command) -> Refusal | None:
        if record.key == command.tenant.encode():
            return None
        message = f"the record key must be the tenant {command.tenant!r}"
        return Refusal(reason="key-is-not-tenant", message=message, acceptable=f"record key {command.tenant}")

    def signature_objection(self, record: Record, tenant: str) -> Refusal | None:
        """Return why whoever signed a record may not act for a tenant, or None."""
        signature = header(record.headers, SIGNATURE_HEADER)
        if signature is None and self.unsafe_accept_unsigned:
            return None
        try:
            requester = verify(self.requesters, signature=signature, key=record.key or b"", value=record.value or b"")
        except ContractError as error:
            return Refusal(reason=error.reason, message=str(error), acceptable="a command signed by a known key")
        if requester.may_act_for(tenant):
            return None
        message = f"key {requester.key_id!r} may not act for tenant {tenant!r}"
        return Refusal(reason="foreign-tenant", message=message, acceptable=", ".join(sorted(requester.tenants)))

    def constitution_objection(self, named: ConstitutionReference) -> Refusal | None:
        """Return why nothing may be done under the constitution that somebody named, or None: it is not in force."""
        active = self.in_force()
        if named == active:
            return None
        which = "foreign-constitution-hash" if named.hash != active.hash else "foreign-constitution-digest"
        message = f"constitution: got {named.hash[:64]} {named.digest[:80]}, active is {active.hash} {active.digest}"
        return Refusal(reason=which, message=message, acceptable=f"{active.hash} {active.digest}")


def session_id_of(command: Command) -> str | None:
    """Return the session a command is about: the same for the same request; None where it is about none."""
    if isinstance(command, TrainAdapter):
        return event_id(f"training.requests/{command.request_id}", "session")
    return command.session_id if isinstance(command, SessionCommand) else None
