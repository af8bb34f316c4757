"""What training left on a disk and nobody needs any more: a pure decision about folders and their age."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

_HOUR = 3_600.0
_DAY = 24 * _HOUR


class Owner(Enum):
    """What is known of the session that a folder belongs to."""

    ACTIVE = auto()
    ENDED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A folder that training made; `idle_seconds` is how long nothing in it has changed."""

    path: Path
    owner: Owner
    idle_seconds: float
    quarantined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long leftovers stay, in seconds, and how many may go at once.

    What belongs to an ended session stays a while for whoever looks into it; what belongs to nobody known stays longer,
    because its session may be one of another broker. A quarantined adapter is evidence and stays longest.
    """

    ended: float = _HOUR
    unknown: float = 7 * _DAY
    quarantined: float = 30 * _DAY
    at_most: int = 100


def abandoned(leftovers: Iterable[Leftover], retention: Retention) -> tuple[Leftover, ...]:
    """Return what may go, the longest idle first. Nothing of an active session, paused ones included, is among it."""
    old = [leftover for leftover in leftovers if leftover.idle_seconds > _limit(leftover, retention)]
    return tuple(sorted(old, key=lambda leftover: -leftover.idle_seconds)[: retention.at_most])


def _limit(leftover: Leftover, retention: Retention) -> float:
    if leftover.owner is Owner.ACTIVE:
        return float("inf")
    if leftover.quarantined:
        return retention.quarantined
    return retention.ended if leftover.owner is Owner.ENDED else retention.unknown
