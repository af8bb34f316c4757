import secrets
from random import Random

import pytest

from tests.faults.schedule import Schedule, draw_faults
from tests.faults.stream import Stream


@pytest.mark.parametrize(
    "faults", [pytest.param(40, marks=pytest.mark.timeout(600)), pytest.param(300, marks=pytest.mark.chaos)]
)
async def test_random_faults_over_two_workers_neither_lose_nor_repeat_nor_reorder(stream: Stream, faults: int) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    schedule = Schedule(stream, draw_faults(Random(seed), faults))
    await schedule.run()
    assert len(schedule.done) == faults
    await stream.verify()
