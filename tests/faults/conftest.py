from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import MakeTopics
from tests.faults.stream import Stream


@pytest.fixture
async def stream(bootstrap_servers: str, make_topics: MakeTopics, tmp_path: Path) -> AsyncIterator[Stream]:
    source, target = await make_topics("faults-in", "faults-out")
    log = tmp_path / "workers.log"
    async with Stream(bootstrap_servers=bootstrap_servers, source=source, target=target, log=log) as stream:
        yield stream
