"""What can go wrong with services on this machine."""

from ctrainer.schemas.errors import ConstitutionalTrainerError


class ServiceError(ConstitutionalTrainerError):
    """A service cannot be had or did not come up. The message says what would help."""
