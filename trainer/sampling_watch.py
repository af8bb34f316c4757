"""Judges the batches of a session while it trains: are they Poisson samples at the plan's rate?

Amplification is only there for records that are drawn independently. What samplers do instead shows: another rate in
the number drawn so far, batches of one fixed size in that size, a shuffled pass in that no record comes twice. Each
judgement bounds the exact probability of what was seen under Poisson sampling, so the stated probability of a false
alarm holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

_JUDGEMENTS = 3


@dataclass(slots=True, kw_only=True)
class SamplingWatch:
    """Watches at most `draws` batches that include each of `records` with probability `rate`.

    With Poisson samples it ever raises an alarm with a probability of at most `false_alarm`. What it has counted is
    private.
    """

    rate: float
    records: int
    draws: int
    false_alarm: float
    _batches: int = field(default=0, init=False)
    _drawn: int = field(default=0, init=False)
    _sizes: set[int] = field(default_factory=set, init=False)
    _seen: set[int] = field(default_factory=set, init=False)
    _twice: bool = field(default=False, init=False)

    def fault(self, members: Sequence[int]) -> str | None:
        """Return what is wrong with the batch, or with all so far; None if nothing is."""
        if len(set(members)) != len(members) or not all(0 <= index < self.records for index in members):
            return "a batch holds a record twice, or one that is not of the dataset"
        self._count(members)
        # Nothing so improbable may be: the logarithm of the false alarm's share of one judgement.
        least = math.log(self.false_alarm / (_JUDGEMENTS * self.draws))
        if log_chance_of_count(self._drawn, self.records * self._batches, self.rate) < least:
            return "records are not drawn at the rate of the plan"
        if len(self._sizes) == 1 and log_chance_of_one_size(self._batches, self.records, self.rate) < least:
            return "batches have one fixed size, expected each record drawn by itself"
        if not self._twice and log_chance_of_no_repeat(self._batches, self.records, self.rate) < least:
            return "no record is drawn twice, expected each batch drawn from all records"
        return None

    def _count(self, members: Sequence[int]) -> None:
        self._batches += 1
        self._drawn += len(members)
        self._sizes.add(len(members))
        self._twice = self._twice or not self._seen.isdisjoint(members)
        if self._twice:
            self._seen.clear()
        else:
            self._seen.update(members)


@dataclass(slots=True, kw_only=True)
class PassWatch:
    """Watches a single pass over `records`: each may be in one batch, and in no other."""

    records: int
    _seen: set[int] = field(default_factory=set, init=False)

    def fault(self, members: Sequence[int]) -> str | None:
        """Return what is wrong with the batch; None if nothing is."""
        if len(set(members)) != len(members) or not all(0 <= index < self.records for index in members):
            return "a batch holds a record twice, or one that is not of the dataset"
        again = not self._seen.isdisjoint(members)
        self._seen.update(members)
        return "a record is in two batches of a single pass" if again else None


def log_chance_of_count(count: int, trials: int, rate: float) -> float:
    """Return an upper bound of the log-probability of a count as far from `trials * rate`, on both sides (Chernoff).

    >>> round(log_chance_of_count(240, 16_000, 0.015), 3), round(log_chance_of_count(480, 16_000, 0.015), 1)
    (0.693, -93.9)
    """
    share = count / trials
    divergence = _divergence(share, rate) + _divergence(1 - share, 1 - rate)
    return math.log(2) - trials * divergence


def log_chance_of_one_size(batches: int, records: int, rate: float) -> float:
    """Return an upper bound of the log-probability that all batches have the size of the first.

    >>> round(log_chance_of_one_size(40, 400, 0.015), 1)
    -71.0
    """
    return (batches - 1) * _log_most_probable(records, rate)


def log_chance_of_no_repeat(batches: int, records: int, rate: float) -> float:
    """Return the log-probability that no record is in two batches.

    >>> round(log_chance_of_no_repeat(40, 400, 0.015), 1)
    -51.5
    """
    chance = (1 - rate) ** batches + batches * rate * (1 - rate) ** (batches - 1)
    return records * math.log(chance) if chance > 0 else -math.inf


def _divergence(share: float, rate: float) -> float:
    if share == 0:
        return 0.0
    return share * math.log(share / rate) if rate > 0 else math.inf


def _log_most_probable(records: int, rate: float) -> float:
    """Return the log-probability of the most probable batch size."""
    if rate >= 1:
        return 0.0
    size = math.floor((records + 1) * rate)
    ways = math.lgamma(records + 1) - math.lgamma(size + 1) - math.lgamma(records - size + 1)
    return ways + size * math.log(rate) + (records - size) * math.log1p(-rate)
