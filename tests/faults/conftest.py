from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ctrainer.streams.active_constitution import read_constitution
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.streams.settings import Settings
from ctrainer.trainer.tiny_model import save_tiny_model
from tests.conftest import MakeTopics
from tests.faults.fleet import Fleet
from tests.faults.stream import Stream


@pytest.fixture
async def stream(bootstrap_servers: str, make_topics: MakeTopics, tmp_path: Path) -> AsyncIterator[Stream]:
    source, target = await make_topics("faults-in", "faults-out")
    log = tmp_path / "workers.log"
    async with Stream(bootstrap_servers=bootstrap_servers, source=source, target=target, log=log) as stream:
        yield stream


@pytest.fixture
def fleet(own_broker: KafkaBroker, tmp_path: Path) -> Fleet:
    settings = Settings(
        kafka_bootstrap_servers=str(own_broker.bootstrap_servers),
        cache_folder=tmp_path / "cache",
        state_folder=tmp_path / "state",
        session_timeout_ms=2_000,
        unsafe_accept_unsigned=True,
        unsafe_allow_seeded_noise=True,
        web_port=0,
    )
    return Fleet(
        settings=settings,
        folder=tmp_path,
        model=save_tiny_model(tmp_path / "model", seed=1),
        constitution=read_constitution(settings).reference(),
    )
