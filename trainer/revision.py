"""Critique and revision of answers, at most three rounds; what breaks a bound is never accepted.

After Bai et al. 2022 (Constitutional AI), section 3.1: a model criticises its answer by a principle and then rewrites
it. Here the first revision that passes every check is the last, and one that passes none changes nothing.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from ctrainer.trainer.excision import Place, without_sentences
from ctrainer.trainer.meaning import Bounds, Fault, changed_too_much
from ctrainer.trainer.revision_prompts import KEEP, instructions

MOST_ROUNDS = 3
MOST_CHARACTERS = 2_400
"""A longer answer is a person's work: a small model loses its thread."""


class Prompts(NamedTuple):
    """What a principle asks of a model: to find its breach, and to mend it."""

    critique: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """An answer to mend. `places` are those that breach a principle, none where the answer does as a whole."""

    question: str
    answer: str
    prompts: tuple[Prompts, ...]
    places: tuple[Place, ...] = ()

    @property
    def protected(self) -> str:
        """What of the answer breaches nothing."""
        return without_sentences(self.answer, self.places) if self.places else self.answer


class Draft(NamedTuple):
    """What a model is asked to rewrite: an answer as it stands now, for each principle in turn, and what to heed."""

    question: str
    text: str
    prompts: tuple[Prompts, ...]
    heed: str = ""


class Rewriting(NamedTuple):
    """What a model made of a draft; `is_whole` is false where it did not come to an end."""

    text: str
    is_whole: bool = True


class Reviser(Protocol):
    """A model that rewrites, always in the same way when it is asked the same, and word embeddings."""

    name: str

    async def rewrite(self, drafts: Sequence[Draft]) -> Sequence[Rewriting]:
        """Return a rewriting of each draft, in order.

        Raises:
            ConnectionError: the model cannot be asked now; asking again later may help.
        """
        ...

    async def similarities(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        """Return how alike in meaning each two texts are: 1 for equal ones (`WordEmbeddings`).

        Raises:
            ConnectionError: as above.
        """
        ...


class Attempt(NamedTuple):
    """One round: the text it ended with, what is wrong with that, and whether a model wrote it."""

    text: str
    faults: tuple[Fault, ...]
    by_model: bool

    @property
    def damages(self) -> bool:
        """Whether the violation is gone and something else with it."""
        return bool(self.faults) and Fault.VIOLATION not in self.faults


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a passage, round by round."""

    attempts: tuple[Attempt, ...] = ()

    @property
    def revised(self) -> str | None:
        """The accepted revision, or None."""
        return self.attempts[-1].text if self.attempts and not self.attempts[-1].faults else None

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return len(self.attempts)

    @property
    def by_model(self) -> bool:
        """Whether a model wrote the last attempt."""
        return bool(self.attempts) and self.attempts[-1].by_model

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What was wrong at the end; nothing when a revision was accepted."""
        return self.attempts[-1].faults if self.attempts else (Fault.TOO_LONG,)


Judge: TypeAlias = Callable[[Sequence[tuple[int, str]]], Awaitable[Sequence[bool]]]
"""Says of each text, given with the number of its passage, whether its violation is gone."""


@dataclass(slots=True)
class _Work:
    """A passage on its way through the rounds."""

    number: int
    passage: Passage
    attempts: list[Attempt] = field(default_factory=list)
    asked: set[Draft] = field(default_factory=set)

    def next_draft(self) -> Draft | None:
        """Return what to ask next; None where nothing new can be asked, or nothing more may be."""
        passage = self.passage
        if len(passage.answer) > MOST_CHARACTERS or len(self.attempts) == MOST_ROUNDS:
            return None
        last = self.attempts[-1] if self.attempts else None
        if last is None or not last.by_model:
            draft = Draft(passage.question, passage.answer, passage.prompts)
        elif not last.faults or Fault.REFUSAL in last.faults:
            return None
        elif set(last.faults) == {Fault.VIOLATION}:
            draft = Draft(passage.question, last.text, passage.prompts)
        else:
            # What was damaged cannot be mended by rewriting it again: the original is asked for anew.
            draft = Draft(passage.question, passage.answer, passage.prompts, KEEP)
        if draft in self.asked:
            return None
        self.asked.add(draft)
        return draft


async def revise(
    passages: Sequence[Passage],
    *,
    reviser: Reviser,
    is_clean: Judge,
    bounds: Bounds | None = None,
) -> list[Outcome]:
    """Return what becomes of each passage; they go through the rounds together, so that a model sees them in batches.

    A passage with places begins with leaving out the sentences there, if anything is left.

    Raises:
        ConnectionError: the model cannot be asked now.
    """
    bounds = bounds or Bounds()
    work = [_Work(number, passage) for number, passage in enumerate(passages)]
    cut = [(one, Rewriting(one.passage.protected)) for one in work if one.passage.places and one.passage.protected]
    await _try(cut, reviser, is_clean, bounds, by_model=False)
    for _ in range(MOST_ROUNDS):
        open_work = [one for one in work if not one.attempts or one.attempts[-1].faults]
        drafts = [(one, draft) for one in open_work if (draft := one.next_draft()) is not None]
        if not drafts:
            break
        rewritings = await reviser.rewrite([draft for _, draft in drafts])
        tried = [(one, rewriting) for (one, _), rewriting in zip(drafts, rewritings, strict=True)]
        await _try(tried, reviser, is_clean, bounds, by_model=True)
    return [Outcome(tuple(one.attempts)) for one in work]


async def _try(
    tried: Sequence[tuple[_Work, Rewriting]], reviser: Reviser, is_clean: Judge, bounds: Bounds, *, by_model: bool
) -> None:
    """Note an attempt for each rewriting."""
    if not tried:
        return
    clean = await is_clean([(one.number, rewriting.text) for one, rewriting in tried])
    alike = await reviser.similarities([(one.passage.answer, rewriting.text) for one, rewriting in tried])
    for (one, rewriting), is_gone, similarity in zip(tried, clean, alike, strict=True):
        faults = changed_too_much(
            one.passage.answer,
            rewriting.text,
            protected=one.passage.protected,
            question=one.passage.question,
            instructions=instructions(one.passage.prompts),
            similarity=similarity,
            bounds=bounds,
        )
        also = [Fault.VIOLATION] * (not is_gone) + [Fault.CUT_OFF] * (not rewriting.is_whole)
        one.attempts.append(Attempt(rewriting.text, tuple(sorted({*faults, *also})), by_model))
