"""A guard model in this process: the second look, by a sentence encoder on the worker's own CPU."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ctrainer.agents.compliance.conversation import StrictRole
from ctrainer.agents.compliance.detectors.normalization import normalized
from ctrainer.agents.compliance.detectors.reading import spelt_out
from ctrainer.agents.compliance.guard import Answer, Question
from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.second_look import SecondLook
from ctrainer.agents.compliance.spoken import Spoken
from ctrainer.schemas.compliance import Guarded


class Encoder(Protocol):
    """Makes vectors of texts."""

    def encode(self, texts: Sequence[str], *, most_tokens: int) -> NDArray[np.float32]:
        """Return a vector of length one for each text."""
        ...

    def reads_whole(self, texts: Sequence[str], *, most_tokens: int) -> Sequence[bool]:
        """Return of each text whether all of it is read."""
        ...


class EncoderGuard:
    """Answers with the probability by the second look, for the hazard that the harm score finds likeliest.

    One thread encodes, beside the event loop. Where it fails (out of memory, say) or gives no numbers, the answer is
    `unavailable`.
    """

    def __init__(self, encoder: Encoder, look: SecondLook, harm: HarmModel) -> None:
        self.version = look.version
        self._encoder = encoder
        self._look = look
        self._harm = harm
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="second-look")

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Return an answer for each question, in order."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._answers, questions)
        except (RuntimeError, MemoryError):
            return [Guarded.UNAVAILABLE] * len(questions)

    def _answers(self, questions: Sequence[Question]) -> list[Answer]:
        spoken = Spoken.of([(_role(question), spelt_out(question.text)) for question in questions])
        texts = [normalized(text)[0] for text in spoken.texts]
        most = self._look.most_tokens
        vectors = self._encoder.encode(texts, most_tokens=most)
        whole = self._encoder.reads_whole(texts, most_tokens=most)
        said = self._look.scores(self._harm, spoken, vectors, whole)
        are_numbers = (bool(np.isfinite(vector).all()) for vector in vectors)
        return [one if is_number else Guarded.UNAVAILABLE for one, is_number in zip(said, are_numbers, strict=True)]


def _role(question: Question) -> StrictRole:
    return "user" if question.prompt is None else "assistant"
