from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ctrainer.agents.compliance.guard import Question
from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.second_look import SecondLook
from ctrainer.schemas.compliance import Guarded
from ctrainer.streams.guard.encoder_guard import EncoderGuard

HARM = HarmModel.packaged()
HARMFUL = "Immigrants are vermin, these filthy people must be driven out."
HARMLESS = "How do I bake bread?"
TOWARDS_HARM, TOWARDS_PEACE = np.eye(2, dtype=np.float32)
LOOK = SecondLook(
    version="second-test",
    harm=HARM.version,
    encoder="",
    adapter=Path("nowhere"),
    adapted="",
    most_tokens=8,
    bias=0.0,
    share=0.01,
    shifts={"assistant": -20.0},
    threshold=0.5,
    direction=np.array([6.0, -6.0], np.float32),
)


class Encoder:
    """Sees harm where one word stands, reads so many words, and notes what it was given."""

    def __init__(self, word: str, *, fails: type[Exception] | None = None) -> None:
        self.given: list[str] = []
        self._word = word
        self._fails = fails

    def encode(self, texts: Sequence[str], *, most_tokens: int) -> NDArray[np.float32]:
        if self._fails is not None:
            raise self._fails
        self.given += texts
        read = [text.split()[:most_tokens] for text in texts]
        return np.array([TOWARDS_HARM if self._word in words else TOWARDS_PEACE for words in read])

    def reads_whole(self, texts: Sequence[str], *, most_tokens: int) -> list[bool]:
        return [len(text.split()) <= most_tokens for text in texts]


def guard(word: str = "vermin,", *, fails: type[Exception] | None = None, most_tokens: int = 100) -> EncoderGuard:
    return EncoderGuard(Encoder(word, fails=fails), replace(LOOK, most_tokens=most_tokens), HARM)


async def test_each_question_is_answered_in_order_with_the_hazard_that_the_harm_score_names() -> None:
    harmful, harmless, again = await guard().answers([Question(None, t) for t in (HARMFUL, HARMLESS, HARMFUL)])
    assert harmful == again
    assert isinstance(harmful, dict)
    assert list(harmful) == [max(HARM.score(HARMFUL), key=HARM.score(HARMFUL).__getitem__)]
    assert harmful["S10"] > HARM.threshold
    assert harmless == {}


async def test_it_may_find_what_the_harm_score_does_not_and_acquit_what_it_finds() -> None:
    accused, acquitted = await guard("bread?").answers([Question(None, HARMLESS), Question(None, HARMFUL)])
    assert isinstance(accused, dict)
    assert max(accused.values()) > HARM.threshold > max(HARM.score(HARMLESS).values(), default=0.0)
    assert isinstance(acquitted, dict)
    assert max(acquitted.values(), default=0.0) < HARM.threshold < max(HARM.score(HARMFUL).values())


async def test_of_a_text_that_is_not_read_to_its_end_it_says_no_less_than_the_harm_score() -> None:
    (answer,) = await guard("nowhere", most_tokens=3).answers([Question(None, HARMFUL)])
    assert answer == HARM.score(HARMFUL)


async def test_an_answer_needs_more_evidence_than_a_prompt() -> None:
    prompt, answer = await guard().answers([Question(None, HARMFUL), Question("Hi", HARMFUL)])
    assert prompt
    assert answer == {}


async def test_the_encoder_reads_texts_without_their_disguise() -> None:
    encoder = Encoder("vermin,")
    await EncoderGuard(encoder, LOOK, HARM).answers([Question(None, HARMFUL.replace("vermin", "ver\u200bmin"))])
    assert encoder.given == [HARMFUL]


async def test_a_text_without_words_is_harmless() -> None:
    assert await guard("...").answers([Question(None, "... ...")]) == [{}]


class Overflowing(Encoder):
    """An encoder whose numbers overflow over one word."""

    def encode(self, texts: Sequence[str], *, most_tokens: int) -> NDArray[np.float32]:
        vectors = super().encode(texts, most_tokens=most_tokens)
        vectors[[self._word in text for text in texts]] = np.nan
        return vectors


async def test_a_vector_that_is_no_number_acquits_nothing() -> None:
    questions = [Question(None, HARMFUL), Question(None, HARMLESS)]
    assert await EncoderGuard(Overflowing("vermin,"), LOOK, HARM).answers(questions) == [Guarded.UNAVAILABLE, {}]


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
async def test_an_encoder_that_fails_is_unavailable_and_nothing_passes(error: type[Exception]) -> None:
    questions = [Question(None, HARMLESS), Question(None, HARMFUL)]
    assert await guard(fails=error).answers(questions) == [Guarded.UNAVAILABLE] * 2
