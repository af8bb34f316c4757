"""How well a constitution does on labelled texts: what each principle finds, misses and alarms for."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ctrainer.agents.compliance.conversation import StrictRole

_BINS = 10


class LabelledText(NamedTuple):
    """A text with its truth: the principles that it breaches. `harmful` is None where nobody said."""

    source: str
    text: str
    role: StrictRole
    breaches: frozenset[str]
    harmful: bool | None


class Observed(NamedTuple):
    """What was found in a text: the principles that it breaches, and the highest probability of harm."""

    breaches: frozenset[str]
    harm: float


@dataclass(slots=True)
class Rates:
    """Counts of one question over many texts."""

    found: int = 0
    missed: int = 0
    alarms: int = 0
    quiet: int = 0

    def note(self, *, is_true: bool, is_said: bool) -> None:
        """Count one text."""
        if is_true:
            self.found += is_said
            self.missed += not is_said
        else:
            self.alarms += is_said
            self.quiet += not is_said

    def row(self) -> dict[str, Any]:
        """Return precision, recall, F1, false-alarm rate and accuracy; None where there is nothing to divide by."""
        precision, recall = _share(self.found, self.alarms), _share(self.found, self.missed)
        total = (precision or 0.0) + (recall or 0.0)
        return {
            "texts": self.found + self.missed,
            "precision": precision,
            "recall": recall,
            "f1": 2 * (precision or 0.0) * (recall or 0.0) / total if total else 0.0,
            "false_alarm_rate": _share(self.alarms, self.quiet),
            "accuracy": _share(self.found + self.quiet, self.missed + self.alarms),
        }


@dataclass(slots=True)
class Measurement:
    """What came out. `principles` by id; `harm` by source, and over those that count together as `pooled`."""

    principles: dict[str, Rates] = field(default_factory=lambda: defaultdict(Rates))
    harm: dict[str, Rates] = field(default_factory=lambda: defaultdict(Rates))
    scores: list[tuple[float, bool]] = field(default_factory=list)


def measure(
    pairs: Iterable[tuple[LabelledText, Observed]],
    *,
    principles: Sequence[str],
    harm: frozenset[str],
    pooled: frozenset[str],
) -> Measurement:
    """Return what a constitution does on labelled texts.

    A principle is judged only by the texts of sources that label it, and by all texts that breach nothing. `harm` names
    the principles that stand for harm; `pooled` the sources of the pooled figure.
    """
    known = list(pairs)
    labelled = _labelled_principles(text for text, _ in known)
    measured = Measurement()
    for text, seen in known:
        for principle in principles:
            if principle in labelled[text.source] or text.harmful is False:
                measured.principles[principle].note(
                    is_true=principle in text.breaches, is_said=principle in seen.breaches
                )
        if text.harmful is not None:
            is_said = bool(seen.breaches & harm)
            for group in (text.source, *(("pooled",) if text.source in pooled else ())):
                measured.harm[group].note(is_true=text.harmful, is_said=is_said)
            if text.source in pooled:
                measured.scores.append((seen.harm, text.harmful))
    return measured


def calibration_error(scores: Sequence[tuple[float, bool]]) -> float:
    """Return the expected calibration error: mean distance of probability and truth over ten bins (Guo et al. 2017)."""
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for probability, truth in scores:
        bins[min(_BINS - 1, int(probability * _BINS))].append((probability, truth))
    distances = (abs(sum(p for p, _ in one) - sum(t for _, t in one)) for one in bins.values())
    return sum(distances) / len(scores) if scores else 0.0


def _labelled_principles(texts: Iterable[LabelledText]) -> Mapping[str, set[str]]:
    labelled: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        labelled[text.source] |= text.breaches
    return labelled


def _share(part: int, rest: int) -> float | None:
    return part / (part + rest) if part + rest else None
