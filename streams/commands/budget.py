"""`ctrainer budget`: what a session would cost, and what has been spent."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.privacy import ALERT_SHARE, HALT_SHARE, Accountant, Adjacency, PrivacyMode, PrivacyUnit
from ctrainer.streams.budget_history import ScopeHistory, budget_histories, burn_down
from ctrainer.streams.console import print_json, print_rows
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import locate
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.trainer.accounting import NOTHING, epsilon_of
from ctrainer.trainer.ledger import Granted, LedgerState, reserve
from ctrainer.trainer.plan import PrivacyPlan, RecordOrder, make_plan
from ctrainer.trainer.release_cost import release_rdp

app = typer.Typer(help="Plan a privacy budget, and read what was spent of it.", no_args_is_help=True)

Epsilon = Annotated[float, typer.Option(help="the ceiling of the session")]
Delta = Annotated[float, typer.Option(help="at most 1e-5 and 1/n^1.1")]
Records = Annotated[int, typer.Option(help="records to train on, or users where whole users are drawn")]
Batch = Annotated[float, typer.Option(help="expected batch size")]
Steps = Annotated[int | None, typer.Option(help="number of steps")]
Epochs = Annotated[float | None, typer.Option(help="passes over the records, in place of --steps")]
Clip = Annotated[float, typer.Option(help="clip norm of a gradient")]
Mode = Annotated[PrivacyMode, typer.Option(help="how records meet steps")]
Order = Annotated[RecordOrder, typer.Option(help="what order the data is in")]
Unit = Annotated[PrivacyUnit, typer.Option(help="whose presence is hidden")]
PerUser = Annotated[int, typer.Option(help="most records of one user, sampled one by one")]
Whole = Annotated[bool, typer.Option(help="draw whole users, one clipped gradient each")]
Neighbours = Annotated[Adjacency, typer.Option(help="which datasets count as neighbours")]
Spare = Annotated[int, typer.Option(help="blocks that may be charged again: a crash takes up to two")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object per line")]


class BudgetRefusedError(ConstitutionalTrainerError):
    """No plan can be made, or the ledger would refuse it."""


@app.command()
def plan(
    *,
    epsilon: Epsilon = 8.0,
    delta: Delta = 1e-5,
    records: Records,
    batch: Batch,
    steps: Steps = None,
    epochs: Epochs = None,
    clip: Clip = 1.0,
    mode: Mode = PrivacyMode.SEALED_POISSON,
    order: Order = RecordOrder.SEALED,
    unit: Unit = PrivacyUnit.RECORD,
    adjacency: Neighbours = Adjacency.ADD_REMOVE,
    records_per_user: PerUser = 1,
    whole_users: Whole = False,
    spare_blocks: Spare = 2,
    json: Json = False,
) -> None:
    """Print the frozen plan of a session: noise, rate, steps, and its epsilon under RDP and PRV. Needs no Kafka."""
    made = make_plan(
        epsilon=epsilon,
        delta=delta,
        records=records,
        expected_batch_size=batch,
        steps=_steps(steps, epochs, records=records, batch=batch),
        clip_norm=clip,
        mode=mode,
        order=order,
        unit=unit,
        adjacency=adjacency,
        records_per_user=records_per_user,
        whole_users=whole_users,
        spare_blocks=spare_blocks,
    )
    if not isinstance(made, PrivacyPlan):
        raise BudgetRefusedError("; ".join(f"{fault.message} (accepted: {fault.acceptable})" for fault in made))
    print_plan(made, as_json=json)


@app.command()
def show(*, scope: Annotated[str | None, typer.Option(help="only this scope")] = None, json: Json = False) -> None:
    """Print what each scope has spent, with its burn-down."""
    histories = asyncio.run(budget_histories(_reader()))
    print_rows("budgets", [row(found) for name, found in histories.items() if scope in {None, name}], as_json=json)


@app.command()
def simulate(
    *,
    scope: Annotated[str, typer.Option(help="the budget scope, tenant/population")],
    epsilon: Epsilon = 8.0,
    delta: Delta = 1e-5,
    records: Records,
    batch: Batch,
    steps: Steps = None,
    epochs: Epochs = None,
    clip: Clip = 1.0,
    mode: Mode = PrivacyMode.SEALED_POISSON,
    unit: Unit = PrivacyUnit.RECORD,
    adjacency: Neighbours = Adjacency.ADD_REMOVE,
    records_per_user: PerUser = 1,
    whole_users: Whole = False,
    json: Json = False,
) -> None:
    """Print what a session would cost on top of what its scope has spent. Reserves nothing."""
    count = _steps(steps, epochs, records=records, batch=batch)
    made = make_plan(
        epsilon=epsilon,
        delta=delta,
        records=records,
        expected_batch_size=batch,
        steps=count,
        clip_norm=clip,
        mode=mode,
        unit=unit,
        adjacency=adjacency,
        records_per_user=records_per_user,
        whole_users=whole_users,
    )
    if not isinstance(made, PrivacyPlan):
        raise BudgetRefusedError("; ".join(f"{fault.message} (accepted: {fault.acceptable})" for fault in made))
    histories = asyncio.run(budget_histories(_reader()))
    print_rows("simulation", [{"scope": scope, **cost_in(histories.get(scope), made)}], as_json=json)


def cost_in(history: ScopeHistory | None, made: PrivacyPlan) -> dict[str, object]:
    """Return what a plan would do to a scope. A spend about something else refuses it, as the ledger does."""
    if history is None:
        return cost_on_top(NOTHING, made)
    last = history.grants[-1].request.mechanism if history.grants else made.mechanism()
    kinds = (last.unit, last.adjacency) == (made.unit, made.adjacency)
    cost = cost_on_top(history.state.rdp, made)
    refused = {} if kinds else {"after": None, "granted": False, "granted_steps": 0, "reason": "promise-mixed"}
    return {**cost, **refused, "non_private_sessions": len(history.non_private)}


def cost_on_top(spent: tuple[float, ...], made: PrivacyPlan) -> dict[str, object]:
    """Return what a plan would do to a spend: epsilon before and after, and what the ledger would answer."""
    _, answer = reserve(
        LedgerState(rdp=spent),
        reservation_id="simulation",
        fingerprint="simulation",
        step_rdp=release_rdp(made.mechanism()),
        steps=made.steps,
        releases=made.releases,
        epsilon_ceiling=made.epsilon_ceiling,
        delta=made.delta,
    )
    granted = isinstance(answer, Granted)
    return {
        "spent": epsilon_of(spent, made.delta),
        "after": answer.epsilon if isinstance(answer, Granted) else None,
        "delta": made.delta,
        "ceiling": made.epsilon_ceiling,
        "accountant": Accountant.RDP.value,
        "noise_multiplier": made.noise_multiplier,
        "granted": granted,
        "alert": answer.epsilon >= ALERT_SHARE * made.epsilon_ceiling,
        "granted_steps": made.steps if isinstance(answer, Granted) else answer.acceptable_steps,
    }


def row(history: ScopeHistory) -> dict[str, object]:
    """Return the history of a scope as a row."""
    last = history.grants[-1] if history.grants else None
    request = last.request if last else None
    return {
        "scope": history.scope,
        "epsilon": round(last.epsilon, 4) if last else 0.0,
        "delta": request.delta if request else None,
        "ceiling": request.epsilon_ceiling if request else None,
        "halts_at": HALT_SHARE * request.epsilon_ceiling if request else None,
        "unit": request.mechanism.unit.value if request else None,
        "adjacency": request.mechanism.adjacency.value if request else None,
        "accountant": Accountant.RDP.value,
        "grants": len(history.grants),
        "steps": sum(grant.request.steps for grant in history.grants),
        "refusals": history.refusals,
        "non_private_sessions": len(history.non_private),
        "burn_down": burn_down(history.remaining()),
    }


def print_plan(made: PrivacyPlan, *, as_json: bool) -> None:
    """Print a plan as one JSON object or as a table of its fields."""
    fields = {**asdict(made), "epsilon_rdp": made.epsilon_planned, "accountant": Accountant.RDP.value}
    if as_json:
        print_json(fields)
        return
    print_rows("plan", [{"field": name, "value": value} for name, value in fields.items()], as_json=False)


def _steps(steps: int | None, epochs: float | None, *, records: int, batch: float) -> int:
    if (steps is None) == (epochs is None):
        raise BudgetRefusedError("got both or neither of --steps and --epochs, expected one of them")
    if steps is not None:
        return steps
    return int((epochs or 0.0) * records / batch) if batch > 0 else 0


def _reader() -> TopicReader:
    settings = Settings.read()
    return TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
