"""What a worker can do; a deployment spreads roles over workers as it likes."""

from enum import StrEnum

from ctrainer.schemas.errors import ConstitutionalTrainerError


class UnknownRoleError(ConstitutionalTrainerError):
    """A role was named that does not exist."""


class Role(StrEnum):
    """One kind of work of `ctrainer worker`."""

    SCREENING = "screening"
    SLOW_LANE = "slow-lane"
    REVISION = "revision"
    CONSTITUTION = "constitution"
    CURATION = "curation"
    TRAINING = "training"
    PRIVACY = "privacy"
    AUDIT = "audit"

    @classmethod
    def parse(cls, text: str) -> frozenset["Role"]:
        """Read a comma-separated list of roles.

        Raises:
            UnknownRoleError: a name is no role, or there is none.

        >>> sorted(Role.parse("audit, privacy"))
        [<Role.AUDIT: 'audit'>, <Role.PRIVACY: 'privacy'>]
        """
        names = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in names if name not in set(cls)]
        if unknown or not names:
            raise UnknownRoleError(f"roles: got {text!r}, expected a comma-separated list of {', '.join(cls)}")
        return frozenset(cls(name) for name in names)
