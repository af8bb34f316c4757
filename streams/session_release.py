"""The end of a training session: evaluated, judged by the release gate, stored, and receipted."""

import importlib.metadata
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ctrainer.agents.answer_judge import AnswerJudge
from ctrainer.schemas.adapters import AdapterPublished, AdapterRejected
from ctrainer.schemas.constitution import Constitution
from ctrainer.schemas.identity import content_digest, event_id
from ctrainer.schemas.privacy import NoGuarantee, PrivacyGuarantee
from ctrainer.schemas.receipt import AdapterReceipt, SignedStatement, state_receipt
from ctrainer.schemas.training import TrainingAssignment
from ctrainer.streams.adapter_files import beside
from ctrainer.streams.keyring import SigningKey
from ctrainer.streams.session_data import SessionData
from ctrainer.trainer.adapter import file_digests
from ctrainer.trainer.adapter_store import StoredAdapter, store_adapter
from ctrainer.trainer.base_answers import KnownAnswers, answers_file
from ctrainer.trainer.durability import write_durably
from ctrainer.trainer.evaluation import Prediction, measure_prediction
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.probes import ANSWER_TOKENS, Probes, base_probe_answers, measure_probes, probe_answers
from ctrainer.trainer.release_gate import GateVerdict, judge_release, publishable
from ctrainer.trainer.training_checks import TrainingChecks


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRelease:
    """Decides what becomes of the adapter of one session. Without a `key` its receipt is unsigned."""

    adapters: Path
    assignment: TrainingAssignment
    constitution: Constitution
    key: SigningKey | None
    judge: AnswerJudge = field(init=False)
    probes: Probes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "judge", AnswerJudge(self.constitution))
        object.__setattr__(self, "probes", Probes.packaged())

    def base_answers(self, language_model: LanguageModel) -> KnownAnswers:
        """Return the answers of the model without its adapter: kept in files, as sessions share base models."""
        model, tokenizer = language_model.model, language_model.tokenizer
        file = answers_file(self.adapters.parent / "base-answers", model, tokenizer, tokens=ANSWER_TOKENS)
        return KnownAnswers(partial(base_probe_answers, model, tokenizer), file)

    def checks(self, language_model: LanguageModel) -> TrainingChecks:
        """Return the checks of a peft model while it trains: harmless and harmful prompts, mixed."""
        harmless = [question.prompt for question in self.probes.harmless]
        prompts = sorted([*harmless, *self.probes.harmful], key=lambda prompt: content_digest(prompt.encode()))
        return TrainingChecks(
            prompts=prompts,
            answer=partial(probe_answers, language_model.model, language_model.tokenizer),
            base=self.base_answers(language_model),
            judge=self.judge,
        )

    def conclude(
        self, language_model: LanguageModel, data: SessionData, *, step: int, guarantee: PrivacyGuarantee | NoGuarantee
    ) -> AdapterPublished | AdapterRejected:
        """Evaluate the adapter of `language_model`, a peft model, and store it: released, or in quarantine.

        Beside its folder lie its evaluation (private numbers: for the operator only) and, when it is released, its
        receipt and the list of the members of its dataset. `guarantee` is what its budget scope has spent, if anything
        is promised at all.
        """
        judge, probes = self.judge, self.probes
        held_out = _held_out(language_model, data)
        outcome = measure_probes(
            model=language_model.model,
            tokenizer=language_model.tokenizer,
            probes=probes,
            judge=judge,
            base_answers=self.base_answers(language_model),
        )
        verdict = judge_release(held_out=held_out, probes=outcome)
        stored = store_adapter(language_model.model, self._place(released=verdict.passed))
        write_durably(beside(stored.folder, "evaluation"), evaluation_json(held_out, verdict))
        receipt = AdapterReceipt(
            **self._request(),
            adapter_digest=stored.digest,
            dataset_id=data.manifest.dataset_id,
            membership_digest=data.manifest.membership_digest,
            members_digest=content_digest(data.membership.to_json()),
            policy_revision=judge.policy_revision,
            steps=step,
            guarantee=guarantee,
            release=publishable(verdict, probes_digest=probes.digest),
        )
        return self._published(receipt, stored, data) if verdict.passed else _rejected(receipt)

    def _place(self, *, released: bool) -> Path:
        return (self.adapters if released else self.adapters / "quarantine") / self._adapter_id()

    def _adapter_id(self) -> str:
        return event_id(f"sessions/{self.assignment.session_id}", "adapter")

    def _request(self) -> dict[str, Any]:
        """Return what a receipt says of what was asked for."""
        return {
            "adapter_id": self._adapter_id(),
            "session_id": self.assignment.session_id,
            "tenant": self.assignment.tenant,
            "base_model": self.assignment.request.base_model,
            "mechanism": self.assignment.mechanism,
            "unsafe_unsigned_request": self.assignment.unsafe_unsigned,
            "constitution": self.constitution.reference(),
            "code_version": importlib.metadata.version("constitutional-trainer"),
        }

    def _published(self, receipt: AdapterReceipt, stored: StoredAdapter, data: SessionData) -> AdapterPublished:
        statement = self._signed(receipt, stored.folder)
        write_durably(beside(stored.folder, "members"), data.membership.to_json())
        write_durably(beside(stored.folder, "receipt"), statement.to_json())
        return AdapterPublished(
            adapter_id=receipt.adapter_id,
            session_id=receipt.session_id,
            tenant=receipt.tenant,
            path=str(stored.folder),
            digest=stored.digest,
            base_model=receipt.base_model,
            dataset_id=receipt.dataset_id,
            workloads=data.manifest.workloads,
            membership_digest=receipt.membership_digest,
            steps=receipt.steps,
            guarantee=receipt.guarantee,
            constitution=receipt.constitution,
            code_version=receipt.code_version,
            release=receipt.release,
            receipt=statement,
        )

    def _signed(self, receipt: AdapterReceipt, folder: Path) -> SignedStatement:
        files = file_digests(folder)
        if self.key is None:
            return state_receipt(receipt, files)
        return state_receipt(receipt, files, key_id=self.key.key_id, private_key=self.key.private_key)


def _held_out(language_model: LanguageModel, data: SessionData) -> Prediction | None:
    if not data.held_out:
        return None
    padding = language_model.tokenizer.pad_token_id
    return measure_prediction(model=language_model.model, texts=data.held_out, pad_token_id=padding)


def _rejected(receipt: AdapterReceipt) -> AdapterRejected:
    return AdapterRejected(
        adapter_id=receipt.adapter_id,
        session_id=receipt.session_id,
        tenant=receipt.tenant,
        digest=receipt.adapter_digest,
        base_model=receipt.base_model,
        dataset_id=receipt.dataset_id,
        steps=receipt.steps,
        release=receipt.release,
    )


def evaluation_json(held_out: Prediction | None, verdict: GateVerdict) -> bytes:
    """Return what is written beside an adapter. It is not private and never published."""
    document = {
        "private": False,
        "warning": "computed from held-out private records without noise: do not publish",
        "perplexity": held_out.perplexity if held_out else None,
        "token_accuracy": held_out.token_accuracy if held_out else None,
        "call_accuracy": held_out.call_accuracy if held_out else None,
        "call_token_accuracy": held_out.call_token_accuracy if held_out else None,
        "checks": verdict.checks,
    }
    return orjson.dumps(document)
