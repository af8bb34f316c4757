"""A guard model as one more detector: which turns it is asked about, and what its answers come to.

It only ever adds findings, unless it overrules the harm score: then its verdict on a turn stands in place of the
score's. What it leaves open is never a permission: a sample that it could not be asked about is parked, one that it
answered about without a verdict goes to a person.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple, Protocol, TypeAlias
from uuid import uuid4

from ctrainer.agents.compliance.conversation import Turn
from ctrainer.agents.compliance.detectors.findings import Found, sources_of
from ctrainer.agents.compliance.detectors.names import HARM_SCORE
from ctrainer.agents.compliance.segments import CONTENT
from ctrainer.agents.compliance.spoken import SpokenTurn
from ctrainer.schemas.compliance import Guarded
from ctrainer.schemas.constitution import Constitution, Rule

GUARD_RULE: Final = "guard-model"
"""The rule that findings of a guard model bear."""
PIECE_CHARACTERS: Final = 8_000
OVERLAP_CHARACTERS: Final = 400
"""A longer text is asked about in pieces of this length, each of which begins before the last one ends."""
PROMPT_CHARACTERS: Final = 2_000
"""So much of a prompt, its end, is told with the answer to it."""

AT_ONCE: Final = 1_024
"""So many questions are asked at a time: a batch of tiny turns has hundreds of thousands."""
_GRAVITY = (Guarded.UNAVAILABLE, Guarded.UNCLEAR, Guarded.ASKED)


class Question(NamedTuple):
    """One piece of a turn. `prompt` is what a user said before it; None where the text itself is a prompt."""

    prompt: str | None
    text: str


Answer: TypeAlias = Mapping[str, float] | Guarded
"""The probability by hazard code, empty for a harmless text; or `unclear` or `unavailable`."""


IsAsked: TypeAlias = Callable[[SpokenTurn], bool]
"""Says of a turn whether a guard model is asked about it."""


class GuardModel(Protocol):
    """A model that says whether a turn is harmful. `version` changes whenever it could say something else."""

    @property
    def version(self) -> str:
        """Changes with the model."""
        ...

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Return an answer for each question, in order. Nothing is raised where the model cannot be reached."""
        ...


class Seen(NamedTuple):
    """A sample and what other detectors found in it."""

    messages: Sequence[Turn]
    findings: Sequence[Found]


class Heard(NamedTuple):
    """What was found in a sample, with what a guard model makes of it."""

    findings: Sequence[Found]
    guarded: Guarded


class _Asked(NamedTuple):
    """A turn with the questions about it; none where it is spared."""

    turn: int
    pieces: Sequence[Question]


class Guard:
    """A guard model under one constitution: it speaks for the principles with a harm score, by their hazards.

    `is_asked` says of a turn whether the model is asked about it, `asks` names that choice. Where it `overrules`, the
    harm score's findings in a turn with a verdict on it as a whole are dropped, no others. `said` counts turns by what
    the guard said (`harmful`, `harmless`, `spared`, `unclear`, `unavailable`) and what the harm score says.
    """

    def __init__(
        self,
        model: GuardModel,
        constitution: Constitution,
        *,
        asks: str,
        is_asked: IsAsked,
        overrules: bool = False,
        unsafe_without: bool = False,
        said: Counter[tuple[str, str]] | None = None,
    ) -> None:
        self.version = f"{model.version}/{asks}"
        self.unsafe_without = unsafe_without
        self._model = model
        self._is_asked = is_asked
        self._overrules = overrules
        self._said: Counter[tuple[str, str]] = Counter() if said is None else said
        self._sources = {
            str(source.principle.hazard): source._replace(rule=_guard_rule(source.rule))
            for source in sources_of(constitution)
            if source.rule.detector == HARM_SCORE
        }

    async def hear(self, samples: Sequence[Seen]) -> list[Heard]:
        """Return what is found in each of several samples after the model was asked. Equal questions are asked once."""
        asked: list[list[_Asked]] = []
        for messages, _ in samples:
            asked.append(list(self._questions(messages)))
            await asyncio.sleep(0)
        answers = await self._answers(dict.fromkeys(one for turns in asked for turn in turns for one in turn.pieces))
        heard: list[Heard] = []
        for seen, turns in zip(samples, asked, strict=True):
            heard.append(self._heard(seen, turns, answers))
            await asyncio.sleep(0)
        return heard

    async def _answers(self, distinct: Iterable[Question]) -> dict[Question, Answer]:
        """Return the answer to each question. The event loop gets its turns, also where all is remembered."""
        left, answers = iter(distinct), dict[Question, Answer]()
        while part := list(islice(left, AT_ONCE)):
            answers |= zip(part, await self._model.answers(part), strict=True)
            await asyncio.sleep(0)
        return answers

    async def can_be_asked(self) -> bool:
        """Return whether the model answers now, about a text that it never saw: nothing remembered answers for it."""
        (answer,) = await self._model.answers([Question(None, f"Is anybody there? {uuid4()}")])
        return answer is not Guarded.UNAVAILABLE

    def _questions(self, messages: Sequence[Turn]) -> Iterator[_Asked]:
        """Yield the turns that the model may have something to say of. A system prompt is the operator's own."""
        prompt = ""
        for index, turn in enumerate(messages):
            text = turn["content"]
            if turn["role"] != "system" and text.strip():
                said_before = prompt[-PROMPT_CHARACTERS:] if turn["role"] == "assistant" else None
                is_asked = self._is_asked((turn["role"], text))
                yield _Asked(index, [Question(said_before, piece) for piece in pieces(text)] if is_asked else [])
            if turn["role"] == "user":
                prompt = text

    def _heard(self, seen: Seen, turns: Sequence[_Asked], answers: Mapping[Question, Answer]) -> Heard:
        added: list[Found] = []
        states = set[Guarded]()
        overruled = set[int]()
        scored = {finding.message_index for finding in seen.findings if _is_scored(finding)}
        for index, questions in turns:
            state, hazards = _joined([answers[question] for question in questions])
            states.add(state)
            self._said[_outcome(state, hazards), "harmful" if index in scored else "harmless"] += 1
            added += self._found(hazards, index, len(seen.messages[index]["content"]))
            # A text in pieces was read whole by the harm score alone.
            if self._overrules and state is Guarded.ASKED and len(questions) == 1:
                overruled.add(index)
        kept = [one for one in seen.findings if not (_is_scored(one) and one.message_index in overruled)]
        return Heard([*kept, *added], _gravest(states))

    def _found(self, hazards: Mapping[str, float], index: int, end: int) -> Iterator[Found]:
        for hazard, probability in sorted(hazards.items()):
            source = self._sources.get(hazard)
            # As with the harm score: what does not reach the threshold is no violation.
            if source is not None and probability >= source.principle.threshold:
                yield Found(source, index, CONTENT, 0, end, round(probability, 2))


def pieces(text: str) -> list[str]:
    """Return a text in pieces that a guard model can read.

    >>> [len(piece) for piece in pieces("x" * 16_000)], pieces("short")
    ([8000, 8000, 800], ['short'])
    """
    step = PIECE_CHARACTERS - OVERLAP_CHARACTERS
    return [text[start : start + PIECE_CHARACTERS] for start in range(0, max(1, len(text) - OVERLAP_CHARACTERS), step)]


def _joined(answers: Sequence[Answer]) -> tuple[Guarded, Mapping[str, float]]:
    """Return the gravest state of a turn's pieces, and the highest probability of each hazard."""
    hazards: dict[str, float] = {}
    states = set[Guarded]()
    for answer in answers:
        if isinstance(answer, Guarded):
            states.add(answer)
        else:
            states.add(Guarded.ASKED)
            hazards |= {code: max(share, hazards.get(code, 0.0)) for code, share in answer.items()}
    return _gravest(states), hazards


def _is_scored(finding: Found) -> bool:
    return finding.source.rule.detector == HARM_SCORE


def _gravest(states: set[Guarded]) -> Guarded:
    return next((state for state in _GRAVITY if state in states), Guarded.SPARED)


def _outcome(state: Guarded, hazards: Mapping[str, float]) -> str:
    if state is not Guarded.ASKED:
        return state.value
    return "harmful" if hazards else "harmless"


def _guard_rule(rule: Rule) -> Rule:
    return Rule(id=GUARD_RULE, label=rule.label, detector=GUARD_RULE)
