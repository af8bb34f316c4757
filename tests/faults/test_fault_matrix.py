import signal

import pytest

from tests.faults.stream import PARTITIONS, Stream

POINTS = ("after-read", "after-decide", "after-produce", "before-commit")
RECORDS = 2_000
PASSAGES = 4


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", ["raise", "SIGKILL", "SIGTERM"])
async def test_fault_of_one_of_two_workers_neither_loses_nor_repeats_nor_reorders(
    stream: Stream, kind: str, point: str
) -> None:
    faulty, _ = await stream.two_workers(f"{kind}:{point}:{PASSAGES}")
    await stream.send(RECORDS, poison_every=401)
    await stream.until(lambda: bool(faulty.faults))
    await stream.until_done()
    assert len(faulty.faults) == 1
    if kind != "raise":
        assert await faulty.ended() == (0 if kind == "SIGTERM" else -signal.Signals[kind])
    await stream.verify()


@pytest.mark.parametrize("point", POINTS)
async def test_worker_that_wakes_after_its_session_ended_publishes_nothing_of_what_it_held(
    stream: Stream, point: str
) -> None:
    faulty, _ = await stream.two_workers(f"SIGSTOP:{point}:{PASSAGES}")
    await stream.send(RECORDS, poison_every=401)
    await stream.until(lambda: bool(faulty.faults))
    await stream.until_done()
    takeovers = faulty.takeovers
    faulty.send(signal.SIGCONT)
    await stream.until(lambda: faulty.takeovers > takeovers)
    assert not faulty.has_ended
    await stream.send(RECORDS // 4)
    await stream.until_done()
    await stream.verify()


async def test_workers_that_join_and_leave_neither_lose_nor_repeat_nor_reorder(stream: Stream) -> None:
    first = await stream.worker()
    await stream.until(lambda: first.takeovers == PARTITIONS)
    await stream.send(RECORDS)
    second = await stream.worker()
    await stream.until(lambda: second.takeovers > 0)
    await stream.send(RECORDS)
    assert await first.stop() == 0
    await stream.send(RECORDS)
    await stream.until_done()
    await stream.verify()
