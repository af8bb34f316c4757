import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.agents.commands import Command, CommandDesk, Refusal
from ctrainer.agents.events import event_record
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.registry import AdapterRegistry, read_shelf
from ctrainer.agents.releases import Shelf
from ctrainer.agents.training import TrainingDesk
from ctrainer.agents.world import Topics
from ctrainer.schemas.adapters import AdapterPublished, AdapterReleased, Canary, ReleaseChange
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.privacy import Accountant, Adjacency, PrivacyGuarantee, PrivacyUnit
from ctrainer.schemas.receipt import PAYLOAD_TYPE, SignedStatement
from ctrainer.schemas.release import ReleaseVerdict
from ctrainer.schemas.training import CanaryAdapter, PromoteAdapter, RegistryCommand, RollbackAdapter

Deliver = Callable[[Sequence[OutputRecord]], list[Record]]
Submit = Callable[[Command], Record]
CONSTITUTION = ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:ab")


def adapter(name: str, *, tenant: str = "acme", reasons: tuple[str, ...] = ()) -> AdapterPublished:
    return AdapterPublished(
        adapter_id=name,
        session_id=f"session of {name}",
        tenant=tenant,
        path=f"/adapters/{name}",
        digest="sha256:00",
        base_model="tiny",
        dataset_id="d",
        workloads=("chat",),
        membership_digest="sha256:00",
        steps=12,
        guarantee=PrivacyGuarantee(
            epsilon=3.0, delta=1e-5, unit=PrivacyUnit.RECORD, adjacency=Adjacency.ADD_REMOVE, accountant=Accountant.RDP
        ),
        constitution=CONSTITUTION,
        code_version="0.1.0",
        release=ReleaseVerdict(passed=not reasons, reasons=reasons, checks=(), probes_digest="sha256:00"),
        receipt=SignedStatement(payload="", payloadType=PAYLOAD_TYPE, signatures=()),
    )


def promote(number: int, name: str, *, tenant: str = "acme", workload: str = "chat") -> PromoteAdapter:
    return PromoteAdapter(
        request_id=UUID(int=number), tenant=tenant, workload=workload, adapter_id=name, constitution=CONSTITUTION
    )


def canary(number: int, name: str, share: float = 0.1) -> CanaryAdapter:
    return CanaryAdapter(
        request_id=UUID(int=number),
        tenant="acme",
        workload="chat",
        adapter_id=name,
        share=share,
        constitution=CONSTITUTION,
    )


def rollback(number: int) -> RollbackAdapter:
    return RollbackAdapter(request_id=UUID(int=number), tenant="acme", workload="chat", constitution=CONSTITUTION)


SHELF = Shelf(
    adapters={name: adapter(name) for name in ("one", "two", "three")}
    | {"bad": adapter("bad", reasons=("compliance",))},
    releases={},
)


def served(*commands: RegistryCommand) -> AdapterReleased:
    """Return the release after commands that are all carried out."""
    shelf = SHELF
    for command in commands:
        release = shelf.after(command, signed_by="alice")
        assert isinstance(release, AdapterReleased)
        shelf = Shelf(adapters=shelf.adapters, releases={"chat": release})
    return shelf.releases["chat"]


def refusal(command: RegistryCommand, *before: RegistryCommand) -> str:
    releases = {"chat": served(*before)} if before else {}
    refused = Shelf(adapters=SHELF.adapters, releases=releases).after(command, signed_by="alice")
    assert isinstance(refused, Refusal)
    return refused.reason


def test_a_rollback_returns_to_the_adapter_before() -> None:
    release = served(promote(1, "one"), promote(2, "two"), rollback(3))
    assert (release.current, release.former, release.change) == ("one", (), ReleaseChange.ROLLED_BACK)


def test_a_rollback_of_the_first_adapter_returns_to_the_base_model() -> None:
    assert served(promote(1, "one"), rollback(2)).current is None


def test_a_rollback_ends_a_canary_and_leaves_the_current_adapter() -> None:
    release = served(promote(1, "one"), canary(2, "two"), rollback(3))
    assert (release.current, release.canary, release.change) == ("one", None, ReleaseChange.CANARY_ENDED)


def test_a_canary_serves_its_share_beside_the_current_adapter() -> None:
    release = served(promote(1, "one"), canary(2, "two", 0.25))
    assert (release.current, release.canary) == ("one", Canary(adapter_id="two", share=0.25))


def test_a_promoted_canary_is_no_canary_any_more() -> None:
    release = served(promote(1, "one"), canary(2, "two"), promote(3, "two"))
    assert (release.current, release.canary, release.former) == ("two", None, ("one",))


@pytest.mark.parametrize(
    ("command", "before", "reason"),
    [
        (promote(9, "unheard of"), (), "unknown-adapter"),
        (promote(9, "bad"), (), "gate-not-passed"),
        (canary(9, "bad"), (), "gate-not-passed"),
        (promote(9, "one", workload="search"), (), "foreign-workload"),
        (promote(9, "one"), (promote(1, "one"),), "already-current"),
        (canary(9, "one"), (promote(1, "one"),), "already-current"),
        (rollback(9), (), "nothing-to-roll-back"),
        (rollback(9), (promote(1, "one"), rollback(2)), "nothing-to-roll-back"),
        (rollback(2), (promote(1, "one"), promote(3, "two"), rollback(2)), "duplicate-request"),
    ],
)
def test_what_cannot_be_released_is_refused_with_its_reason(
    command: RegistryCommand, before: tuple[RegistryCommand, ...], reason: str
) -> None:
    assert refusal(command, *before) == reason


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0])
def test_a_canary_share_lies_between_nothing_and_all(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        canary(1, "one", share)


@given(st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=12))
def test_as_many_rollbacks_as_promotions_lead_back_to_the_base_model(names: list[str]) -> None:
    shelf, promoted, number = SHELF, 0, 0
    for name in names:
        number += 1
        release = shelf.after(promote(number, name), signed_by="alice")
        if isinstance(release, AdapterReleased):
            promoted += 1
            shelf = Shelf(adapters=shelf.adapters, releases={"chat": release})
    for _ in range(promoted):
        number += 1
        release = shelf.after(rollback(number), signed_by="alice")
        assert isinstance(release, AdapterReleased)
        shelf = Shelf(adapters=shelf.adapters, releases={"chat": release})
    assert shelf.releases["chat"].current is None
    assert shelf.releases["chat"].former == ()


def published(one: AdapterPublished) -> OutputRecord:
    cause = Record("sessions", 0, 0, 1_700_000_000_000, None, None)
    key = f"{one.tenant}/{one.adapter_id}"
    return event_record(topic="adapters.published", key=key, data=one, cause=cause, constitution=CONSTITUTION)


def batch(*records: Record) -> RecordBatch:
    return RecordBatch(topic="training.requests", partition=0, epoch=1, records=records)


def data_of(output: OutputRecord) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(output.value or b"")["data"]
    return data


@pytest.fixture
def registry(desk: CommandDesk, topics: Topics, deliver: Deliver) -> AdapterRegistry:
    deliver([published(adapter(name)) for name in ("one", "two")])
    deliver([published(adapter("theirs", tenant="umbrella"))])
    return AdapterRegistry(desk=desk, topics=topics)


async def test_a_release_is_found_under_the_key_of_its_workload_with_who_asked_for_it(
    registry: AdapterRegistry, submit: Submit
) -> None:
    (released,) = await registry(batch(submit(promote(1, "one"))))
    assert (released.topic, released.key) == ("adapters.published", b"acme/releases/chat")
    assert data_of(released)["current"] == "one"
    assert data_of(released)["signed_by"] == "alice"


async def test_commands_of_one_batch_see_each_other_like_those_of_two(
    registry: AdapterRegistry, submit: Submit, deliver: Deliver
) -> None:
    commands = [submit(promote(1, "one")), submit(promote(2, "two")), submit(rollback(3))]
    together = await registry(batch(*commands))
    alone: list[OutputRecord] = []
    for command in commands:
        outputs = await registry(batch(command))
        deliver(outputs)
        alone.extend(outputs)
    assert [output.value for output in together] == [output.value for output in alone]


async def test_nobody_releases_the_adapter_of_another_tenant(registry: AdapterRegistry, submit: Submit) -> None:
    (refused,) = await registry(batch(submit(promote(1, "theirs"))))
    assert (refused.topic, data_of(refused)["reason"]) == ("training.progress", "unknown-adapter")


async def test_an_unsigned_release_is_refused(registry: AdapterRegistry, submit: Submit) -> None:
    signed = submit(promote(1, "one"))
    (refused,) = await registry(batch(signed._replace(headers=())))
    assert data_of(refused)["reason"] == "unsigned-command"


async def test_an_entry_that_cannot_be_read_is_not_served_and_stops_nothing(
    registry: AdapterRegistry, submit: Submit, topics: Topics, deliver: Deliver
) -> None:
    old = published(adapter("old"))
    value = json.loads(old.value or b"")
    del value["data"]["release"]
    deliver([old._replace(value=json.dumps(value).encode())])
    assert set((await read_shelf(topics, "acme")).adapters) == {"one", "two"}
    (refused,) = await registry(batch(submit(promote(1, "old"))))
    assert data_of(refused)["reason"] == "unknown-adapter"


async def test_every_command_is_answered_by_exactly_one_stage(
    registry: AdapterRegistry, desk: CommandDesk, topics: Topics, submit: Submit
) -> None:
    training = TrainingDesk(desk=desk, topics=topics, make_plan=lambda **_: (), knows_model=lambda _: True)
    record = submit(promote(1, "one"))
    assert len(await registry(batch(record))) == 1
    assert await training(batch(record)) == []
