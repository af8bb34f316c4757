"""The training consumer on a real broker, with processes that only note that they were started."""

import asyncio
import sys
from collections import defaultdict
from pathlib import Path
from uuid import uuid4

from aiokafka import AIOKafkaProducer

from ctrainer.agents.events import event_record, read_event
from ctrainer.agents.records import Record
from ctrainer.schemas.topics import TRAINING_ASSIGNMENTS, TRAINING_PROGRESS
from ctrainer.schemas.training import (
    WAITING_FOR_MEMORY,
    OptimizerSettings,
    SessionAdvanced,
    SessionState,
    TrainingAssignment,
)
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.streams.location import Location
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.training_consumer import TrainingConsumer
from ctrainer.trainer.admission import Room
from tests.assigned import CONSTITUTION, assignment, request
from tests.fixed_memory import FixedMemory
from tests.waiting import eventually

GIB = 1024**3
_NOTE = """
import json, pathlib, sys
assignment = json.loads(sys.stdin.readline())
pathlib.Path(sys.argv[1], assignment["session_id"]).touch()
sys.stdin.read()
"""


def session(*, max_tokens: int = 128) -> TrainingAssignment:
    asked = request(optimizer=OptimizerSettings(max_tokens=max_tokens))
    return assignment(str(uuid4()), request=asked, scope=f"acme/{uuid4()}")


async def assign(bootstrap_servers: str, *assignments: TrainingAssignment) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        for one in assignments:
            cause = Record(topic="tests", partition=0, offset=0, timestamp=0, key=None, value=None)
            output = event_record(
                topic=TRAINING_ASSIGNMENTS, key=one.session_id, data=one, cause=cause, constitution=CONSTITUTION
            )
            await producer.send_and_wait(output.topic, key=output.key, value=output.value, headers=list(output.headers))


async def progress(bootstrap_servers: str) -> dict[str, list[SessionAdvanced]]:
    said = defaultdict[str, list[SessionAdvanced]](list)
    async for record in TopicReader(bootstrap_servers=bootstrap_servers).read_topic(TRAINING_PROGRESS):
        advanced = read_event(record.value or b"", SessionAdvanced)
        said[advanced.session_id].append(advanced)
    return said


async def heard_of(bootstrap_servers: str, *sessions: TrainingAssignment) -> dict[str, list[SessionAdvanced]]:
    names = {session.session_id for session in sessions}
    async with asyncio.timeout(60):
        while True:
            said = await progress(bootstrap_servers)
            if said.keys() >= names:
                return said
            await asyncio.sleep(0.2)


async def test_sessions_start_when_there_is_room_and_say_what_keeps_them(
    own_broker: KafkaBroker, tmp_path: Path
) -> None:
    servers = str(own_broker.bootstrap_servers)
    await TopicAdministration(bootstrap_servers=servers, partitions=1, replication_factor=1).apply()
    oldest, second, huge = session(), session(), session(max_tokens=8_192)
    await assign(servers, oldest, second, huge)
    device = FixedMemory(Room(total=4 * GIB, free=4 * GIB))
    trainer = TrainingConsumer(
        Settings(cache_folder=tmp_path, state_folder=tmp_path),
        Location(bootstrap_servers=servers, redis_url=None),
        parallel_sessions=3,
        program=(sys.executable, "-c", _NOTE, str(tmp_path)),
        device=device,
    )
    async with trainer:
        await eventually((tmp_path / oldest.session_id).exists)
        said = await heard_of(servers, second, huge)
        assert [(word.state, word.reason) for word in said[huge.session_id]] == [(SessionState.FAILED, "does-not-fit")]
        assert "max_tokens of at most" in str(said[huge.session_id][0].message)
        assert not (tmp_path / second.session_id).exists()
        device.now = Room(total=8 * GIB, free=8 * GIB)
        await eventually((tmp_path / second.session_id).exists)
    waited = [(word.state, word.reason) for word in (await progress(servers))[second.session_id]]
    assert waited == [(SessionState.ASSIGNED, WAITING_FOR_MEMORY)]
    assert oldest.session_id not in said
