"""How the patterns do on turns that another hand wrote: recall, precision, and ordinary turns left alone.

    python -m benchmarks.unseen [FILE ...] [--json]

FILE holds labelled turns (`benchmarks.labelled_turns`); without one, all that the tests have. A marked place is found
when an enforced rule of its principle overlaps it, and whole when findings cover it; a finding that overlaps no mark
is a false alarm. Places of `privacy-places`, which is in shadow mode, are counted by themselves.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.labelled_turns import LabelledTurn, Span, labelled_turns
from ctrainer.agents.compliance.conversation import Turn
from ctrainer.agents.compliance.detectors.detection import Detectors
from ctrainer.agents.compliance.detectors.findings import Found
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.schemas.constitution import Mode

FILES = sorted(Path("tests/unit/agents/compliance").glob("unseen_personal_data*.yaml"))
PRINCIPLES = ("privacy-contact", "privacy-financial", "privacy-identity", "privacy-places", "secrets")
_KEYS = "key-material"
EITHER = "either"
"""The kind of what may be found or not."""


@dataclass(slots=True)
class Score:
    """Marked places, those found and found whole, and false alarms."""

    places: int = 0
    found: int = 0
    whole: int = 0
    alarms: int = 0

    def row(self) -> dict[str, Any]:
        """Return the counts with recall and precision; None where there is nothing to divide by."""
        recall = self.found / self.places if self.places else None
        total = self.found + self.alarms
        return asdict(self) | {"recall": recall, "precision": self.found / total if total else None}


@dataclass(slots=True)
class Quiet:
    """Turns with nothing marked, and those of them with a finding."""

    turns: int = 0
    alarmed: int = 0


def principle_of(finding: Found) -> str:
    """Return the principle that a finding counts for: private keys are secrets, too."""
    principle = finding.source.principle.id
    return "secrets" if principle == _KEYS else principle


def pattern_findings(detectors: Detectors, text: str) -> list[Found]:
    """Return what the rules of personal data and secrets find in a turn of a user."""
    turn = Turn(role="user", content=text, tool_calls=[], tool_call_id=None, name=None)
    return [found for found in detectors.find([turn], ()) if principle_of(found) in PRINCIPLES]


def measure(detectors: Detectors, turns: Iterable[LabelledTurn]) -> tuple[dict[str, Score], dict[str, Score], Quiet]:
    """Return scores by principle and by kind, and how many turns without a mark were left alone."""
    rules = [(one.id, rule.id) for one in default_constitution().principles for rule in one.rules]
    principle_of_kind = {rule: "secrets" if principle == _KEYS else principle for principle, rule in rules}
    principles: dict[str, Score] = {name: Score() for name in PRINCIPLES}
    kinds: dict[str, Score] = defaultdict(Score)
    quiet = Quiet()
    for text, spans in turns:
        found = pattern_findings(detectors, text)
        for span in spans:
            if span.kind != EITHER:
                principle = principle_of_kind.get(span.kind, "secrets")
                for score in (principles[principle], kinds[span.kind]):
                    _count(score, span, text, [one for one in found if principle_of(one) == principle])
        alarms = [one for one in found if _is_enforced(one) and not any(_overlap(one, span) for span in spans)]
        for alarm in alarms:
            principles[principle_of(alarm)].alarms += 1
        if not spans:
            quiet.turns += 1
            quiet.alarmed += bool(alarms)
    return principles, dict(kinds), quiet


def _count(score: Score, span: Span, text: str, found: Sequence[Found]) -> None:
    covered = {place for one in found for place in range(one.start, one.end)}
    score.places += 1
    score.found += any(_overlap(one, span) for one in found)
    score.whole += all(place in covered for place in range(span.start, span.end) if text[place].isalnum())


def _is_enforced(finding: Found) -> bool:
    return finding.source.principle.mode is Mode.ENFORCE


def _overlap(finding: Found, span: Span) -> bool:
    return finding.start < span.end and span.start < finding.end


def report(path: Path, detectors: Detectors) -> dict[str, Any]:
    """Return everything that is measured on one file, as JSON."""
    principles, kinds, quiet = measure(detectors, labelled_turns(path))
    enforced = [score for name, score in principles.items() if name != "privacy-places"]
    total = Score(*(sum(getattr(score, name) for score in enforced) for name in ("places", "found", "whole", "alarms")))
    return {
        "file": path.name,
        "all": total.row(),
        "principles": {name: score.row() for name, score in principles.items()},
        "missed": {kind: score.places - score.found for kind, score in kinds.items() if score.found < score.places},
        "ordinary": asdict(quiet),
    }


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=FILES, help="labelled turns")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    detectors = Court(default_constitution()).detectors
    for measured in (report(path, detectors) for path in options.files):
        if options.json:
            print(json.dumps(measured))
            continue
        print(f"{measured['file']}\n{'':20} {'places':>6} {'found':>6} {'whole':>6} {'alarms':>6}")
        for name, row in {**measured["principles"], "all but places": measured["all"]}.items():
            print(f"{name:20} {row['places']:6} {row['found']:6} {row['whole']:6} {row['alarms']:6}")
        print(f"missed: {measured['missed']}\nordinary turns: {measured['ordinary']}\n")


if __name__ == "__main__":
    main()
