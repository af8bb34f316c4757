"""Measure the pattern rules on labelled personal data and secrets, and their false alarms on ordinary text.

    python scripts/measure_patterns.py --data DIR [--json]

DIR holds one folder for each data set (`presidio_synth`, `synthetic_secrets`, `self_instruct`,
`self_instruct_responses`, `hh_rlhf_harmless`), each with a `dev.jsonl`. A labelled span is found when a finding of its
kind overlaps it. A finding that overlaps no labelled span of its kind is a false alarm of the kind. On ordinary text
only the principles that are enforced count.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctrainer.agents.compliance.conversation import Turn
from ctrainer.agents.compliance.detectors.detection import Detectors
from ctrainer.agents.compliance.detectors.findings import Found
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.schemas.constitution import Mode

LABELS = {
    "EMAIL_ADDRESS": {"EMAIL"},
    "CREDIT_CARD": {"CARD"},
    "US_SSN": {"SSN"},
    "IBAN_CODE": {"IBAN"},
    "IP_ADDRESS": {"IP_ADDRESS"},
    "PHONE_NUMBER": {"PHONE"},
    "DOMAIN_NAME": {"URL"},
}
"""The kinds of span that have a form, with the labels of the rules that look for them."""

PATTERN_PRINCIPLES = ("privacy-", "secrets", "key-material")
ORDINARY = {
    "self_instruct": ("text", "response"),
    "self_instruct_responses": ("text",),
    "hh_rlhf_harmless": ("chosen", "rejected"),
}
"""Folders of ordinary text, with the fields that hold it."""


@dataclass(slots=True)
class Score:
    """How often one kind of span was there, found, missed, and alarmed for without being there."""

    count: int = 0
    found: int = 0
    alarms: int = 0
    by_template: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    @property
    def recall(self) -> float:
        """Share of the labelled spans that were found."""
        return self.found / self.count if self.count else 1.0

    @property
    def precision(self) -> float:
        """Share of found spans among found spans and false alarms."""
        total = self.found + self.alarms
        return self.found / total if total else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    def __add__(self, other: "Score") -> "Score":
        return Score(self.count + other.count, self.found + other.found, self.alarms + other.alarms)

    def row(self, kind: str) -> dict[str, Any]:
        """Return the row of the table."""
        figures = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {"type": kind, "count": self.count} | {name: round(value, 4) for name, value in figures.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A labelled place."""

    kind: str
    start: int
    end: int


def overlaps(one: Span | Found, other: Span | Found) -> bool:
    """Return whether two places share a character."""
    return one.start < other.end and other.start < one.end


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a data set."""
    with (folder / "dev.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def findings(detectors: Detectors, text: str) -> list[Found]:
    """Return what the pattern rules of privacy and secrets find in one text."""
    turn = Turn(role="user", content=text, tool_calls=[], tool_call_id=None, name=None)
    return [found for found in detectors.find([turn], ()) if found.source.principle.id.startswith(PATTERN_PRINCIPLES)]


def is_enforced(found: Found) -> bool:
    """Return whether a finding has a consequence."""
    return found.source.principle.mode is Mode.ENFORCE


def score_spans(scores: dict[str, Score], spans: Sequence[Span], found: Sequence[Found], fold: int) -> list[Found]:
    """Add one text to the scores by kind and return its false alarms."""
    alarms = []
    for kind, labels in LABELS.items():
        named = [finding for finding in found if finding.source.rule.label in labels]
        gold = [span for span in spans if span.kind == kind]
        hits = sum(any(overlaps(span, finding) for finding in named) for span in gold)
        wrong = [finding for finding in named if not any(overlaps(span, finding) for span in gold)]
        for score in (scores[kind], scores[f"{kind}/{fold}"]):
            score.count += len(gold)
            score.found += hits
            score.alarms += len(wrong)
        alarms += wrong
    return alarms


def measure_personal_data(detectors: Detectors, folder: Path) -> tuple[dict[str, Score], Counter[str]]:
    """Return scores by kind (also by fold, where a fold is a half of the templates) and false alarms by rule."""
    scores: dict[str, Score] = defaultdict(Score)
    alarms: Counter[str] = Counter()
    for row in rows(folder):
        spans = [Span(kind=span["type"], start=span["start"], end=span["end"]) for span in row["spans"]]
        wrong = score_spans(scores, spans, findings(detectors, row["text"]), int(row["template_id"]) % 2)
        alarms.update(finding.source.rule.id for finding in wrong)
    return dict(scores), alarms


def measure_secrets(detectors: Detectors, folder: Path) -> tuple[dict[str, Score], Counter[str]]:
    """Return scores by kind of secret, the look-alikes among them, and false alarms by rule."""
    scores: dict[str, Score] = defaultdict(Score)
    alarms: Counter[str] = Counter()
    for row in rows(folder):
        found = [one for one in findings(detectors, row["text"]) if not one.source.principle.id.startswith("privacy-")]
        score = scores[("" if row["label"] else "not ") + row["type"]]
        if row["label"]:
            span = Span(kind=row["type"], start=row["span"][0], end=row["span"][1])
            score.count += 1
            score.found += any(overlaps(span, finding) for finding in found)
            found = [finding for finding in found if not overlaps(span, finding)]
        score.alarms += bool(found)
        alarms.update(finding.source.rule.id for finding in found)
    return dict(scores), alarms


def measure_ordinary(detectors: Detectors, data: Path) -> dict[str, tuple[int, int, Counter[str]]]:
    """Return for each folder how many texts there are, how many of them alarm, and the findings by rule."""
    measured = {}
    for name, fields in ORDINARY.items():
        texts = [row[field] for row in rows(data / name) for field in fields if row.get(field)]
        found = [[one for one in findings(detectors, text) if is_enforced(one)] for text in texts]
        by_rule = Counter(finding.source.rule.id for one in found for finding in one)
        measured[name] = (len(texts), sum(map(bool, found)), by_rule)
    return measured


def total(scores: Iterable[Score]) -> Score:
    """Return the sum of scores."""
    return sum(scores, Score())


def table(report: Sequence[dict[str, Any]]) -> str:
    """Return rows as aligned text."""
    head = f"{'type':28} {'count':>6} {'precision':>9} {'recall':>7} {'F1':>6}"
    lines = [
        f"{row['type']:28} {row['count']:6} {row['precision']:9.3f} {row['recall']:7.3f} {row['f1']:6.3f}"
        for row in report
    ]
    return "\n".join([head, *lines])


def report(data: Path) -> dict[str, Any]:
    """Return everything that is measured, as JSON."""
    detectors = Court(default_constitution()).detectors
    personal, personal_alarms = measure_personal_data(detectors, data / "presidio_synth")
    secrets, secret_alarms = measure_secrets(detectors, data / "synthetic_secrets")
    kinds = [personal[kind].row(kind) for kind in LABELS]
    folds = [personal[kind].row(kind) for kind in sorted(personal) if "/" in kind]
    return {
        "personal_data": [*kinds, total(personal[kind] for kind in LABELS).row("all personal data")],
        "personal_data_by_half_of_the_templates": folds,
        "secrets": [
            *(score.row(kind) for kind, score in sorted(secrets.items())),
            total(secrets.values()).row("all secrets"),
        ],
        "false_alarms": {"personal_data": dict(personal_alarms), "secrets": dict(secret_alarms)},
        "ordinary_text": {
            name: {"texts": texts, "with_findings": alarmed, "by_rule": dict(by_rule)}
            for name, (texts, alarmed, by_rule) in measure_ordinary(detectors, data).items()
        },
    }


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    measured = report(options.data)
    if options.json:
        print(json.dumps(measured))
        return
    for name in ("personal_data", "personal_data_by_half_of_the_templates", "secrets"):
        print(f"{name.replace('_', ' ')}\n{table(measured[name])}\n")
    print(f"false alarms by rule: {json.dumps(measured['false_alarms'])}")
    for name, one in measured["ordinary_text"].items():
        print(f"{name}: {one['with_findings']} of {one['texts']} texts with findings {json.dumps(one['by_rule'])}")


if __name__ == "__main__":
    main()
