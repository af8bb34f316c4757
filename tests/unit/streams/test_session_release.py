import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.schemas.adapters import AdapterPublished, AdapterRejected
from ctrainer.schemas.datasets import DatasetCounts, DatasetSealed, SelectionRules
from ctrainer.schemas.identity import content_digest
from ctrainer.schemas.membership import Member, Membership, Standing
from ctrainer.schemas.privacy import Accountant, Adjacency, PrivacyGuarantee, PrivacyUnit
from ctrainer.schemas.training import LoraSettings, Objective
from ctrainer.streams.adapter_files import beside
from ctrainer.streams.keyring import create_key, read_keyring, read_signing_key
from ctrainer.streams.receipt_verification import ReceiptVerifier, standing_of, verify_adapter
from ctrainer.streams.session_data import SessionData
from ctrainer.streams.session_release import SessionRelease
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.batches import Unit
from ctrainer.trainer.dataset import merkle_root
from ctrainer.trainer.evaluation import Text
from ctrainer.trainer.models import LanguageModel, load_model
from ctrainer.trainer.tiny_model import save_tiny_model
from ctrainer.trainer.tokenization import encode
from tests.assigned import assignment, request

CONSTITUTION = default_constitution()
SPENT = PrivacyGuarantee(
    epsilon=3.0, delta=1e-5, unit=PrivacyUnit.RECORD, adjacency=Adjacency.ADD_REMOVE, accountant=Accountant.RDP
)
DIGEST = content_digest(b"a record")
Adapted = Callable[[float], LanguageModel]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model", seed=1)


@pytest.fixture
def adapted(model_folder: Path, tmp_path: Path) -> Adapted:
    """Return the tiny model with an adapter whose outer weights are drawn this wide."""

    def make(width: float) -> LanguageModel:
        language_model = load_model(str(model_folder), cache_folder=tmp_path)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = add_adapter(language_model.model, LoraSettings(rank=2, alpha=4))
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    torch.nn.init.normal_(parameter, std=width)
        return replace(language_model, model=model)

    return make


@pytest.fixture
def release(tmp_path: Path) -> SessionRelease:
    path = create_key(folder=tmp_path / "keys", keyring=tmp_path / "ring.json", key_id="notary", tenants=("acme",))
    asked = request(constitution=CONSTITUTION.reference(), base_model="tiny")
    return SessionRelease(
        adapters=tmp_path / "adapters",
        assignment=assignment("session", request=asked, steps=12),
        constitution=CONSTITUTION,
        key=read_signing_key(path),
    )


def data_for(language_model: LanguageModel, *, held_out: int = 4) -> SessionData:
    chat = [{"role": "user", "content": "what is it?"}, {"role": "assistant", "content": "it is two"}]
    example = encode(chat, [], language_model.tokenizer, objective=Objective.SFT, max_tokens=128)
    assert example is not None
    manifest = DatasetSealed(
        dataset_id="d",
        tenant="acme",
        workloads=("chat",),
        ranges=(),
        accepted_since=None,
        rules=SelectionRules(),
        counts=DatasetCounts(read=1, duplicates=0, over_user_cap=0, train=1, held_out=0),
        membership_digest=merkle_root([DIGEST.encode()]),
        constitutions=(),
        sealed_because="command",
    )
    return SessionData(
        manifest=manifest,
        membership=Membership(dataset_id="d", train=(Member(sample_id="one", content_digest=DIGEST),), held_out=()),
        train=[example],
        units=[Unit(identity="one", examples=(0,))],
        held_out=[Text(example=example)] * held_out,
    )


def test_a_good_adapter_is_released_with_a_receipt_that_holds(
    release: SessionRelease, adapted: Adapted, tmp_path: Path
) -> None:
    language_model = adapted(1e-4)
    published = release.conclude(language_model, data_for(language_model), step=12, guarantee=SPENT)
    assert isinstance(published, AdapterPublished)
    assert published.release.passed
    folder = Path(published.path)
    read = ReceiptVerifier(requesters=read_keyring(tmp_path / "ring.json")).read(beside(folder, "receipt"))
    verify_adapter(read, folder)
    assert read.signer == "notary"
    assert read.receipt.guarantee == published.guarantee == SPENT
    assert read.receipt.release == published.release
    assert standing_of("one", read.receipt, beside(folder, "members")) is Standing.TRAINED


def test_a_ruined_adapter_stays_in_quarantine_without_a_receipt(release: SessionRelease, adapted: Adapted) -> None:
    language_model = adapted(3.0)
    rejected = release.conclude(language_model, data_for(language_model), step=12, guarantee=SPENT)
    assert isinstance(rejected, AdapterRejected)
    assert "probe-perplexity" in rejected.release.reasons
    (place,) = release.adapters.iterdir()
    assert place.name == "quarantine"
    assert not list(place.rglob("*.receipt.json"))
    assert len(list(place.rglob("adapter_model.safetensors"))) == 1


def test_no_private_number_leaves_the_machine(release: SessionRelease, adapted: Adapted) -> None:
    for width in (1e-4, 3.0):
        language_model = adapted(width)
        event = release.conclude(language_model, data_for(language_model), step=12, guarantee=SPENT)
        private = [check for check in event.release.checks if check.name.startswith("held-out-")]
        assert private
        assert all((check.got, check.expected, check.base) == (None, None, None) for check in private)
    (evaluation,) = release.adapters.glob("quarantine/*/*.evaluation.json")
    assert json.loads(evaluation.read_bytes())["perplexity"]["adapted"] > 1


def test_an_adapter_that_nothing_was_held_out_for_is_not_released(release: SessionRelease, adapted: Adapted) -> None:
    language_model = adapted(1e-4)
    rejected = release.conclude(language_model, data_for(language_model, held_out=0), step=12, guarantee=SPENT)
    assert isinstance(rejected, AdapterRejected)
    assert rejected.release.reasons == ("held-out-missing",)


def test_a_session_that_is_run_to_its_end_again_says_the_same(release: SessionRelease, adapted: Adapted) -> None:
    first, second = (
        release.conclude(language_model, data_for(language_model), step=12, guarantee=SPENT)
        for language_model in (adapted(1e-4), adapted(1e-4))
    )
    assert first.to_json() == second.to_json()
