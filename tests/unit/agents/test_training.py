import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest

from ctrainer.agents.commands import Command, CommandDesk, session_id_of
from ctrainer.agents.events import event_record
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.training import TrainingDesk
from ctrainer.agents.world import Topics
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.datasets import DatasetCounts, DatasetSealed, SelectionRules
from ctrainer.schemas.privacy import Adjacency, Mechanism, NoMechanism, PrivacyMode, PrivacyUnit
from ctrainer.schemas.training import (
    CancelTraining,
    Desired,
    OptimizerSettings,
    PauseTraining,
    PrivacySettings,
    ResumeTraining,
    SealDataset,
    SessionAdvanced,
    SessionState,
    TrainAdapter,
    TrainingAssignment,
)
from ctrainer.trainer.plan import Fault, PrivacyPlan, make_plan

Deliver = Callable[[Sequence[OutputRecord]], list[Record]]
Submit = Callable[[Command], Record]

CONSTITUTION = ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:ab")
MANIFEST = DatasetSealed(
    dataset_id="sha256:d5",
    tenant="acme",
    workloads=("chat",),
    ranges=(),
    accepted_since=None,
    rules=SelectionRules(),
    counts=DatasetCounts(read=400, duplicates=0, over_user_cap=0, train=360, held_out=40, users=120),
    membership_digest="sha256:00",
    constitutions=(CONSTITUTION,),
    sealed_because="count",
)


def quick_plan(
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
    """Plan without calibration, whose first call takes seconds."""
    return PrivacyPlan(
        noise_multiplier=1.0,
        sampling_rate=expected_batch_size / records,
        expected_batch_size=expected_batch_size,
        clip_norm=clip_norm,
        steps=steps,
        delta=delta,
        epsilon_ceiling=epsilon,
        epsilon_planned=epsilon,
        mode=mode,
        unit=unit,
        adjacency=adjacency,
        records_per_user=records_per_user,
        whole_users=whole_users,
    )


def train(number: int = 1, **changes: Any) -> TrainAdapter:
    command = TrainAdapter(
        request_id=UUID(int=number), tenant="acme", dataset_id=MANIFEST.dataset_id, constitution=CONSTITUTION
    )
    return command.model_copy(update=changes)


def cancel(session_id: str, tenant: str = "acme") -> CancelTraining:
    return CancelTraining(request_id=UUID(int=99), tenant=tenant, session_id=session_id, constitution=CONSTITUTION)


def pause(session_id: str, tenant: str = "acme") -> PauseTraining:
    return PauseTraining(request_id=UUID(int=98), tenant=tenant, session_id=session_id, constitution=CONSTITUTION)


def resume(session_id: str, tenant: str = "acme") -> ResumeTraining:
    return ResumeTraining(request_id=UUID(int=97), tenant=tenant, session_id=session_id, constitution=CONSTITUTION)


def advanced(session_id: str, state: SessionState) -> OutputRecord:
    data = SessionAdvanced(session_id=session_id, tenant="acme", state=state, step=1, steps=40)
    cause = Record(f"sessions/{session_id}", 0, 1, 1_700_000_000_000, None, None)
    return event_record(topic="training.progress", key=session_id, data=data, cause=cause, constitution=CONSTITUTION)


def batch(*records: Record) -> RecordBatch:
    return RecordBatch(topic="training.requests", partition=0, epoch=1, records=records)


def data_of(output: OutputRecord) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(output.value or b"")["data"]
    return data


@pytest.fixture
def sealed(deliver: Deliver) -> None:
    cause = Record("training.requests", 0, 0, 1_700_000_000_000, None, None)
    key = f"{MANIFEST.tenant}/{MANIFEST.dataset_id}"
    deliver([event_record(topic="datasets.sealed", key=key, data=MANIFEST, cause=cause, constitution=CONSTITUTION)])


@pytest.fixture
def training(desk: CommandDesk, topics: Topics, sealed: None) -> TrainingDesk:  # noqa: ARG001 - a dataset is there
    return TrainingDesk(desk=desk, topics=topics, make_plan=quick_plan, knows_model=lambda name: name[0] != "?")


async def reason_for(training: TrainingDesk, record: Record) -> str:
    (refused,) = await training(batch(record))
    assert refused.topic == "training.progress"
    assert data_of(refused)["acceptable"]
    return str(data_of(refused)["reason"])


async def test_a_valid_request_becomes_an_assignment_and_the_session_is_announced(
    training: TrainingDesk, submit: Submit
) -> None:
    assignment, announced = await training(batch(submit(train())))
    assert (assignment.topic, announced.topic) == ("training.assignments", "training.progress")
    read = TrainingAssignment.model_validate(data_of(assignment))
    assert (read.desired, read.scope, read.mechanism.sampling_rate) == (Desired.TRAINED, "acme/default", 6 / 360)
    assert not read.unsafe_unsigned
    assert assignment.key == announced.key == read.session_id.encode()
    assert data_of(announced)["state"] == "assigned"


async def test_a_command_handled_again_before_it_was_committed_gives_the_same_bytes(
    training: TrainingDesk, submit: Submit
) -> None:
    record = submit(train())
    assert await training(batch(record)) == await training(batch(record))


async def test_the_same_request_never_gets_a_second_session(
    training: TrainingDesk, submit: Submit, deliver: Deliver
) -> None:
    deliver(await training(batch(submit(train()))))
    assert await reason_for(training, submit(train())) == "duplicate-request"
    first, second = submit(train(2)), submit(train(2))
    outputs = await training(batch(first, second))
    assert [output.topic for output in outputs] == ["training.assignments", "training.progress", "training.progress"]
    assert data_of(outputs[-1])["reason"] == "duplicate-request"


async def test_a_sixth_session_is_refused_and_an_ended_one_frees_its_place(
    training: TrainingDesk, submit: Submit, deliver: Deliver
) -> None:
    five = [submit(train(number)) for number in range(5)]
    deliver(await training(batch(*five)))
    assert await reason_for(training, submit(train(6))) == "too-many-sessions"
    deliver([advanced(str(session_id_of(train(3))), SessionState.TRAINING)])
    assert await reason_for(training, submit(train(7))) == "too-many-sessions"
    deliver([advanced(str(session_id_of(train(3))), SessionState.COMPLETED)])
    assert len(await training(batch(submit(train(8))))) == 2


async def test_a_cancelled_session_frees_its_place_once_the_trainer_has_let_go(
    training: TrainingDesk, submit: Submit, deliver: Deliver
) -> None:
    deliver(await training(batch(*[submit(train(number)) for number in range(5)])))
    session_id = str(session_id_of(train(0)))
    (cancelled,) = deliver(await training(batch(submit(cancel(session_id)))))
    assert (cancelled.topic, cancelled.key) == ("training.assignments", session_id.encode())
    assert json.loads(cancelled.value or b"")["data"]["desired"] == "cancelled"
    assert await reason_for(training, submit(train(6))) == "too-many-sessions"
    deliver([advanced(session_id, SessionState.CANCELLED)])
    assert len(await training(batch(submit(train(6))))) == 2


async def test_a_paused_session_frees_its_place_once_the_trainer_has_let_go_and_takes_one_again_when_it_is_resumed(
    training: TrainingDesk, submit: Submit, deliver: Deliver
) -> None:
    deliver(await training(batch(*[submit(train(number)) for number in range(5)])))
    session_id = str(session_id_of(train(0)))
    (paused,) = deliver(await training(batch(submit(pause(session_id)))))
    assignment = json.loads(paused.value or b"")["data"]
    assert (paused.topic, assignment["desired"], assignment["revision"]) == ("training.assignments", "paused", 1)
    assert await reason_for(training, submit(train(6))) == "too-many-sessions"
    deliver([advanced(session_id, SessionState.PAUSED)])
    deliver(await training(batch(submit(train(6)))))
    assert await reason_for(training, submit(resume(session_id))) == "too-many-sessions"
    deliver([advanced(str(session_id_of(train(1))), SessionState.COMPLETED)])
    (resumed,) = deliver(await training(batch(submit(resume(session_id)))))
    assignment = json.loads(resumed.value or b"")["data"]
    assert (assignment["desired"], assignment["revision"]) == ("trained", 2)
    assert await reason_for(training, submit(train(7))) == "too-many-sessions"


async def test_a_session_that_is_resumed_before_it_was_paused_needs_no_other_place(
    training: TrainingDesk, submit: Submit, deliver: Deliver
) -> None:
    deliver(await training(batch(*[submit(train(number)) for number in range(5)])))
    session_id = str(session_id_of(train(0)))
    deliver(await training(batch(submit(pause(session_id)))))
    (resumed,) = await training(batch(submit(resume(session_id))))
    assert data_of(resumed)["desired"] == "trained"


async def test_only_what_is_to_be_trained_can_be_paused_and_only_what_was_paused_resumed(
    training: TrainingDesk, submit: Submit, deliver: Deliver
) -> None:
    deliver(await training(batch(submit(train()))))
    session_id = str(session_id_of(train()))
    assert await reason_for(training, submit(resume(session_id))) == "not-paused"
    deliver(await training(batch(submit(pause(session_id)))))
    assert await reason_for(training, submit(pause(session_id))) == "not-training"
    for command in (pause(session_id, tenant="umbrella"), resume(session_id, tenant="umbrella")):
        assert await reason_for(training, submit(command)) == "unknown-session"


async def test_a_paused_session_can_be_cancelled(training: TrainingDesk, submit: Submit, deliver: Deliver) -> None:
    deliver(await training(batch(submit(train()))))
    session_id = str(session_id_of(train()))
    deliver(await training(batch(submit(pause(session_id)))))
    deliver([advanced(session_id, SessionState.PAUSED)])
    (cancelled,) = deliver(await training(batch(submit(cancel(session_id)))))
    assert json.loads(cancelled.value or b"")["data"]["desired"] == "cancelled"
    assert await reason_for(training, submit(resume(session_id))) == "not-paused"


async def test_a_deleted_assignment_frees_its_place_and_breaks_nothing(
    training: TrainingDesk, submit: Submit, deliver: Deliver
) -> None:
    deliver(await training(batch(*[submit(train(number)) for number in range(5)])))
    key = str(session_id_of(train(2))).encode()
    deliver([OutputRecord("training.assignments", key, None, 1), OutputRecord("datasets.sealed", b"acme/x", None, 1)])
    assert len(await training(batch(submit(train(6))))) == 2


async def test_a_tenant_can_neither_cancel_nor_see_the_session_of_another(
    training: TrainingDesk, submit: Submit, deliver: Deliver
) -> None:
    deliver(await training(batch(submit(train()))))
    session_id = str(session_id_of(train()))
    (refused,) = await training(batch(submit(cancel(session_id, tenant="umbrella"))))
    assert data_of(refused)["reason"] == "unknown-session"
    assert session_id not in data_of(refused)["acceptable"]


async def test_an_ended_session_cannot_be_cancelled(training: TrainingDesk, submit: Submit, deliver: Deliver) -> None:
    deliver(await training(batch(submit(train()))))
    session_id = str(session_id_of(train()))
    deliver([advanced(session_id, SessionState.COMPLETED)])
    assert await reason_for(training, submit(cancel(session_id))) == "unknown-session"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base_model": "?"}, "unknown-model"),
        ({"dataset_id": "sha256:other"}, "unknown-dataset"),
        ({"tenant": "umbrella"}, "unknown-dataset"),
        ({"privacy": PrivacySettings(unsafe_seed=7)}, "unsafe-seed"),
        ({"privacy": PrivacySettings(unsafe_non_private=True)}, "unsafe-non-private"),
        ({"privacy": PrivacySettings(unit=PrivacyUnit.USER, records_per_user=4)}, "user-cap-too-large"),
        ({"constitution": ConstitutionReference(hash="x", digest="sha256:ab")}, "foreign-constitution-hash"),
        ({"constitution": ConstitutionReference(hash=GOVERNANCE_HASH, digest="x")}, "foreign-constitution-digest"),
        ({"tenant": "initech"}, "foreign-tenant"),
    ],
)
async def test_a_request_that_may_not_start_is_refused_with_what_would_be_accepted(
    training: TrainingDesk, submit: Submit, changes: dict[str, Any], reason: str
) -> None:
    assert await reason_for(training, submit(train(**changes))) == reason


@pytest.mark.parametrize(
    ("privacy", "reason"),
    [
        (PrivacySettings(epsilon=8.1), "epsilon-over-ceiling"),
        (PrivacySettings(delta=1e-4), "delta-over-ceiling"),
        (PrivacySettings(epsilon=1e-6), "epsilon-out-of-reach"),
        (PrivacySettings(records_per_user=2), "unsupported-user-unit"),
        (PrivacySettings(whole_users=True), "unsupported-user-unit"),
        (PrivacySettings(unit=PrivacyUnit.USER, mode=PrivacyMode.SINGLE_PASS), "unsupported-user-unit"),
        (PrivacySettings(adjacency=Adjacency.REPLACE_ONE), "unsupported-adjacency"),
    ],
)
async def test_a_promise_over_the_ceilings_is_refused(
    training: TrainingDesk, submit: Submit, privacy: PrivacySettings, reason: str
) -> None:
    training._make_plan = make_plan
    assert await reason_for(training, submit(train(privacy=privacy))) == reason


async def test_what_is_no_command_is_a_dead_letter_and_the_next_command_is_answered(
    training: TrainingDesk, submit: Submit
) -> None:
    good = submit(train())
    foreign = good._replace(headers=(*good.headers, ("schema-version", b"9")))
    outputs = await training(batch(good._replace(value=b"\xff{"), foreign, good._replace(value=None), good))
    assert [output.topic for output in outputs[:3]] == ["dead-letters"] * 3
    reasons = [dict(output.headers)["dlq.reason"] for output in outputs[:3]]
    assert reasons == [b"invalid-message", b"unknown-schema-version", b"invalid-message"]
    assert len(outputs) == 5


async def test_a_number_that_json_cannot_hold_is_a_dead_letter_and_never_an_assignment(
    training: TrainingDesk, submit: Submit
) -> None:
    record = submit(train())
    poisoned = record._replace(value=(record.value or b"").replace(b'"clip_norm":1.0', b'"clip_norm":Infinity'))
    assert poisoned != record
    (dead,) = await training(batch(poisoned))
    assert dead.topic == "dead-letters"


async def test_a_command_to_seal_is_left_to_curation(training: TrainingDesk, submit: Submit) -> None:
    seal = SealDataset(request_id=UUID(int=1), tenant="acme", workloads=("chat",), constitution=CONSTITUTION)
    assert await training(batch(submit(seal))) == []


async def test_an_unsigned_command_is_refused_unless_that_is_switched_on_and_then_it_shows(
    training: TrainingDesk,
    topics: Topics,
    submit: Submit,
) -> None:
    unsigned = submit(train())._replace(headers=())
    assert await reason_for(training, unsigned) == "unsigned-command"
    lenient = CommandDesk(requesters={}, in_force=lambda: CONSTITUTION, unsafe_accept_unsigned=True)
    trusting = TrainingDesk(desk=lenient, topics=topics, make_plan=quick_plan, knows_model=lambda _name: True)
    assignment, _ = await trusting(batch(unsigned))
    assert data_of(assignment)["unsafe_unsigned"] is True


async def mechanism_for(training: TrainingDesk, submit: Submit, **privacy: Any) -> Mechanism | NoMechanism:
    assignment, _ = await training(batch(submit(train(privacy=PrivacySettings(**privacy)))))
    return TrainingAssignment.model_validate(data_of(assignment)).mechanism


@pytest.mark.parametrize("mode", list(PrivacyMode))
async def test_the_mode_of_a_request_is_that_of_its_mechanism(
    training: TrainingDesk, submit: Submit, mode: PrivacyMode
) -> None:
    mechanism = await mechanism_for(training, submit, mode=mode)
    assert isinstance(mechanism, Mechanism)
    assert (mechanism.mode, mechanism.sampling_rate) == (mode.value, 6 / 360)


async def test_users_are_hidden_with_all_the_records_that_the_seal_lets_them_have(
    training: TrainingDesk, submit: Submit
) -> None:
    mechanism = await mechanism_for(training, submit, unit=PrivacyUnit.USER, records_per_user=64)
    assert isinstance(mechanism, Mechanism)
    assert mechanism.records_per_user == MANIFEST.rules.max_records_per_user == 16


async def test_whole_users_are_drawn_out_of_the_users_of_the_dataset(training: TrainingDesk, submit: Submit) -> None:
    mechanism = await mechanism_for(training, submit, unit=PrivacyUnit.USER, whole_users=True)
    assert isinstance(mechanism, Mechanism)
    assert (mechanism.records_per_user, mechanism.whole_users, mechanism.sampling_rate) == (1, True, 6 / 120)


async def test_a_dataset_with_records_of_nobody_cannot_hide_users(
    training: TrainingDesk, submit: Submit, deliver: Deliver
) -> None:
    counts = MANIFEST.counts.model_copy(update={"without_user": 1})
    anonymous = MANIFEST.model_copy(update={"dataset_id": "sha256:d6", "counts": counts})
    cause = Record("training.requests", 0, 0, 1_700_000_000_000, None, None)
    key = f"{anonymous.tenant}/{anonymous.dataset_id}"
    deliver([event_record(topic="datasets.sealed", key=key, data=anonymous, cause=cause, constitution=CONSTITUTION)])
    wanted = train(dataset_id="sha256:d6", privacy=PrivacySettings(unit=PrivacyUnit.USER, whole_users=True))
    assert await reason_for(training, submit(wanted)) == "records-without-user"


@pytest.mark.usefixtures("sealed")
async def test_training_without_privacy_needs_the_deployment_to_allow_it_and_has_neither_mechanism_nor_epsilon(
    desk: CommandDesk, topics: Topics, submit: Submit
) -> None:
    allowing = TrainingDesk(
        desk=desk, topics=topics, make_plan=quick_plan, knows_model=lambda _name: True, unsafe_allow_non_private=True
    )
    assignment, _ = await allowing(batch(submit(train(privacy=PrivacySettings(unsafe_non_private=True)))))
    read = TrainingAssignment.model_validate(data_of(assignment))
    assert read.mechanism == NoMechanism(unsafe_non_private=True, sampling_rate=6 / 360, expected_batch_size=6.0)
    assert read.epsilon_planned is None
    oversized = OptimizerSettings(expected_batch_size=361.0)
    command = train(2, privacy=PrivacySettings(unsafe_non_private=True), optimizer=oversized)
    assert await reason_for(allowing, submit(command)) == "batch-over-dataset"
