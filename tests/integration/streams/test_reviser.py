import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from ctrainer.agents.revision import ReviserLostError, ReviserUnavailableError
from ctrainer.streams.reviser import Condition, ProcessReviser
from ctrainer.streams.settings import Settings
from ctrainer.trainer.revision import Draft, Prompts, Reviser, Rewriting
from ctrainer.trainer.tiny_model import save_tiny_model
from tests.unit.trainer.scripted_reviser import Scripted

DRAFT = Draft("Where is it?", "You fool.", (Prompts("Say whom it insults.", "Make it civil."),))
DYING = "import sys; sys.exit(3)"
READY = "import sys, time\nprint('{\"ready\": true}', flush=True)\nfor line in sys.stdin:\n    "
ECHOING = READY + 'print(\'{"rewritings": [["as you like", true]]}\', flush=True)'
NO_REWRITINGS = (
    "[]",
    "null",
    "{}",
    '{"rewritings": null}',
    '{"rewritings": []}',
    '{"rewritings": ["ab"]}',
    '{"rewritings": [[null, true]]}',
    '{"rewritings": [["one", true], ["too many", true]]}',
)
BABBLING = READY + "print('no JSON', flush=True)"
HANGING = READY + "time.sleep(600)"
LOADING = "import time\ntime.sleep(600)"
HALF_A_LINE = READY + "print('{\"rewritings\": [[', end='', flush=True); sys.exit(0)"
ENDLESS_LINE = READY + "while True: print('x' * 1_000_000, end='', flush=True)"


def saying(answer: str) -> str:
    return f"{READY}print({answer!r}, flush=True)"


def process(program: str, *, deadline_seconds: float = 30.0) -> ProcessReviser:
    return ProcessReviser(
        name="child", command=[sys.executable, "-c", program], environment={}, deadline_seconds=deadline_seconds
    )


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model", seed=1)


@pytest.fixture
async def tiny_process(tiny_folder: Path) -> AsyncIterator[ProcessReviser]:
    settings = Settings.read().model_copy(update={"revision_model": str(tiny_folder)})
    command = [sys.executable, "-m", "ctrainer.streams.revision_process"]
    reviser = ProcessReviser(name="tiny", command=command, environment=settings.environment())
    async with reviser:
        yield reviser


async def contract(reviser: Reviser) -> None:
    first = await reviser.rewrite([DRAFT])
    assert len(first) == 1
    assert isinstance(first[0], Rewriting)
    assert await reviser.rewrite([DRAFT]) == first
    assert len(await reviser.rewrite([DRAFT, DRAFT._replace(text="You donkey, you.")])) == 2
    similarities = await reviser.similarities([("You fool.", "You fool."), ("You fool.", "Whisk the eggs.")])
    assert len(similarities) == 2
    assert all(-1.0 <= one <= 1.0 for one in similarities)


async def test_a_scripted_reviser_keeps_the_contract() -> None:
    await contract(Scripted(["one"], ["one"], ["one", "two"]))


async def test_a_model_in_a_process_keeps_the_contract_and_says_the_same_after_it_was_killed(
    tiny_process: ProcessReviser,
) -> None:
    assert (tiny_process.condition, tiny_process.pid) == (Condition.IDLE, None)
    await contract(tiny_process)
    assert await tiny_process.similarities([("You fool.", "You fool.")]) == [pytest.approx(1.0)]
    first, killed = await tiny_process.rewrite([DRAFT]), tiny_process.pid
    assert killed is not None
    asked = asyncio.create_task(tiny_process.rewrite([DRAFT] * 8))
    await asyncio.sleep(0)
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(ReviserLostError):
        await asked
    assert (tiny_process.condition, tiny_process.losses) == (Condition.DOWN, 1)
    assert await tiny_process.rewrite([DRAFT]) == first
    assert tiny_process.pid != killed


async def test_a_process_that_does_not_start_is_left_alone_for_a_while() -> None:
    reviser = process(DYING)
    async with reviser:
        for expected in ("does not start", "trying again later"):
            with pytest.raises(ReviserUnavailableError, match=expected) as raised:
                await reviser.rewrite([DRAFT])
            assert not isinstance(raised.value, ReviserLostError)
        assert reviser.losses == 0


@pytest.mark.parametrize("program", [BABBLING, HANGING, HALF_A_LINE, *map(saying, NO_REWRITINGS)])
async def test_a_process_that_answers_nothing_of_use_is_ended_and_started_again(program: str) -> None:
    reviser = process(program, deadline_seconds=0.5)
    async with reviser:
        with pytest.raises(ReviserLostError):
            await reviser.rewrite([DRAFT])
        assert reviser.pid is None


@pytest.mark.parametrize("told", ["[null]", "[]", '["1.0"]', "[0.5, 0.5]", "[1.5]", "[1e999]", "[-2.0]"])
async def test_a_process_that_cannot_compare_texts_is_lost_over_them(told: str) -> None:
    reviser = process(saying('{"similarities": ' + told + "}"))
    async with reviser:
        with pytest.raises(ReviserLostError):
            await reviser.similarities([("one", "other")])


async def test_an_answer_that_nobody_waited_for_is_never_taken_for_another_ones() -> None:
    reviser = process(HANGING)
    async with reviser:
        asked = asyncio.create_task(reviser.rewrite([DRAFT]))
        while reviser.condition is not Condition.UP and not asked.done():  # noqa: ASYNC110 - another process becomes ready
            await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert reviser.pid is None


async def test_a_line_without_an_end_is_no_answer() -> None:
    reviser = process(ENDLESS_LINE)
    async with reviser:
        with pytest.raises(ReviserLostError):
            await reviser.rewrite([DRAFT])
        assert reviser.pid is None


async def test_a_process_that_nobody_waited_for_is_asked_nothing() -> None:
    """That it is ready would be taken for its first answer, and the sample for one over which it died."""
    reviser = process(LOADING)
    async with reviser:
        asked = asyncio.create_task(reviser.rewrite([DRAFT]))
        while reviser.pid is None and not asked.done():  # noqa: ASYNC110 - another process starts
            await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (reviser.pid, reviser.condition, reviser.losses) == (None, Condition.DOWN, 0)


async def test_questions_of_several_askers_are_answered_one_after_the_other() -> None:
    reviser = process(ECHOING)
    async with reviser:
        answers: Sequence[list[Rewriting]] = await asyncio.gather(*(reviser.rewrite([DRAFT]) for _ in range(5)))
        assert answers == [[Rewriting("as you like", is_whole=True)]] * 5


async def test_the_process_ends_with_its_owner() -> None:
    reviser = process(ECHOING)
    async with reviser:
        await reviser.rewrite([DRAFT])
        pid = reviser.pid
    assert not Path(f"/proc/{pid}").exists()
