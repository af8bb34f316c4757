"""What the release gate found, as it may be published."""

from typing import Self

from pydantic import model_validator

from ctrainer.schemas.message import Message


class ReleaseCheck(Message):
    """One check: `got` must be at least `expected`; `base` is the base model's number, without the adapter.

    The three numbers are absent where they were computed from held-out private records without noise. Whether such a
    check passed is published, and is not covered by the epsilon of the adapter. A `got` that is no number is absent.
    """

    name: str
    passed: bool
    got: float | None = None
    expected: float | None = None
    base: float | None = None


class ReleaseVerdict(Message):
    """Whether the gate lets an adapter out. `reasons` are the names of the checks that failed.

    `probes_digest` names the public prompts; whoever has adapter and prompts can measure the public numbers again.
    """

    passed: bool
    reasons: tuple[str, ...]
    checks: tuple[ReleaseCheck, ...]
    probes_digest: str

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        failed = {check.name for check in self.checks if not check.passed}
        if self.passed == bool(self.reasons) or not failed <= set(self.reasons):
            raise ValueError("passed means that no check failed, and reasons name each that did")
        return self
