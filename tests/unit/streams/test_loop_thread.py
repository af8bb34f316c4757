import asyncio
from concurrent.futures import CancelledError, Future

import pytest

from ctrainer.streams.loop_thread import LoopThread


async def told(word: str) -> str:
    await asyncio.sleep(0)
    return word


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def test_answers_come_at_once_or_later() -> None:
    with LoopThread() as loop:
        later = loop.begin(told("later"))
        assert loop.run(told("now")) == "now"
        assert later.result(timeout=10) == "later"


def test_who_waits_when_the_loop_ends_is_told_that_there_is_no_answer() -> None:
    with LoopThread() as loop:
        waiting: Future[None] = loop.begin(wait_for_ever())
    with pytest.raises(CancelledError):
        waiting.result(timeout=10)
