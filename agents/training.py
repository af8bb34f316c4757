"""The training desk: turns a valid request into an assignment, and any other into a refusal that says what would do.

`training.requests` has one partition, so there is one owner and the cap on active sessions is exact. The desk keeps
nothing: what is assigned and how it went is read from the topics for each command.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from ctrainer.agents.commands import Command, CommandDesk, Refusal, session_id_of
from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.events import event_record, read_event
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.sessions import Session, Sessions
from ctrainer.agents.world import Topics
from ctrainer.schemas.datasets import DatasetSealed
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.message import Message
from ctrainer.schemas.privacy import Adjacency, Mechanism, NoMechanism, PrivacyMode, PrivacyUnit
from ctrainer.schemas.topics import DATASETS_SEALED, TRAINING_ASSIGNMENTS, TRAINING_PROGRESS
from ctrainer.schemas.training import (
    MAX_ACTIVE_SESSIONS,
    CancelTraining,
    Desired,
    PauseTraining,
    PrivacySettings,
    SessionAdvanced,
    SessionCommand,
    SessionState,
    TrainAdapter,
    TrainingAssignment,
)
from ctrainer.trainer.plan import Fault, NonPrivatePlan, PrivacyPlan

STAGE = "training"


class MakePlan(Protocol):
    """Calibrates a privacy plan; see `ctrainer.trainer.plan.make_plan`."""

    def __call__(
        self,
        *,
        epsilon: float,
        delta: float,
        records: int,
        expected_batch_size: float,
        steps: int,
        clip_norm: float,
        mode: PrivacyMode,
        unit: PrivacyUnit,
        adjacency: Adjacency,
        records_per_user: int,
        whole_users: bool,
    ) -> PrivacyPlan | tuple[Fault, ...]:
        """Return the plan, or every fault of the request."""
        ...


class TrainingDesk:
    """The handler of `training.requests` for commands about sessions; the rest is for other stages."""

    def __init__(
        self,
        *,
        desk: CommandDesk,
        topics: Topics,
        make_plan: MakePlan,
        knows_model: Callable[[str], bool],
        unsafe_allow_seeded_noise: bool = False,
        unsafe_allow_non_private: bool = False,
    ) -> None:
        self._desk = desk
        self._topics = topics
        self._make_plan = make_plan
        self._knows_model = knows_model
        self._unsafe_allow_seeded_noise = unsafe_allow_seeded_noise
        self._unsafe_allow_non_private = unsafe_allow_non_private

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Answer every command; each finds what the ones before it in the batch brought about."""
        outputs: list[OutputRecord] = []
        for record in batch.records:
            outputs.extend(await self._answer(record, outputs))
        return outputs

    async def _answer(self, record: Record, earlier: Sequence[OutputRecord]) -> Sequence[OutputRecord]:
        try:
            command = self._desk.read(record)
        except ContractError as error:
            return [dead_letter(record, stage=STAGE, reason=error.reason, message=str(error))]
        if not isinstance(command, TrainAdapter | SessionCommand):
            return []
        refusal = self._desk.objection(record, command)
        if refusal is not None:
            return [self._desk.refused(record, command, refusal)]
        sessions = await self._sessions(earlier)
        if not isinstance(command, TrainAdapter):
            return self._steer(record, command, sessions)
        return await self._train(record, command, sessions)

    async def _sessions(self, earlier: Sequence[OutputRecord]) -> Sessions:
        sessions = Sessions()
        for topic in (TRAINING_ASSIGNMENTS, TRAINING_PROGRESS):
            async for record in self._topics.read_topic(topic):
                sessions = sessions.after(record)
        for output in earlier:
            sessions = sessions.after(output)
        return sessions

    async def _train(self, record: Record, command: TrainAdapter, sessions: Sessions) -> Sequence[OutputRecord]:
        refusal = self._cannot_start(command, sessions)
        manifest = None if refusal else await self._manifest(command)
        if refusal is None and manifest is None:
            refusal = _unknown_dataset(command)
        plan = None if manifest is None else await self._plan(command, manifest)
        if isinstance(plan, Refusal):
            refusal = plan
        if refusal is not None or not isinstance(plan, PrivacyPlan | NonPrivatePlan):
            return [self._desk.refused(record, command, refusal or _unknown_dataset(command))]
        return self._assigned(record, command, plan)

    def _cannot_start(self, command: TrainAdapter, sessions: Sessions) -> Refusal | None:
        """Return why no session of this command may start now, whatever its dataset and plan."""
        if session_id_of(command) in sessions.by_id:
            message = "this request id has a session already; a new session needs a new request id"
            return Refusal(reason="duplicate-request", message=message, acceptable="a new request id")
        if sessions.places_taken >= MAX_ACTIVE_SESSIONS:
            return _too_many(sessions)
        if not self._knows_model(command.base_model):
            message = f"base model {command.base_model!r} is neither packaged, nor a folder, nor a hub name"
            return Refusal(
                reason="unknown-model", message=message, acceptable="SmolLM2-135M-Instruct, or a model's path"
            )
        return self._not_allowed(command)

    def _not_allowed(self, command: TrainAdapter) -> Refusal | None:
        """Return which opt-in of the request this deployment does not allow, or None."""
        privacy = command.privacy
        if privacy.unsafe_seed is not None and not self._unsafe_allow_seeded_noise:
            message = "unsafe_seed makes the noise predictable, and this deployment does not allow it"
            return Refusal(reason="unsafe-seed", message=message, acceptable="a request without unsafe_seed")
        if privacy.unsafe_non_private and not self._unsafe_allow_non_private:
            message = "unsafe_non_private trains without any privacy, and this deployment does not allow it"
            return Refusal(
                reason="unsafe-non-private", message=message, acceptable="a request without unsafe_non_private"
            )
        return None

    async def _manifest(self, command: TrainAdapter) -> DatasetSealed | None:
        wanted = None
        async for record in self._topics.read_topic(DATASETS_SEALED):
            if record.value is None:
                continue
            manifest = read_event(record.value, DatasetSealed)
            if (manifest.tenant, manifest.dataset_id) == (command.tenant, command.dataset_id):
                wanted = manifest
        return wanted

    async def _plan(self, command: TrainAdapter, manifest: DatasetSealed) -> PrivacyPlan | NonPrivatePlan | Refusal:
        privacy, optimizer = command.privacy, command.optimizer
        refusal = users_not_hidden(privacy, manifest)
        if refusal is not None:
            return refusal
        drawn = manifest.counts.users if privacy.whole_users else manifest.counts.train
        if privacy.unsafe_non_private:
            return _non_private_plan(command, drawn)
        # Calibration takes seconds: never on the event loop.
        plan = await asyncio.to_thread(
            self._make_plan,
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            records=drawn,
            expected_batch_size=optimizer.expected_batch_size,
            steps=optimizer.steps,
            clip_norm=privacy.clip_norm,
            mode=privacy.mode,
            unit=privacy.unit,
            adjacency=privacy.adjacency,
            records_per_user=records_per_user(privacy, manifest),
            whole_users=privacy.whole_users,
        )
        if isinstance(plan, PrivacyPlan):
            return plan
        return Refusal(
            reason=plan[0].reason,
            message="; ".join(fault.message for fault in plan),
            acceptable="; ".join(fault.acceptable for fault in plan),
        )

    def _assigned(
        self, record: Record, command: TrainAdapter, plan: PrivacyPlan | NonPrivatePlan
    ) -> Sequence[OutputRecord]:
        assignment = TrainingAssignment(
            session_id=str(session_id_of(command)),
            tenant=command.tenant,
            desired=Desired.TRAINED,
            request=command,
            scope=f"{command.tenant}/{command.privacy.population}",
            mechanism=_mechanism(command, plan),
            steps=plan.steps,
            epsilon_planned=plan.epsilon_planned if isinstance(plan, PrivacyPlan) else None,
            unsafe_unsigned=self._desk.is_unsigned(record),
        )
        advanced = SessionAdvanced(
            session_id=assignment.session_id,
            tenant=command.tenant,
            state=SessionState.ASSIGNED,
            step=0,
            steps=plan.steps,
        )
        return [
            self._event(TRAINING_ASSIGNMENTS, assignment.session_id, assignment, record),
            self._event(TRAINING_PROGRESS, assignment.session_id, advanced, record),
        ]

    def _steer(self, record: Record, command: SessionCommand, sessions: Sessions) -> Sequence[OutputRecord]:
        """Change what is desired of a session, or refuse to."""
        session = sessions.by_id.get(command.session_id, Session())
        assignment = session.assignment
        if assignment is None or assignment.tenant != command.tenant or session.is_final:
            return [self._desk.refused(record, command, _unknown_session(command, sessions))]
        refusal = _cannot_change(command, session, sessions)
        if refusal is not None:
            return [self._desk.refused(record, command, refusal)]
        changes = {"desired": _desire_of(command), "revision": assignment.revision + 1}
        changed = assignment.model_copy(update=changes)
        return [self._event(TRAINING_ASSIGNMENTS, command.session_id, changed, record)]

    def _event(self, topic: str, key: str, data: Message, cause: Record) -> OutputRecord:
        return event_record(topic=topic, key=key, data=data, cause=cause, constitution=self._desk.in_force())


def users_not_hidden(privacy: PrivacySettings, manifest: DatasetSealed) -> Refusal | None:
    """Return why a dataset cannot hide users as a request asks, or None.

    The cap that a dataset was sealed with is the proof of how many records a user has in it: what it allows counts, and
    not what happens to be there, which is private.
    """
    if privacy.unit is not PrivacyUnit.USER:
        return None
    if manifest.counts.without_user:
        message = f"{manifest.counts.without_user} records of the dataset name no user, and may be anyone's"
        return Refusal(reason="records-without-user", message=message, acceptable="a dataset whose records name users")
    cap, wanted = manifest.rules.max_records_per_user, privacy.records_per_user
    if privacy.whole_users or wanted is None or cap <= wanted:
        return None
    message = f"the dataset was sealed with at most {cap} records of a user, asked for are {wanted}"
    acceptable = f"records_per_user {cap}, or a dataset sealed with max_records_per_user {wanted}"
    return Refusal(reason="user-cap-too-large", message=message, acceptable=acceptable)


def records_per_user(privacy: PrivacySettings, manifest: DatasetSealed) -> int:
    """Return the most records that one user has among what is drawn one by one: what the accounting goes by."""
    if privacy.unit is not PrivacyUnit.USER:
        return privacy.records_per_user or 1
    return 1 if privacy.whole_users else manifest.rules.max_records_per_user


def _non_private_plan(command: TrainAdapter, drawn: int) -> NonPrivatePlan | Refusal:
    batch = command.optimizer.expected_batch_size
    if not 0 < batch <= drawn:
        message = f"expected batch size: got {batch:g}, the dataset has {drawn} records or users to draw from"
        return Refusal(reason="batch-over-dataset", message=message, acceptable=f"a batch size <= {drawn}")
    return NonPrivatePlan(
        sampling_rate=batch / drawn,
        expected_batch_size=batch,
        steps=command.optimizer.steps,
        whole_users=command.privacy.whole_users,
    )


def _mechanism(command: TrainAdapter, plan: PrivacyPlan | NonPrivatePlan) -> Mechanism | NoMechanism:
    if isinstance(plan, PrivacyPlan):
        return plan.mechanism(unsafe_seeded_noise=command.privacy.unsafe_seed is not None)
    return NoMechanism(
        unsafe_non_private=True, sampling_rate=plan.sampling_rate, expected_batch_size=plan.expected_batch_size
    )


def _unknown_dataset(command: Command) -> Refusal:
    message = f"tenant {command.tenant!r} has no sealed dataset of this id"
    return Refusal(
        reason="unknown-dataset", message=message, acceptable="the dataset_id of an event on datasets.sealed"
    )


def _unknown_session(command: SessionCommand, sessions: Sessions) -> Refusal:
    own = [active.session_id for active in sessions.active() if active.tenant == command.tenant]
    return Refusal(
        reason="unknown-session",
        message=f"tenant {command.tenant!r} has no active session {command.session_id!r}",
        acceptable=f"an active session: {', '.join(own) or 'none is active'}",
    )


def _cannot_change(command: SessionCommand, session: Session, sessions: Sessions) -> Refusal | None:
    """Return why an active session of the tenant cannot be paused or resumed; cancelled it can be always."""
    desired = session.assignment.desired if session.assignment else None
    if isinstance(command, CancelTraining):
        return None
    if isinstance(command, PauseTraining):
        message = f"the session is to be {desired}, only one that is to be trained can be paused"
        wrong = Refusal(reason="not-training", message=message, acceptable="a session that is not paused or cancelled")
        return None if desired is Desired.TRAINED else wrong
    if desired is not Desired.PAUSED:
        message = f"the session is to be {desired}, only one that is to be paused can be resumed"
        return Refusal(reason="not-paused", message=message, acceptable="a session that was paused")
    needs_place = not session.takes_place
    return _too_many(sessions) if needs_place and sessions.places_taken >= MAX_ACTIVE_SESSIONS else None


def _desire_of(command: SessionCommand) -> Desired:
    if isinstance(command, CancelTraining):
        return Desired.CANCELLED
    return Desired.PAUSED if isinstance(command, PauseTraining) else Desired.TRAINED


def _too_many(sessions: Sessions) -> Refusal:
    message = f"{sessions.places_taken} sessions are active, at most {MAX_ACTIVE_SESSIONS} may be"
    acceptable = "the same command once a session has ended, was paused or was cancelled"
    return Refusal(reason="too-many-sessions", message=message, acceptable=acceptable)
