"""The root of every error this project raises on purpose."""


class ConstitutionalTrainerError(Exception):
    """A mistake that a person can mend. The message says what was found, what was expected and what to do."""


class ContractError(ConstitutionalTrainerError):
    """A message does not follow the contract of its topic. `reason` is the machine-readable dead-letter code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
