"""`ctrainer constitution evaluate`: how well a constitution does on labelled texts, and how fast."""

from pathlib import Path
from time import process_time
from typing import Annotated, Any

import typer

from ctrainer.agents.compliance.harm_folds import FoldedHarm
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.measurement import (
    LabelledText,
    Measurement,
    Observed,
    calibration_error,
    measure,
)
from ctrainer.agents.compliance.spoken import Spoken
from ctrainer.agents.trial import spoken
from ctrainer.schemas.constitution import Constitution, Mode
from ctrainer.streams.active_constitution import read_constitution
from ctrainer.streams.bar_chart import bar_chart
from ctrainer.streams.console import print_json, print_rows
from ctrainer.streams.labelled_data import POOLED, LabelledData
from ctrainer.streams.settings import Settings


def evaluate(
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="a folder with the labelled sets")],
    *,
    plot: Annotated[Path | None, typer.Option(dir_okay=False, help="also draw the table, as an SVG file")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Measure each principle of the constitution on labelled texts.

    A text that the harm score was trained on is scored by the model of the fold that left it out.
    """
    constitution = read_constitution(Settings.read())
    folded = FoldedHarm.packaged()
    texts = LabelledData(data, constitution).texts()
    court = Court(constitution, harm=folded)
    started = process_time()
    observed = [_observed(court, folded, text) for text in texts]
    microseconds = (process_time() - started) / len(texts) * 1e6
    enforced = [one.id for one in constitution.principles if one.mode is Mode.ENFORCE]
    harm = _harm_principles(constitution)
    pairs = list(zip(texts, observed, strict=True))
    measured = measure(pairs, principles=enforced, harm=harm, pooled=POOLED)
    table = _table(measured) | {
        "calibration_error": calibration_error(measured.scores),
        "neutral_accepted": _accepted(pairs),
        "cpu_us_per_text": microseconds,
        "texts": len(texts),
        "out_of_fold": sum(folded.knows(text.text) for text in texts),
    }
    if plot is not None:
        plot.write_text(bar_chart("F1 by principle", {row["principle"]: row["f1"] for row in table["principles"]}))
    if json:
        print_json(table)
        return
    print_rows("principles", [_shown(row) for row in table["principles"]], as_json=False)
    print_rows("harm", [_shown(row) for row in table["harm"]], as_json=False)
    rest = {name: value for name, value in table.items() if name not in {"principles", "harm"}}
    print_rows("in all", [_shown(rest)], as_json=False)


def _observed(court: Court, harm: FoldedHarm, text: LabelledText) -> Observed:
    findings = court.examine(spoken(text.text, text.role)).findings
    breached = [one for one in findings if one.breaches and one.source.principle.mode is Mode.ENFORCE]
    probability = max(harm.scores(Spoken.of([(text.role, text.text)]))[0].values(), default=0.0)
    return Observed(frozenset(one.source.principle.id for one in breached), probability)


def _harm_principles(constitution: Constitution) -> frozenset[str]:
    """Return the principles that stand for harm: not for data of persons, secrets or languages."""
    spared = ("privacy-", "secrets", "key-material", "language")
    return frozenset(one.id for one in constitution.principles if not one.id.startswith(spared))


def _accepted(pairs: list[tuple[LabelledText, Observed]]) -> float | None:
    """Return the share of plain instructions and answers in which nothing was found."""
    neutral = [seen for text, seen in pairs if text.source in {"self_instruct", "self_instruct_responses"}]
    return sum(not seen.breaches for seen in neutral) / len(neutral) if neutral else None


def _table(measured: Measurement) -> dict[str, Any]:
    return {
        "principles": [{"principle": name, **rates.row()} for name, rates in measured.principles.items()],
        "harm": [{"source": name, **rates.row()} for name, rates in measured.harm.items()],
    }


def _shown(row: dict[str, Any]) -> dict[str, object]:
    return {name: f"{value:.3f}" if isinstance(value, float) else value for name, value in row.items()}
