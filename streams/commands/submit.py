"""`ctrainer submit`: signed commands to training.requests, and their answers."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from pydantic import ValidationError

from ctrainer.schemas.adapters import AdapterReleased
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.datasets import DatasetSealed, SelectionRules
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.message import describe_faults
from ctrainer.schemas.privacy import PrivacyMode, PrivacyUnit
from ctrainer.schemas.training import (
    CancelTraining,
    Objective,
    OptimizerSettings,
    PrivacySettings,
    SealDataset,
    TrainAdapter,
    TrainingAssignment,
)
from ctrainer.streams.active_constitution import reference_in_force
from ctrainer.streams.command_submitter import Answer, Command, CommandSubmitter
from ctrainer.streams.console import print_json, print_rows
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.keyring import read_signing_key
from ctrainer.streams.location import locate
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader

app = typer.Typer(help="Send signed training commands and wait for the answer.", no_args_is_help=True)
Tenant = Annotated[str, typer.Option(help="whose data and budget")]
Key = Annotated[Path | None, typer.Option(help="the private key file to sign with; none sends it unsigned")]
Json = Annotated[bool, typer.Option("--json", help="end with one JSON object")]
Build = Callable[[ConstitutionReference], Command]


class CommandError(ConstitutionalTrainerError):
    """The values given make no valid command."""


@app.command()
def seal(
    *,
    tenant: Tenant,
    workload: Annotated[list[str], typer.Option(help="a workload whose accepted samples to freeze")],
    max_records_per_user: Annotated[int, typer.Option(help="most records of one user")] = 16,
    held_out_share: Annotated[float, typer.Option(help="share kept for evaluation, 0 to 0.5")] = 0.1,
    key: Key = None,
    json: Json = False,
) -> None:
    """Freeze the accepted samples of some workloads into a dataset."""
    send(
        lambda reference: SealDataset(
            request_id=uuid4(),
            tenant=tenant,
            workloads=tuple(workload),
            constitution=reference,
            rules=SelectionRules(max_records_per_user=max_records_per_user, held_out_share=held_out_share),
        ),
        key,
        as_json=json,
    )


@app.command()
def train(
    *,
    tenant: Tenant,
    dataset: Annotated[str, typer.Option(help="the id of a sealed dataset")],
    base_model: Annotated[str, typer.Option(help="a hub name or a path")] = "SmolLM2-135M-Instruct",
    objective: Annotated[Objective, typer.Option(help="what the adapter learns")] = Objective.SFT,
    population: Annotated[str, typer.Option(help="whose budget is spent: tenant and population")] = "default",
    epsilon: Annotated[float, typer.Option(help="at most 8")] = 8.0,
    delta: Annotated[float, typer.Option(help="at most 1e-5 and 1/n^1.1")] = 1e-5,
    mode: Annotated[PrivacyMode, typer.Option(help="how records meet steps")] = PrivacyMode.SEALED_POISSON,
    unit: Annotated[PrivacyUnit, typer.Option(help="whose presence is hidden")] = PrivacyUnit.RECORD,
    whole_users: Annotated[bool, typer.Option("--whole-users", help="draw users, one gradient each")] = False,
    records_per_user: Annotated[int | None, typer.Option(help="most records of a user to hide")] = None,
    unsafe_non_private: Annotated[
        bool, typer.Option("--unsafe-non-private", help="train without any privacy, where that is allowed")
    ] = False,
    steps: Annotated[int, typer.Option(help="private optimizer steps")] = 40,
    batch_size: Annotated[float, typer.Option(help="expected batch size, in records or users")] = 6.0,
    learning_rate: Annotated[float, typer.Option(help="of AdamW")] = 1e-3,
    key: Key = None,
    json: Json = False,
) -> None:
    """Fine-tune a LoRA adapter on a sealed dataset under differential privacy."""
    send(
        lambda reference: TrainAdapter(
            request_id=uuid4(),
            tenant=tenant,
            dataset_id=dataset,
            constitution=reference,
            base_model=base_model,
            objective=objective,
            privacy=PrivacySettings(
                mode=mode,
                epsilon=epsilon,
                delta=delta,
                unit=unit,
                records_per_user=records_per_user,
                whole_users=whole_users,
                population=population,
                unsafe_non_private=unsafe_non_private,
            ),
            optimizer=OptimizerSettings(steps=steps, expected_batch_size=batch_size, learning_rate=learning_rate),
        ),
        key,
        as_json=json,
    )


@app.command()
def cancel(
    *,
    tenant: Tenant,
    session: Annotated[str, typer.Option(help="the id of the session")],
    key: Key = None,
    json: Json = False,
) -> None:
    """Stop a session; what it spent stays spent."""
    send(
        lambda reference: CancelTraining(request_id=uuid4(), tenant=tenant, session_id=session, constitution=reference),
        key,
        as_json=json,
    )


def send(build: Build, key: Path | None, *, as_json: bool) -> None:
    """Send a command, wait for its answer, and print it.

    Raises:
        CommandError: the values make no command.
        RefusedError: the command was refused.
    """
    settings = Settings.read()
    servers, security = locate(settings).bootstrap_servers, client_security(settings)
    topics = TopicReader(bootstrap_servers=servers, security=security)
    try:
        command = build(asyncio.run(reference_in_force(settings, topics)))
    except ValidationError as error:
        raise CommandError(describe_faults(error)) from error
    submitter = CommandSubmitter(
        bootstrap_servers=servers, key=read_signing_key(key) if key else None, security=security
    )
    answer = asyncio.run(submitter.submit_and_wait(command))
    if as_json:
        print_json(answer.model_dump(mode="json"))
    else:
        print_rows("answer", [summary(answer)], as_json=False)


def summary(answer: Answer) -> dict[str, object]:
    """Return what a person wants to know of an answer first."""
    if isinstance(answer, DatasetSealed):
        return {"dataset": answer.dataset_id, "train": answer.counts.train, "held out": answer.counts.held_out}
    if isinstance(answer, TrainingAssignment):
        return {
            "session": answer.session_id,
            "to be": answer.desired.value,
            "steps": answer.steps,
            "epsilon planned": answer.epsilon_planned,
        }
    if isinstance(answer, AdapterReleased):
        canary = f"{answer.canary.adapter_id} ({answer.canary.share:.0%})" if answer.canary else "none"
        current = answer.current or "the base model"
        return {"workload": answer.workload, "change": answer.change.value, "current": current, "canary": canary}
    return {"refused": answer.reason, "message": answer.message, "accepted would be": answer.acceptable}
