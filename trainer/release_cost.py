"""What one release of a mechanism costs: the one place that maps a mechanism to Renyi divergences.

Plan, ledger and command line ask here, so that none of them can charge a mode as another one.
"""

from collections.abc import Sequence

from ctrainer.schemas.privacy import Adjacency, Mechanism, PrivacyMode, PrivacyUnit
from ctrainer.trainer.accounting import rdp_of_step

_MODES = frozenset(PrivacyMode)


def unaccounted(mechanism: Mechanism) -> str | None:
    """Return what a mechanism asks for that has no accounting here, or None.

    Charging it as something else would under-count, so whoever charges must refuse it.
    """
    found, expected = _wrong_mode(mechanism) or _wrong_unit(mechanism) or ("", "")
    if mechanism.adjacency is not Adjacency.ADD_REMOVE:
        found, expected = f"adjacency {mechanism.adjacency}", "add-remove"
    return f"mechanism: got {found}, expected {expected}" if found else None


def release_rdp(mechanism: Mechanism) -> tuple[float, ...]:
    """Return the Renyi divergences of one release: a Poisson step, or a whole single pass.

    In a single pass a record (or user) is in one batch, and every other batch is the same with it and without it, given
    what was released before: the pass costs its one release, at rate 1. With correlated noise the same holds for the
    whole pass as one Gaussian mechanism: its noise is scaled to the norm of a column of the factor.

    >>> from ctrainer.trainer.accounting import epsilon_of
    >>> steps = Mechanism(sampling_rate=0.01, noise_multiplier=1.08, clip_norm=1.0, expected_batch_size=6.0)
    >>> whole_pass = steps.model_copy(update={"mode": "single-pass"})
    >>> [round(epsilon_of(release_rdp(mechanism), 1e-5), 2) for mechanism in (steps, whole_pass)]
    [0.82, 4.33]

    Raises:
        ValueError: the mechanism is unaccounted.
        AccountingError: the analysis gives no number.
    """
    fault = unaccounted(mechanism)
    if fault is not None:
        raise ValueError(fault)
    if PrivacyMode(mechanism.mode).is_single_pass:
        return rdp_of_step(1.0, mechanism.noise_multiplier)
    if mechanism.records_per_user == 1:
        return rdp_of_step(mechanism.sampling_rate, mechanism.noise_multiplier)
    from ctrainer.trainer.user_accounting import user_rdp_of_step  # noqa: PLC0415 - pulls numpy

    return user_rdp_of_step(
        mechanism.sampling_rate, mechanism.noise_multiplier, records_per_user=mechanism.records_per_user
    )


def releases(before: Sequence[range], block: range) -> int:
    """Return how many more releases a block costs in a single pass of which the blocks `before` have run.

    A record is in one step, and a step that runs again with fresh noise is released again. The cost of a pass is that
    of the step which ran most often: a block of fresh steps is free, except the first one.

    >>> releases([], range(8)), releases([range(8)], range(8, 16)), releases([range(8), range(8, 16)], range(8, 16))
    (1, 0, 1)
    >>> releases([range(8), range(8), range(8, 16)], range(8, 16))
    0
    """
    return _most_often([*before, block]) - _most_often(before)


def _most_often(blocks: Sequence[range]) -> int:
    """Return how often the step ran that ran most often."""
    changes = sorted(
        [(block.start, 1) for block in blocks if block] + [(block.stop, -1) for block in blocks if block],
    )
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def _wrong_mode(mechanism: Mechanism) -> tuple[str, str] | None:
    if mechanism.mode not in _MODES:
        return f"mode {mechanism.mode!r}", ", ".join(PrivacyMode)
    if mechanism.bands > 1 and mechanism.mode != PrivacyMode.SINGLE_PASS_CORRELATED:
        return f"{mechanism.bands} bands with mode {mechanism.mode}", "1 band"
    return None


def _wrong_unit(mechanism: Mechanism) -> tuple[str, str] | None:
    several = mechanism.records_per_user > 1
    if mechanism.unit is PrivacyUnit.RECORD and (several or mechanism.whole_users):
        return "users with unit record", "unit user"
    if mechanism.unit is PrivacyUnit.USER and several and mechanism.whole_users:
        return "several records of a user with whole users", "records per user 1"
    if several and PrivacyMode(mechanism.mode).is_single_pass:
        return f"several records of a user with mode {mechanism.mode}", "whole users"
    return None
