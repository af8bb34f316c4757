import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ctrainer.agents.privacy import PrivacyLedger
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.world import Topics
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.message import Message
from ctrainer.schemas.privacy import (
    Adjacency,
    DeclareNonPrivate,
    Mechanism,
    PrivacyUnit,
    ReportViolation,
    ReserveBudget,
    SettleBudget,
)
from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, rdp_of_step
from ctrainer.trainer.user_accounting import user_rdp_of_step

Deliver = Callable[[Sequence[OutputRecord]], list[Record]]

CONSTITUTION = ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:ab")
MECHANISM = Mechanism(sampling_rate=0.02, noise_multiplier=0.8, clip_norm=1.0, expected_batch_size=8.0)
STEP = rdp_of_step(0.02, 0.8)
PARTITION = 3


def reserve(name: str, **changes: Any) -> ReserveBudget:
    request = ReserveBudget(
        reservation_id=name,
        scope="acme/default",
        tenant="acme",
        session_id="s1",
        first_step=0,
        steps=16,
        mechanism=MECHANISM,
        epsilon_ceiling=4.0,
        delta=1e-5,
    )
    return request.model_copy(update=changes)


def settle(name: str, steps: int) -> SettleBudget:
    return SettleBudget(reservation_id=name, scope="acme/default", tenant="acme", session_id="s1", steps_used=steps)


def record(offset: int, request: ReserveBudget | SettleBudget | ReportViolation | DeclareNonPrivate) -> Record:
    return Record("privacy.requests", PARTITION, offset, 1_700_000_000_000, request.scope.encode(), request.to_json())


def batch(*records: Record) -> RecordBatch:
    return RecordBatch(topic="privacy.requests", partition=PARTITION, epoch=1, records=records)


def entries(outputs: Sequence[OutputRecord | Record]) -> list[dict[str, Any]]:
    return [json.loads(output.value or b"")["data"]["entry"] for output in outputs if output.topic == "privacy.ledger"]


def events(outputs: Sequence[OutputRecord | Record]) -> list[str]:
    return [
        json.loads(output.value or b"")["type"].split(".")[-2] for output in outputs if output.topic == "privacy.events"
    ]


def spend(steps: int) -> float:
    return epsilon_of(compose(NOTHING, STEP, steps), 1e-5)


@pytest.fixture
async def ledger(topics: Topics) -> PrivacyLedger:
    made = PrivacyLedger(topics=topics, in_force=lambda: CONSTITUTION)
    await made.restore(PARTITION, 0)
    return made


async def test_a_grant_is_written_to_the_same_partition_and_told_with_all_that_an_epsilon_needs(
    ledger: PrivacyLedger,
) -> None:
    entry, event = await ledger(batch(record(0, reserve("a"))))
    assert (entry.topic, entry.partition, entry.key) == ("privacy.ledger", PARTITION, b"acme/default")
    assert entries([entry])[0]["kind"] == "BudgetGranted"
    assert entries([entry])[0]["epsilon"] == pytest.approx(spend(16))
    spent = json.loads(event.value or b"")["data"]["spent"]
    assert events([event]) == ["BudgetSpent"]
    assert (spent["unit"], spent["adjacency"], spent["accountant"]) == ("record", "add-remove", "rdp")


async def test_a_batch_whose_transaction_failed_is_charged_once(ledger: PrivacyLedger) -> None:
    both = (record(0, reserve("a")), record(1, reserve("b")))
    first = await ledger(batch(*both))
    assert await ledger(batch(*both)) == first
    (half,) = entries(await ledger(batch(both[0])))
    assert half["epsilon"] == pytest.approx(spend(16))
    (other_half,) = entries(await ledger(batch(both[1])))
    assert other_half["epsilon"] == pytest.approx(spend(32))
    (last,) = entries(await ledger(batch(record(2, reserve("c")))))
    assert last["epsilon"] == pytest.approx(spend(48))


async def test_a_new_owner_goes_on_with_what_the_ledger_says_and_only_that(
    ledger: PrivacyLedger, topics: Topics, deliver: Deliver
) -> None:
    deliver(await ledger(batch(record(0, reserve("a")))))
    await ledger(batch(record(1, reserve("never committed"))))
    successor = PrivacyLedger(topics=topics, in_force=lambda: CONSTITUTION)
    await successor.restore(PARTITION, 1)
    (entry,) = entries(await successor(batch(record(1, reserve("b")))))
    assert entry["epsilon"] == pytest.approx(spend(32))
    assert entry["sequence"] == 2


async def test_an_owner_that_is_restored_forgets_what_was_not_committed(ledger: PrivacyLedger) -> None:
    await ledger(batch(record(0, reserve("a"))))
    await ledger.restore(PARTITION, 0)
    (entry,) = entries(await ledger(batch(record(0, reserve("a")))))
    assert (entry["sequence"], entry["repeated"]) == (1, False)
    assert entry["epsilon"] == pytest.approx(spend(16))


@pytest.mark.parametrize("restored", [False, True])
async def test_a_reservation_is_charged_once_however_often_it_is_asked_for(
    ledger: PrivacyLedger, deliver: Deliver, *, restored: bool
) -> None:
    deliver(await ledger(batch(record(0, reserve("a")))))
    if restored:
        await ledger.restore(PARTITION, 1)
    again = await ledger(batch(record(1, reserve("a"))))
    assert (entries(again)[0]["repeated"], events(again)) == (True, [])
    (entry,) = entries(await ledger(batch(record(2, reserve("b")))))
    assert entry["epsilon"] == pytest.approx(spend(32))


async def test_another_request_under_a_granted_id_is_refused(ledger: PrivacyLedger) -> None:
    outputs = await ledger(batch(record(0, reserve("a")), record(1, reserve("a", steps=64))))
    assert [entry["kind"] for entry in entries(outputs)] == ["BudgetGranted", "BudgetRefused"]
    assert entries(outputs)[1]["reason"] == "reservation-conflict"


async def test_crossing_90_percent_alerts_once_and_95_percent_is_never_passed(ledger: PrivacyLedger) -> None:
    outputs = await ledger(batch(*[record(number, reserve(str(number))) for number in range(200)]))
    told = events(outputs)
    granted = [entry for entry in entries(outputs) if entry["kind"] == "BudgetGranted"]
    refused = [entry for entry in entries(outputs) if entry["kind"] == "BudgetRefused"]
    assert told.count("BudgetAlerted") == 1
    assert (told.count("BudgetSpent"), told.count("BudgetHalted")) == (len(granted), len(refused))
    assert max(entry["epsilon"] for entry in granted) <= 0.95 * 4.0 < spend(16 * (len(granted) + 1))
    assert granted
    assert 0 <= refused[0]["acceptable_steps"] < 16


async def test_scopes_do_not_share_a_budget(ledger: PrivacyLedger) -> None:
    outputs = await ledger(batch(record(0, reserve("a")), record(1, reserve("a", scope="acme/others"))))
    assert [entry["epsilon"] for entry in entries(outputs)] == [pytest.approx(spend(16))] * 2


async def test_sessions_of_one_scope_share_its_budget(ledger: PrivacyLedger) -> None:
    outputs = await ledger(batch(record(0, reserve("a")), record(1, reserve("b", session_id="s2"))))
    assert entries(outputs)[1]["epsilon"] == pytest.approx(spend(32))


async def test_settling_refunds_nothing(ledger: PrivacyLedger) -> None:
    outputs = await ledger(batch(record(0, reserve("a")), record(1, settle("a", 1)), record(2, reserve("b"))))
    assert [entry["kind"] for entry in entries(outputs)] == ["BudgetGranted", "BudgetSettled", "BudgetGranted"]
    assert entries(outputs)[2]["epsilon"] == pytest.approx(spend(32))
    assert [entry["sequence"] for entry in entries(outputs)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("request_", "reason"), [(settle("a", 17), "spend-over-grant"), (settle("unknown", 1), "spend-without-grant")]
)
async def test_steps_that_no_grant_covers_are_a_violation(
    ledger: PrivacyLedger, request_: SettleBudget, reason: str
) -> None:
    outputs = await ledger(batch(record(0, reserve("a")), record(1, request_)))
    assert events(outputs) == ["BudgetSpent", "BudgetViolated"]
    assert json.loads(outputs[-1].value or b"")["data"]["reason"] == reason


@pytest.mark.parametrize("restored", [False, True])
async def test_a_session_that_reports_a_breach_of_its_plan_is_reported_and_gets_no_grant_any_more(
    ledger: PrivacyLedger, deliver: Deliver, *, restored: bool
) -> None:
    report = ReportViolation(
        scope="acme/default", tenant="acme", session_id="s1", reason="noise-out-of-plan", message="m"
    )
    outputs = await ledger(batch(record(0, reserve("a")), record(1, report)))
    deliver(outputs)
    assert [entry["kind"] for entry in entries(outputs)] == ["BudgetGranted", "ViolationNoted"]
    assert events(outputs) == ["BudgetSpent", "BudgetViolated"]
    assert json.loads(outputs[-1].value or b"")["data"]["reason"] == "noise-out-of-plan"
    if restored:
        await ledger.restore(PARTITION, 2)
    later = await ledger(batch(record(2, reserve("b")), record(3, reserve("c", session_id="s2"))))
    assert [entry.get("reason") for entry in entries(later)] == ["session-stopped", None]
    assert entries(later)[1]["epsilon"] == pytest.approx(spend(32))


async def test_a_session_that_changes_its_mechanism_is_refused_and_reported(
    ledger: PrivacyLedger, deliver: Deliver
) -> None:
    deliver(await ledger(batch(record(0, reserve("a")))))
    await ledger.restore(PARTITION, 1)
    quieter = MECHANISM.model_copy(update={"noise_multiplier": 0.5})
    outputs = await ledger(batch(record(1, reserve("b", mechanism=quieter))))
    assert entries(outputs)[0]["reason"] == "mechanism-changed"
    assert events(outputs) == ["BudgetHalted", "BudgetViolated"]


@pytest.mark.parametrize("promise", [{"whole_users": True}, {"adjacency": Adjacency.REPLACE_ONE}])
async def test_a_promise_that_the_accountant_does_not_compute_is_refused(
    ledger: PrivacyLedger, promise: dict[str, Any]
) -> None:
    mechanism = MECHANISM.model_copy(update=promise)
    outputs = await ledger(batch(record(0, reserve("a", mechanism=mechanism))))
    assert entries(outputs)[0]["reason"] == "unsupported-privacy"
    assert events(outputs) == ["BudgetHalted"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": b"acme/others"}, b"key-is-not-scope"),
        ({"key": None}, b"key-is-not-scope"),
        ({"value": None}, b"invalid-message"),
        ({"value": b"\xff"}, b"invalid-message"),
    ],
)
async def test_what_is_no_request_is_a_dead_letter_and_charges_nothing(
    ledger: PrivacyLedger, changes: dict[str, Any], reason: bytes
) -> None:
    dead, entry, _event = await ledger(batch(record(0, reserve("a"))._replace(**changes), record(1, reserve("b"))))
    assert (dead.topic, dict(dead.headers)["dlq.reason"]) == ("dead-letters", reason)
    assert entries([entry])[0]["epsilon"] == pytest.approx(spend(16))


def as_json(message: Message, **changes: float) -> bytes:
    return json.dumps({**json.loads(message.to_json()), **changes}).encode()


@pytest.mark.parametrize("changes", [{"epsilon_ceiling": 8.1}, {"delta": 1.1e-5}, {"epsilon_ceiling": float("nan")}])
async def test_ceilings_over_the_greatest_allowed_ones_are_not_even_read(
    ledger: PrivacyLedger, changes: dict[str, float]
) -> None:
    (dead,) = await ledger(batch(record(0, reserve("a"))._replace(value=as_json(reserve("a"), **changes))))
    assert dead.topic == "dead-letters"


PASS = MECHANISM.model_copy(update={"mode": "single-pass"})
ONE_RELEASE = epsilon_of(rdp_of_step(1.0, 0.8), 1e-5)
TWO_RELEASES = epsilon_of(compose(NOTHING, rdp_of_step(1.0, 0.8), 2), 1e-5)


def of_pass(name: str, first_step: int, **changes: Any) -> ReserveBudget:
    return reserve(name, **{"mechanism": PASS, "epsilon_ceiling": 8.0, "first_step": first_step, **changes})


def epsilons(outputs: Sequence[OutputRecord]) -> list[float]:
    return [entry["epsilon"] for entry in entries(outputs) if "epsilon" in entry]


@pytest.mark.parametrize("mode", ["single-pass", "single-pass-correlated"])
async def test_a_single_pass_is_charged_once_for_all_its_blocks(ledger: PrivacyLedger, mode: str) -> None:
    mechanism = PASS.model_copy(update={"mode": mode})
    blocks = [of_pass(str(first), first).model_copy(update={"mechanism": mechanism}) for first in (0, 16, 32)]
    outputs = await ledger(batch(*[record(offset, block) for offset, block in enumerate(blocks)]))
    assert epsilons(outputs) == [pytest.approx(ONE_RELEASE)] * 3


async def test_a_second_pass_over_the_scope_is_charged_again(ledger: PrivacyLedger) -> None:
    again = of_pass("b", 0, session_id="s2").model_copy(
        update={"mechanism": PASS.model_copy(update={"noise_multiplier": 9.0})}
    )
    outputs = await ledger(batch(record(0, of_pass("a", 0)), record(1, again)))
    both = compose(rdp_of_step(1.0, 0.8), rdp_of_step(1.0, 9.0), 1)
    assert epsilons(outputs) == [pytest.approx(ONE_RELEASE), pytest.approx(epsilon_of(both, 1e-5))]


async def test_a_step_of_a_pass_that_runs_again_is_charged_again_also_by_a_new_owner(
    ledger: PrivacyLedger, topics: Topics, deliver: Deliver
) -> None:
    deliver(await ledger(batch(record(0, of_pass("a", 0)), record(1, of_pass("b", 16)))))
    successor = PrivacyLedger(topics=topics, in_force=lambda: CONSTITUTION)
    await successor.restore(PARTITION, 2)
    requests = [of_pass("crashed", 16, epsilon_ceiling=7.9), of_pass("once more", 16)]
    outputs = await successor(batch(*[record(offset, request) for offset, request in enumerate(requests, start=2)]))
    assert TWO_RELEASES > 0.95 * 7.9
    assert [entry["kind"] for entry in entries(outputs)] == ["BudgetRefused", "BudgetRefused"]
    assert entries(outputs)[0]["reason"] == "budget-exhausted"
    quiet = PASS.model_copy(update={"noise_multiplier": 3.0})
    steps = [("c", 0), ("d", 16), ("e", 16), ("f", 0), ("g", 0)]
    requests = [of_pass(name, first, scope="acme/quiet", mechanism=quiet) for name, first in steps]
    outputs = await successor(batch(*[record(offset, request) for offset, request in enumerate(requests, start=4)]))
    release = rdp_of_step(1.0, 3.0)
    expected = [epsilon_of(compose(NOTHING, release, times), 1e-5) for times in (1, 1, 2, 2, 3)]
    assert epsilons(outputs) == [pytest.approx(value) for value in expected]


async def test_steps_of_a_pass_that_were_settled_as_unused_may_run_later(ledger: PrivacyLedger) -> None:
    first, settled, rest = of_pass("a", 0), settle("a", 5), of_pass("b", 5)
    outputs = await ledger(batch(record(0, first), record(1, settled), record(2, rest)))
    assert epsilons(outputs) == [pytest.approx(ONE_RELEASE)] * 2


async def test_a_mode_that_the_ledger_does_not_know_is_refused(ledger: PrivacyLedger) -> None:
    outputs = await ledger(batch(record(0, reserve("a", mechanism=MECHANISM.model_copy(update={"mode": "shuffled"})))))
    assert entries(outputs)[0]["reason"] == "unsupported-privacy"
    assert "shuffled" in entries(outputs)[0]["message"]


async def test_users_are_charged_for_all_their_records_and_never_added_to_a_spend_for_records(
    ledger: PrivacyLedger,
) -> None:
    users = MECHANISM.model_copy(update={"unit": PrivacyUnit.USER, "records_per_user": 2, "noise_multiplier": 2.0})
    of_users = reserve("a", mechanism=users, session_id="s2", scope="acme/users")
    mixed = [reserve("b"), reserve("c", mechanism=users, session_id="s2"), reserve("d", scope="acme/users")]
    requests = [of_users, *mixed]
    outputs = await ledger(batch(*[record(offset, request) for offset, request in enumerate(requests)]))
    granted, records, *refused = entries(outputs)
    several = compose(NOTHING, user_rdp_of_step(0.02, 2.0, records_per_user=2), 16)
    assert granted["epsilon"] == pytest.approx(epsilon_of(several, 1e-5))
    assert granted["epsilon"] > epsilon_of(compose(NOTHING, rdp_of_step(0.02, 2.0), 16), 1e-5)
    assert records["kind"] == "BudgetGranted"
    assert [entry["reason"] for entry in refused] == ["promise-mixed"] * 2


async def test_training_without_privacy_is_charged_nothing_and_marks_its_scope_for_good(
    ledger: PrivacyLedger, topics: Topics, deliver: Deliver
) -> None:
    declared = DeclareNonPrivate(
        reservation_id="n", scope="acme/default", tenant="acme", session_id="s9", dataset_id="d", steps=40
    )
    outputs = deliver(await ledger(batch(record(0, reserve("a")), record(1, declared))))
    assert events(outputs) == ["BudgetSpent", "NonPrivateTrained"]
    told = json.loads(outputs[-1].value or b"")["data"]
    assert told["spent"] == {"unsafe_non_private": True, "guarantee": "none"}
    successor = PrivacyLedger(topics=topics, in_force=lambda: CONSTITUTION)
    await successor.restore(PARTITION, 2)
    entry, event = await successor(batch(record(2, reserve("b"))))
    assert entries([entry])[0]["epsilon"] == pytest.approx(spend(32))
    assert entries([entry])[0]["unsafe_non_private"] is True
    assert json.loads(event.value or b"")["data"]["spent"]["unsafe_non_private"] is True
