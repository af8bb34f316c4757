"""A worker with one role in a process of its own, for what is measured from outside of it."""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ctrainer.streams.child_process import ChildProcess
from ctrainer.streams.embedded.ports import free_port
from ctrainer.streams.readiness_probe import wait_until_ready
from ctrainer.streams.roles import Role
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_administration import TopicAdministration


@asynccontextmanager
async def one_worker(servers: str, role: Role) -> AsyncIterator[Settings]:
    """Make the topics, start a worker that is ready, and give the settings it runs by."""
    await TopicAdministration(bootstrap_servers=servers, partitions=4, replication_factor=1).apply()
    with TemporaryDirectory() as folder:
        settings = Settings.read().model_copy(
            update={
                "kafka_bootstrap_servers": servers,
                "state_folder": Path(folder),
                "web_port": free_port(),
                "application": f"{role}-{time.time_ns()}",
            }
        )
        worker = ChildProcess(
            name="worker",
            command=[sys.executable, "-m", "ctrainer.streams.cli", "worker", "--roles", role],
            environment=settings.environment(),
            log=Path(folder) / "worker.log",
        )
        async with worker:
            await wait_until_ready(settings.web_host, settings.web_port)
            yield settings
