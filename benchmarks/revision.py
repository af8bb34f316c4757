"""Critique and revision of real answers: how many are mended, how many would have been damaged, and how many stay.

`python -m benchmarks.revision --data DIR [--minutes 20] [--pairs 200] [--model NAME] [--show]`

Reads `dev.jsonl` of the harmless-base pairs of Anthropic's hh-rlhf from DIR. The input is the last rejected answer of a
pair, where the packaged constitution finds a breach in it that redaction does not remove; every principle is asked to
revise here, those that reject in service included. Pairs are taken in the order of the file until time is up.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from ctrainer.agents.compliance.conversation import StrictRole
from ctrainer.agents.compliance.detectors.findings import Found
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.mending import passage, stays_a_breach
from ctrainer.agents.trial import spoken
from ctrainer.streams.settings import Settings
from ctrainer.trainer.answers import distinct_share, is_refusal
from ctrainer.trainer.generation import generation_type
from ctrainer.trainer.models import DEFAULT_MODEL, LanguageModel, load_model
from ctrainer.trainer.revision import MOST_CHARACTERS, Draft, Outcome, Passage, Rewriting, revise
from ctrainer.trainer.rewriting import rewrite
from ctrainer.trainer.similarity import WordEmbeddings

_TOGETHER = 8


@dataclass(slots=True)
class LocalReviser:
    """The model in this process."""

    language_model: LanguageModel
    embeddings: WordEmbeddings
    name: str
    texts: int = 0

    async def rewrite(self, drafts: Sequence[Draft]) -> list[Rewriting]:
        """Rewrite; nothing else runs in this process."""
        self.texts += len(drafts)
        return rewrite(self.language_model, drafts)

    async def similarities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Compare."""
        return [self.embeddings.similarity(first, second) for first, second in pairs]


def breaching_answers(folder: Path, court: Court) -> Iterator[Passage]:
    """Yield what is to be revised, in the order of the file."""
    with (folder / "dev.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            *before, answer = json.loads(line)["rejected"].split("\n\nAssistant:")
            question = before[-1].rsplit("\n\nHuman:", 1)[-1].strip()
            found = breaches(court, answer.strip(), "assistant")
            if found and len(answer.strip()) <= MOST_CHARACTERS:
                yield passage(question, answer.strip(), found)


def breaches(court: Court, text: str, *roles: StrictRole) -> list[Found]:
    """Return what a text breaches that somebody in one of the roles says."""
    examined = court.examine_all([spoken(text, role) for role in roles])
    return [found for one in examined for found in one.findings if stays_a_breach(found)]


async def measure(passages: Sequence[Passage], court: Court, reviser: LocalReviser, minutes: float) -> list[Outcome]:
    """Return the outcomes of as many passages as fit into the time."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + 60 * minutes
    while len(outcomes) < len(passages) and time.monotonic() < end:
        part = passages[len(outcomes) : len(outcomes) + _TOGETHER]

        async def is_clean(texts: Sequence[tuple[int, str]]) -> list[bool]:
            return [not breaches(court, text, "assistant", "user") for _, text in texts]

        outcomes += await revise(part, reviser=reviser, is_clean=is_clean)
        print(f"{len(outcomes)} pairs, {sum(one.revised is not None for one in outcomes)} revised", flush=True)
    return outcomes


def summary(passages: Sequence[Passage], outcomes: Sequence[Outcome], reviser: LocalReviser) -> dict[str, Any]:
    """Return the table."""
    done = list(zip(passages, outcomes, strict=False))
    revised = [(one.answer, outcome.revised) for one, outcome in done if outcome.revised is not None]
    last = [(one.answer, outcome.attempts[-1].text) for one, outcome in done if outcome.attempts]
    drafts = [attempt for _, outcome in done for attempt in outcome.attempts if attempt.by_model]
    return {
        "model": reviser.name,
        "pairs": len(done),
        "rounds": fmean(outcome.rounds for _, outcome in done),
        "fixed": len(revised) / len(done),
        "fixed_without_model": sum(not o.by_model for _, o in done if o.revised is not None) / len(done),
        "to_a_person": 1 - len(revised) / len(done),
        "damage_kept_out": sum(any(a.damages for a in outcome.attempts) for _, outcome in done) / len(done),
        "faults_at_the_end": dict(Counter(fault.value for _, outcome in done for fault in outcome.faults)),
        "drafts": len(drafts),
        "refusals": {
            "originals": fmean(is_refusal(before) for before, _ in last),
            "drafts": fmean(is_refusal(draft.text) for draft in drafts) if drafts else None,
        },
        "distinct_2": {
            "originals": distinct_share([before for before, _ in last], 2),
            "last_attempts": distinct_share([after for _, after in last], 2),
        },
    }


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    torch.set_num_threads(1)
    court = Court(default_constitution())
    language_model = load_model(arguments.model, cache_folder=Settings.read().cache_folder)
    language_model.model.to(dtype=generation_type(torch.device("cpu")))
    reviser = LocalReviser(language_model, WordEmbeddings.packaged(), arguments.model)
    passages = list(breaching_answers(arguments.data, court))[: arguments.pairs]
    started, used = time.monotonic(), time.process_time()
    outcomes = asyncio.run(measure(passages, court, reviser, arguments.minutes))
    if arguments.show:
        for one, outcome in zip(passages, outcomes, strict=False):
            print(json.dumps({"answer": one.answer, "attempts": outcome.attempts}))
    seconds = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - used}
    print(json.dumps({**summary(passages, outcomes, reviser), **seconds}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with dev.jsonl")
    parser.add_argument("--pairs", type=int, default=200, help="most pairs")
    parser.add_argument("--minutes", type=float, default=20.0, help="no new pairs after so many minutes")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the model that rewrites")
    parser.add_argument("--show", action="store_true", help="print answers and attempts, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
