"""What privacy costs in usefulness: the demo's workload, trained at several epsilons and without privacy.

The records of examples/flywheel.jsonl that the default constitution accepts are sealed as `ctrainer demo` seals them,
and an adapter is trained on them with the demo's settings for each epsilon. Printed is how well base model and adapter
predict the held-out records. A run takes some minutes.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.force import appoint
from ctrainer.agents.records import Record, RecordBatch
from ctrainer.agents.screening import Screening
from ctrainer.agents.sealing import seal
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.datasets import SelectionRules
from ctrainer.schemas.privacy import PrivacyMode
from ctrainer.schemas.samples import AcceptedSample
from ctrainer.schemas.topics import FLYWHEEL_SAMPLES, SAMPLES_ACCEPTED
from ctrainer.schemas.training import LoraSettings, OptimizerSettings, TrainAdapter
from ctrainer.streams.demo import TENANT, WORKLOAD
from ctrainer.streams.session_data import SessionData, encode_members
from ctrainer.streams.settings import Settings
from ctrainer.trainer.accounting import NOTHING
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.evaluation import Prediction, measure_prediction
from ctrainer.trainer.ledger import Granted, LedgerState, Refused, reserve
from ctrainer.trainer.loop import train
from ctrainer.trainer.models import DEFAULT_MODEL, load_model
from ctrainer.trainer.plan import NonPrivatePlan, PrivacyPlan, make_plan
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.release_cost import release_rdp

SAMPLES = Path(__file__).parents[1] / "examples" / "flywheel.jsonl"
DELTA = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training: at most `epsilon`, or without privacy."""

    epsilon: float | None
    mode: PrivacyMode
    optimizer: OptimizerSettings


def accepted(file: Path) -> list[tuple[Record, AcceptedSample]]:
    """Return the samples of a file that the default constitution accepts for the demo's workload."""
    court = Court(default_constitution())
    judges = appoint(court, RegorusEngine(bundle_of(default_constitution())))
    records = tuple(
        Record(FLYWHEEL_SAMPLES, 0, offset, 0, None, line) for offset, line in enumerate(file.read_bytes().splitlines())
    )
    batch = RecordBatch(topic=FLYWHEEL_SAMPLES, partition=0, epoch=1, records=records)
    outputs = asyncio.run(Screening(judges=lambda: judges)(batch))
    kept = [output for output in outputs if output.topic == SAMPLES_ACCEPTED]
    wanted = f"{TENANT}/{WORKLOAD}".encode()
    return [
        (Record(SAMPLES_ACCEPTED, 0, offset, 0, output.key, output.value), AcceptedSample.from_json(output.value))
        for offset, output in enumerate(kept)
        if output.key == wanted
    ]


def sealed(samples: Sequence[tuple[Record, AcceptedSample]], language_model: Any, run: Run) -> SessionData:
    """Return the samples as the encoded members of a sealed dataset."""
    manifest = seal(
        samples, tenant=TENANT, workloads=(WORKLOAD,), rules=SelectionRules(), because="benchmark of utility"
    )
    request = TrainAdapter(
        request_id=uuid4(),
        tenant=TENANT,
        dataset_id=manifest.dataset_id,
        constitution=ConstitutionReference(hash="", digest=""),
        optimizer=run.optimizer,
    )
    return encode_members(manifest, [sample for _, sample in samples], language_model, request)


def planned(run: Run, records: int) -> PrivacyPlan | NonPrivatePlan:
    """Return the plan of a run as the training desk makes it, with room for one interrupted block."""
    batch = run.optimizer.expected_batch_size
    if run.epsilon is None:
        return NonPrivatePlan(sampling_rate=batch / records, expected_batch_size=batch, steps=run.optimizer.steps)
    plan = make_plan(
        epsilon=run.epsilon,
        delta=DELTA,
        records=records,
        expected_batch_size=batch,
        steps=run.optimizer.steps,
        clip_norm=1.0,
        mode=run.mode,
        spare_blocks=1,
    )
    if not isinstance(plan, PrivacyPlan):
        raise SystemExit("; ".join(fault.message for fault in plan))
    return plan


@dataclass(slots=True)
class Ledger:
    """A ledger of one session in memory."""

    plan: PrivacyPlan | NonPrivatePlan
    state: LedgerState

    def reserve(self, first_step: int, steps: int) -> Granted | Refused:
        """Charge a block; without privacy there is nothing to charge."""
        if isinstance(self.plan, NonPrivatePlan):
            return Granted(epsilon=0.0, rdp=NOTHING, alert=False)
        self.state, answer = reserve(
            self.state,
            reservation_id=str(first_step),
            fingerprint="",
            step_rdp=release_rdp(self.plan.mechanism()),
            steps=steps,
            releases=int(first_step == 0) if self.plan.mode.is_single_pass else steps,
            epsilon_ceiling=self.plan.epsilon_ceiling,
            delta=self.plan.delta,
        )
        return answer


def outcome(samples: Sequence[tuple[Record, AcceptedSample]], run: Run, cache: Path) -> dict[str, object]:
    """Train one adapter and return what it costs and how well it predicts."""
    started = time.monotonic()
    language_model = load_model(DEFAULT_MODEL, cache_folder=cache)
    data = sealed(samples, language_model, run)
    plan = planned(run, data.manifest.counts.train)
    model = add_adapter(language_model.model, LoraSettings())
    with tempfile.TemporaryDirectory() as folder:
        train(
            model=model,
            examples=data.train,
            pad_token_id=language_model.tokenizer.pad_token_id,
            plan=plan,
            learning_rate=run.optimizer.learning_rate,
            randomness=Randomness.secure(),
            reserve=Ledger(plan, LedgerState()).reserve,
            on_block=lambda _step: None,
            should_stop=lambda: False,
            checkpoints=Checkpoints(folder=Path(folder)),
            units=data.units,
        )
    found = measure_prediction(model=model, texts=data.held_out, pad_token_id=language_model.tokenizer.pad_token_id)
    return {**_row(run, plan, found), "seconds": round(time.monotonic() - started)}


def _row(run: Run, plan: PrivacyPlan | NonPrivatePlan, found: Prediction) -> dict[str, object]:
    calls, call_tokens = found.call_accuracy, found.call_token_accuracy
    return {
        "epsilon": run.epsilon,
        "mode": plan.mode.value if isinstance(plan, PrivacyPlan) else "without privacy",
        "spent": round(plan.epsilon_planned, 3) if isinstance(plan, PrivacyPlan) else None,
        "noise_multiplier": round(plan.noise_multiplier, 4) if isinstance(plan, PrivacyPlan) else 0.0,
        "batch": run.optimizer.expected_batch_size,
        "steps": run.optimizer.steps,
        "learning_rate": run.optimizer.learning_rate,
        "texts": found.texts,
        "perplexity_base": round(found.perplexity.base, 3),
        "perplexity": round(found.perplexity.adapted, 3),
        "accuracy_base": round(found.token_accuracy.base, 4),
        "accuracy": round(found.token_accuracy.adapted, 4),
        "calls_base": calls and round(calls.base, 4),
        "calls": calls and round(calls.adapted, 4),
        "call_tokens_base": call_tokens and round(call_tokens.base, 4),
        "call_tokens": call_tokens and round(call_tokens.adapted, 4),
    }


def main() -> None:
    """Print one JSON object for each epsilon."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epsilons", nargs="+", default=["1", "2", "4", "8", "none"], help="numbers, or none")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=float, default=6.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--mode", choices=list(PrivacyMode), default=PrivacyMode.SEALED_POISSON)
    arguments = parser.parse_args()
    optimizer = OptimizerSettings(
        steps=arguments.steps, expected_batch_size=arguments.batch, learning_rate=arguments.learning_rate
    )
    samples = accepted(SAMPLES)
    for epsilon in arguments.epsilons:
        run = Run(
            epsilon=None if epsilon == "none" else float(epsilon), mode=PrivacyMode(arguments.mode), optimizer=optimizer
        )
        print(json.dumps(outcome(samples, run, Settings.read().cache_folder)), flush=True)


if __name__ == "__main__":
    main()
