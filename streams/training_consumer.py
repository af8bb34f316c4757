"""The composition root of `ctrainer trainer`: keeps one supervised process for each session that is its to train."""

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from mode import Service

from ctrainer.agents.records import Record
from ctrainer.agents.sessions import Sessions
from ctrainer.schemas.topics import TRAINING_ASSIGNMENTS, TRAINING_PROGRESS
from ctrainer.schemas.training import WAITING_FOR_MEMORY, SessionAdvanced, SessionState, TrainingAssignment
from ctrainer.streams.active_constitution import reference_in_force
from ctrainer.streams.device_memory import DeviceMemory, SystemMemory
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import Location, locate
from ctrainer.streams.logs import configure_logs
from ctrainer.streams.partitioning import partition_for
from ctrainer.streams.rank_group import Gathering
from ctrainer.streams.session_channel import SessionChannel
from ctrainer.streams.session_cleanup import clean
from ctrainer.streams.session_memory import SessionMemory
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_follower import TopicFollower
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.training_plan import MOST_CRASHES, Attempts, next_in_line, next_moves
from ctrainer.trainer.abandoned import Retention
from ctrainer.trainer.admission import Memory

GROUP = "trainer"
_TICK_SECONDS = 0.5
_STOP_SECONDS = 120.0
_SESSION = (sys.executable, "-m", "ctrainer.streams.training_session")
_LOG = logging.getLogger(__name__)


def run_trainer(settings: Settings, *, parallel_sessions: int, gathering: Gathering) -> None:
    """Run a trainer in this process until SIGTERM; sessions checkpoint and go on elsewhere or later."""
    configure_logs()
    program = _SESSION if gathering == Gathering(ranks=1) else gathering.program()
    asyncio.run(serve(settings, parallel_sessions=parallel_sessions, program=program, ranks=gathering.ranks))


async def serve(
    settings: Settings,
    *,
    parallel_sessions: int,
    program: Sequence[str] = _SESSION,
    most_crashes: int = MOST_CRASHES,
    ranks: int = 1,
) -> None:
    """Run a trainer until this process is asked to end.

    `program` is the command line of a session's process, `ranks` how many processes it makes of it on this machine,
    `most_crashes` how often one may crash at one step.
    """
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    async with TrainingConsumer(
        settings,
        locate(settings),
        parallel_sessions=parallel_sessions,
        program=program,
        most_crashes=most_crashes,
        ranks=ranks,
    ):
        _LOG.info("trainer is up")
        await asked.wait()


@dataclass(slots=True, eq=False)
class SessionChild:
    """The process of one session, and the newest word of the session before it began."""

    assignment: TrainingAssignment
    process: asyncio.subprocess.Process
    before: SessionAdvanced | None = None
    stopping: bool = False

    def is_young(self, newest: SessionAdvanced | None) -> bool:
        """Return whether it may not have taken all the memory it needs yet: it has told of no block of steps."""
        return newest is self.before or newest is None or newest.state is not SessionState.TRAINING

    async def stop(self) -> None:
        """Let it checkpoint and end; end it hard if it takes too long."""
        self.stopping = True
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@dataclass(slots=True)
class Picture:
    """What the trainer knows of all sessions."""

    sessions: Sessions = field(default_factory=Sessions)

    def apply(self, record: Record) -> None:
        """Take in one record of the session topics."""
        self.sessions = self.sessions.after(record)


class TrainingConsumer(Service):
    """A member of the group of trainers: the partitions of `training.assignments` say whose session is whose."""

    def __init__(
        self,
        settings: Settings,
        location: Location,
        *,
        parallel_sessions: int,
        program: Sequence[str] = _SESSION,
        most_crashes: int = MOST_CRASHES,
        ranks: int = 1,
        device: DeviceMemory | None = None,
    ) -> None:
        super().__init__()
        self._memory = SessionMemory(device=device or SystemMemory(), ranks=ranks)
        self._program = program
        self._settings = settings
        self._location = location
        self._parallel_sessions = parallel_sessions
        self._security = client_security(settings)
        self._topics = TopicReader(bootstrap_servers=location.bootstrap_servers, security=self._security)
        self._picture = Picture()
        self._owned: frozenset[int] = frozenset()
        self._partitions = 1
        self._processes: dict[str, SessionChild] = {}
        self._attempts = Attempts(most=most_crashes)
        self._follower = TopicFollower(
            bootstrap_servers=location.bootstrap_servers,
            security=self._security,
            topics=[TRAINING_ASSIGNMENTS, TRAINING_PROGRESS],
            apply=self._picture.apply,
        )
        self.add_dependency(self._follower)

    @Service.task
    async def _membership(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._location.bootstrap_servers,
            group_id=self._settings.group(GROUP),
            enable_auto_commit=False,
            auto_offset_reset="latest",
            session_timeout_ms=self._settings.session_timeout_ms,
            heartbeat_interval_ms=max(300, self._settings.session_timeout_ms // 5),
            **self._security,
        )
        await consumer.start()
        try:
            consumer.subscribe([TRAINING_ASSIGNMENTS], listener=_Ownership(self))
            await self._follower.caught_up.wait()
            await self._clean_up()
            while not self.should_stop:
                # What is fetched is only a sign of life towards the group; the follower reads the topic.
                await consumer.getmany(timeout_ms=int(_TICK_SECONDS * 1_000))
                self._partitions = len(consumer.partitions_for_topic(TRAINING_ASSIGNMENTS) or {0})
                await self._reconcile()
        finally:
            await self._stop_all()
            await consumer.stop()

    async def _clean_up(self) -> None:
        """Remove what ended and forgotten sessions left on this machine."""
        removed = await asyncio.to_thread(clean, self._settings, self._picture.sessions, Retention())
        if removed:
            _LOG.info("removed what %d ended or forgotten sessions left", len(removed))

    async def own(self, partitions: frozenset[int]) -> None:
        """Own other partitions than before; sessions of lost ones checkpoint and end first."""
        self._owned = partitions
        lost = [name for name in self._processes if not self._is_ours(name)]
        await asyncio.gather(*(child.stop() for name in lost if (child := self._processes.get(name))))
        for name in lost:
            self._processes.pop(name, None)

    async def _reconcile(self) -> None:
        """Bring running processes and desired sessions together."""
        await self._bury()
        ours = {name: session for name, session in self._picture.sessions.by_id.items() if self._is_ours(name)}
        running, places = frozenset(self._processes), self._parallel_sessions
        memory = await self._look(next_in_line(ours, running=running, places=places))
        moves = next_moves(ours, running=running, places=places, memory=memory)
        for name in moves.stop:
            if child := self._processes.pop(name, None):
                await child.stop()
        for assignment in moves.pause:
            await self._say(assignment, SessionState.PAUSED, "paused", "a command asked for it")
        for assignment in moves.cancel:
            await self._say(assignment, SessionState.CANCELLED, "cancelled", "a command asked for it")
        for assignment in moves.never:
            await self._say(assignment, SessionState.FAILED, "does-not-fit", self._memory.misfit(assignment, memory))
        for assignment in moves.wait:
            message = self._memory.wait(assignment, memory)
            await self._say(assignment, SessionState.ASSIGNED, WAITING_FOR_MEMORY, message)
        for assignment in moves.start:
            await self._start_or_give_up(assignment)

    async def _look(self, next_ones: Sequence[str]) -> Memory:
        """Return what is known of memory while sessions are next in line. To ask a GPU takes seconds."""
        if not next_ones:
            return Memory()
        sessions = self._picture.sessions.by_id
        waiting = [assignment for name in next_ones if (assignment := sessions[name].assignment)]
        running = [child.assignment for child in self._processes.values()]
        young = frozenset(name for name, child in self._processes.items() if child.is_young(self._newest(name)))
        return await asyncio.to_thread(self._memory.look, waiting, running, young)

    async def _bury(self) -> None:
        """Forget the processes that have ended; one that crashed counts as an attempt."""
        for name, child in list(self._processes.items()):
            if child.process.returncode is not None:
                _LOG.info("session %s: its process ended with status %d", name, child.process.returncode)
                self._attempts.ended(name, child.process.returncode)
                self._processes.pop(name, None)

    async def _start_or_give_up(self, assignment: TrainingAssignment) -> None:
        name = assignment.session_id
        if self._attempts.exhausted(name, self._step_of(name)):
            message = f"its process crashed {self._attempts.most} times at one step; see the trainer's log"
            await self._say(assignment, SessionState.FAILED, "crashed", message)
        elif self._attempts.may_start(name, asyncio.get_running_loop().time()):
            before = self._newest(name)
            self._processes[name] = SessionChild(assignment, await self._spawn(assignment), before)

    async def _spawn(self, assignment: TrainingAssignment) -> asyncio.subprocess.Process:
        _LOG.info("session %s: starting its process", assignment.session_id)
        process = await asyncio.create_subprocess_exec(
            *self._program,
            env=self._child_environment(),
            stdin=asyncio.subprocess.PIPE,
        )
        if process.stdin is not None:
            process.stdin.write(assignment.to_json() + b"\n")
            await process.stdin.drain()
        return process

    def _child_environment(self) -> Mapping[str, str]:
        located = {
            "kafka_bootstrap_servers": self._location.bootstrap_servers,
            "redis_url": self._location.redis_url,
        }
        # Threads of the numeric library that wait by spinning would starve everything else on a small machine.
        return self._settings.model_copy(update=located).environment() | {"OMP_WAIT_POLICY": "PASSIVE"}

    async def _say(self, assignment: TrainingAssignment, state: SessionState, reason: str, message: str) -> None:
        """Say that a session ends, rests or waits, after fencing whatever of it may still live."""
        reference = await reference_in_force(self._settings, self._topics)
        channel = await SessionChannel.open(self._settings, self._location, assignment, reference)
        _LOG.warning("session %s: %s: %s", assignment.session_id, state, message)
        try:
            await channel.advanced(state, self._step_of(assignment.session_id), reason=reason, message=message)
        finally:
            await channel.close()
        await self._heard(assignment.session_id, state, reason)

    async def _heard(self, session_id: str, state: SessionState, reason: str) -> None:
        """Wait until the picture holds what was said, so that it is not said twice."""
        while not self.should_stop:
            session = self._picture.sessions.by_id[session_id]
            newest = session.newest
            if session.is_final or (newest and (newest.state, newest.reason) == (state, reason)):
                return
            await self.sleep(_TICK_SECONDS / 10)

    async def _stop_all(self) -> None:
        await asyncio.gather(*(child.stop() for child in self._processes.values()))

    def _newest(self, session_id: str) -> SessionAdvanced | None:
        session = self._picture.sessions.by_id.get(session_id)
        return session.newest if session else None

    def _step_of(self, session_id: str) -> int:
        newest = self._newest(session_id)
        return newest.step if newest else 0

    def _is_ours(self, session_id: str) -> bool:
        return partition_for(session_id.encode(), self._partitions, 0) in self._owned


class _Ownership(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    """Passes the group's decisions on."""

    def __init__(self, trainer: TrainingConsumer) -> None:
        self._trainer = trainer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Sessions go on until it is known that they are another trainer's: that one fences them anyway."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._trainer.own(frozenset(place.partition for place in assigned))
