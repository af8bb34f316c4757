import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from faust import App

from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.streams.application import create_application
from ctrainer.streams.stage import HandlerFailedError, Stage, WorldFailedError

BATCH = RecordBatch(topic="in", partition=0, epoch=1, records=(Record("in", 0, 0, 1, None, b"v"),))
OUTPUT = OutputRecord("out", None, b"v", 1)


class Panic(BaseException):
    """What native code raises when it breaks: no `Exception`, so that nobody takes it for an ordinary one."""


class Breaking:
    """A handler that raises once."""

    def __init__(self, error: BaseException) -> None:
        self._errors = [error]

    async def __call__(self, _batch: RecordBatch) -> Sequence[OutputRecord]:
        if self._errors:
            raise self._errors.pop()
        return [OUTPUT]


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[App]:
    monkeypatch.chdir(tmp_path)
    app = create_application("test")
    yield app
    await app.stop()


@pytest.mark.parametrize("error", [ValueError(), RecursionError(), Panic()])
async def test_whatever_a_handler_raises_is_answered_and_the_stage_goes_on(app: App, error: BaseException) -> None:
    stage = Stage(app, name="breaking", handler=Breaking(error))
    await app.start()
    async with asyncio.timeout(10):
        with pytest.raises(HandlerFailedError) as failure:
            await stage.decide(BATCH)
        assert failure.value.__cause__ is error
        assert await stage.decide(BATCH) == [OUTPUT]


async def test_a_world_that_cannot_be_reached_is_told_from_a_poison_record(app: App) -> None:
    stage = Stage(app, name="breaking", handler=Breaking(ConnectionResetError()))
    await app.start()
    async with asyncio.timeout(10):
        with pytest.raises(WorldFailedError):
            await stage.decide(BATCH)
        assert await stage.decide(BATCH) == [OUTPUT]


async def test_an_application_writes_nothing_to_its_working_directory(app: App, tmp_path: Path) -> None:
    Stage(app, name="passing", handler=Breaking(ValueError()))
    await app.start()
    assert list(tmp_path.iterdir()) == []


async def test_a_batch_that_nobody_waits_for_any_more_holds_up_no_other(app: App) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow(batch: RecordBatch) -> Sequence[OutputRecord]:
        if batch.epoch == 1:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        return [OUTPUT]

    stage = Stage(app, name="slow", handler=slow)
    await app.start()
    async with asyncio.timeout(10):
        given_up = asyncio.create_task(stage.decide(BATCH))
        await begun.wait()
        given_up.cancel()
        assert await stage.decide(replace(BATCH, epoch=2)) == [OUTPUT]
        assert ended.is_set()
