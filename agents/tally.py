"""What judging has come to so far in this process: counted where it happens, read when somebody asks.

A batch that is judged again after a failed transaction counts again: the events are the exact count.
"""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts since the start of the process.

    `verdicts` by verdict; `findings` by principle and mode; `answers` by where a decision came from (`memory`,
    `shared`, `policy`); `layers` by what became of asking two policy layers (`agreed`, `disagreed`, `fallback`);
    `guard` by what a guard model said of a turn (`harmful`, `harmless`, `spared`, `unclear`, `unavailable`) and what
    the harm score says (`harmful`, `harmless`); `unanswered` by who never answered about a parked sample, which a
    person reads therefore (`guard`, `policy`).
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    layers: Counter[str] = field(default_factory=Counter)
    guard: Counter[tuple[str, str]] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
