"""The arithmetic of a privacy ledger: what a scope has spent, and whether a reservation still fits.

Spend is kept as Renyi divergences and only ever grows: there is no refund. A reservation is charged when it is granted,
before any of its noise is drawn, so a crash can over-count and never under-count. The gate is a privacy filter: it is
sound although requests may depend on what was seen (Feldman and Zrnic 2021, arXiv 2008.11193).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ctrainer.schemas.privacy import ALERT_SHARE, HALT_SHARE
from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, most_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The reservation is charged. `alert` is true for the one grant that crosses 90 % of its ceiling."""

    epsilon: float
    rdp: tuple[float, ...]
    alert: bool
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The reservation is not charged and must not run; `acceptable_steps` would still be granted."""

    reason: str
    message: str
    epsilon: float
    acceptable_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the ledger remembers of a grant: a fingerprint of the whole request, and its number of steps."""

    fingerprint: str
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """What one scope has spent and granted. `sequence` counts the entries of its ledger."""

    rdp: tuple[float, ...] = NOTHING
    grants: Mapping[str, Grant] = field(default_factory=lambda: MappingProxyType({}))
    sequence: int = 0

    def with_grant(self, reservation_id: str, grant: Grant, rdp: tuple[float, ...]) -> "LedgerState":
        """Return the state after a grant."""
        grants = MappingProxyType({**self.grants, reservation_id: grant})
        return replace(self, rdp=rdp, grants=grants, sequence=self.sequence + 1)

    def with_entry(self) -> "LedgerState":
        """Return the state after an entry that charges nothing."""
        return replace(self, sequence=self.sequence + 1)


def reserve(
    state: LedgerState,
    *,
    reservation_id: str,
    fingerprint: str,
    step_rdp: tuple[float, ...],
    steps: int,
    epsilon_ceiling: float,
    delta: float,
    releases: int | None = None,
) -> tuple[LedgerState, Granted | Refused]:
    """Charge a reservation if the spend after it stays within 95 % of its ceiling.

    Every step costs a release, unless `releases` says how many the reservation costs: none for the later blocks of a
    single pass, which are other records' (`trainer/release_cost.py`). The same reservation again gets the same answer
    and is not charged again; another one under its id is refused, and so is one without steps or a defined cost.
    """
    known = state.grants.get(reservation_id)
    before = epsilon_of(state.rdp, delta)
    if known is not None:
        return state, _known(known, fingerprint, state.rdp, before)
    fault = _wrong_request(step_rdp, steps)
    releases = steps if releases is None else releases
    if fault is not None:
        return state.with_entry(), Refused(reason="wrong-request", message=fault, epsilon=before, acceptable_steps=0)
    rdp = compose(state.rdp, step_rdp, releases)
    after = epsilon_of(rdp, delta)
    limit = HALT_SHARE * epsilon_ceiling
    if not after <= limit:
        fits = most_steps(state.rdp, step_rdp, limit=limit, delta=delta) if releases == steps else 0
        message = f"{steps} steps would take epsilon from {before:.4f} to {after:.4f}, over {limit:.4f} (95 %)"
        return state.with_entry(), Refused(
            reason="budget-exhausted", message=message, epsilon=before, acceptable_steps=fits
        )
    threshold = ALERT_SHARE * epsilon_ceiling
    granted = Granted(epsilon=after, rdp=rdp, alert=before < threshold <= after)
    return state.with_grant(reservation_id, Grant(fingerprint=fingerprint, steps=steps), rdp), granted


def _wrong_request(step_rdp: tuple[float, ...], steps: int) -> str | None:
    if steps <= 0:
        return f"steps: got {steps}, expected at least 1"
    if not all(value >= 0 for value in step_rdp):
        return "cost of a step: got a negative or undefined divergence, expected numbers of at least 0"
    return None


def _known(known: Grant, fingerprint: str, rdp: tuple[float, ...], epsilon: float) -> Granted | Refused:
    if known.fingerprint == fingerprint:
        return Granted(epsilon=epsilon, rdp=rdp, alert=False, repeated=True)
    return Refused(
        reason="reservation-conflict",
        message="this reservation id was granted for another request",
        epsilon=epsilon,
        acceptable_steps=0,
    )
