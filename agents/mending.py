"""Which answers of a sample can be mended by rewriting them, and what is the sample with other words in them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from ctrainer.agents.compliance.conversation import Turn
from ctrainer.agents.compliance.detectors.findings import Found
from ctrainer.agents.compliance.judgement import Examination
from ctrainer.agents.compliance.segments import CONTENT
from ctrainer.agents.compliance.shape import ShapedSample
from ctrainer.schemas.compliance import Severity
from ctrainer.schemas.constitution import Action, Mode
from ctrainer.trainer.excision import Place
from ctrainer.trainer.revision import Passage, Prompts

_MILD = frozenset({Severity.LOW, Severity.MEDIUM})


class Mendable(NamedTuple):
    """An answer to rewrite: the index of its message, and what is wrong with it."""

    turn: int
    passage: Passage


def mendable(examination: Examination) -> list[Mendable] | None:
    """Return the answers that breach principles which ask for revision; None where rewriting answers cannot mend all.

    What users, systems and tools said, and the arguments of a tool call, are facts that happened: nobody rewrites them.
    """
    messages = examination.sample.messages
    by_turn: defaultdict[int, list[Found]] = defaultdict(list)
    for found in (one for one in examination.findings if one.asks_for(Action.REVISE)):
        if messages[found.message_index]["role"] != "assistant" or found.field != CONTENT:
            return None
        by_turn[found.message_index].append(found)
    return [
        Mendable(turn, passage(_question(messages, turn), messages[turn]["content"], found))
        for turn, found in sorted(by_turn.items())
    ] or None


def stays_a_breach(found: Found) -> bool:
    """Return whether a finding breaches an enforced principle, and redaction does not remove it."""
    principle = found.source.principle
    return found.breaches and principle.mode is Mode.ENFORCE and principle.action is not Action.REDACT


def reworded(sample: ShapedSample, texts: Mapping[int, str]) -> ShapedSample:
    """Return a sample with other content in some turns; everything else is as it was, tool calls included."""
    messages = [
        Turn(
            role=turn["role"],
            content=texts.get(index, turn["content"]),
            tool_calls=turn["tool_calls"],
            tool_call_id=turn["tool_call_id"],
            name=turn["name"],
        )
        for index, turn in enumerate(sample.messages)
    ]
    return replace(sample, messages=messages)


def passage(question: str, answer: str, found: Sequence[Found]) -> Passage:
    """Return an answer with what it breaches. Where one breach is of the whole answer, no place can be left out."""
    principles = {one.source.principle.id: one.source.principle for one in found}
    places = tuple(Place(one.start, one.end) for one in found)
    return Passage(
        question=question,
        answer=answer,
        prompts=tuple(Prompts(one.critique, one.revision) for _, one in sorted(principles.items())),
        places=() if any(_is_of_all(one, answer) for one in found) else places,
    )


def _is_of_all(found: Found, answer: str) -> bool:
    """Return whether a breach is of the whole answer: it covers it, or it is grave.

    Without the sentence that shows grave harm the rest may be as harmful, and shows it less.
    """
    return (found.start == 0 and found.end >= len(answer)) or found.source.principle.severity not in _MILD


def _question(messages: Sequence[Turn], turn: int) -> str:
    return next((said["content"] for said in reversed(messages[:turn]) if said["role"] == "user"), "")
