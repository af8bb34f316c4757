from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ctrainer.agents.events import event_record
from ctrainer.agents.records import Record
from ctrainer.agents.sealing import seal
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.datasets import DatasetSealed, SelectionRules
from ctrainer.schemas.privacy import PrivacyUnit
from ctrainer.schemas.samples import AcceptedSample, ChatMessage, SourceReference, digest_of_conversation
from ctrainer.schemas.training import OptimizerSettings, PrivacySettings, TrainAdapter
from ctrainer.streams.session_data import encode_members, read_dataset
from ctrainer.streams.topic_reader import PrunedRangeError
from ctrainer.trainer.errors import DatasetChangedError, NothingToLearnError
from ctrainer.trainer.models import LanguageModel, load_model
from ctrainer.trainer.tiny_model import save_tiny_model

CONSTITUTION = ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:ab")


def sample(number: int, *, user: str | None = None) -> AcceptedSample:
    turns = (
        ChatMessage(role="user", content=f"question {number}"),
        ChatMessage(role="assistant", content=f"answer {number}"),
    )
    return AcceptedSample(
        sample_id=f"s{number}",
        tenant="acme",
        workload_id="chat",
        source=SourceReference(topic="flywheel.samples", partition=0, offset=number),
        logged_at=0,
        conversation_id=f"c{number}",
        user_digest=user,
        messages=turns,
        content_digest=digest_of_conversation(turns, []),
        constitution=CONSTITUTION,
    )


def manifest_of(samples: Sequence[AcceptedSample]) -> DatasetSealed:
    records = [
        (Record("samples.accepted", 0, offset, 1, b"acme/chat", one.to_json()), one)
        for offset, one in enumerate(samples)
    ]
    return seal(records, tenant="acme", workloads=("chat",), rules=SelectionRules(held_out_share=0.0), because="count")


def request(**changes: Any) -> TrainAdapter:
    made = TrainAdapter(request_id=UUID(int=1), tenant="acme", dataset_id="d", constitution=CONSTITUTION)
    return made.model_copy(update=changes)


class Kept:
    """A Kafka that kept one manifest, or none, and lost the samples before an offset."""

    def __init__(self, manifest: DatasetSealed | None, *, first: int = 0) -> None:
        self.manifest, self.first = manifest, first

    async def read_topic(self, topic: str, partition: int | None = None) -> AsyncIterator[Record]:
        del partition
        if self.manifest is not None:
            cause = Record("training.requests", 0, 0, 1, None, None)
            key = f"acme/{self.manifest.dataset_id}"
            sent = event_record(topic=topic, key=key, data=self.manifest, cause=cause, constitution=CONSTITUTION)
            yield Record(topic, 0, 0, 1, sent.key, sent.value)

    async def read_ranges(self, ranges: Sequence[object]) -> AsyncIterator[Record]:
        del ranges
        if self.first > 0:
            raise PrunedRangeError("starts at 0")
        kept: list[Record] = []
        for record in kept:
            yield record


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("model")
    return load_model(str(save_tiny_model(folder / "tiny", seed=1)), cache_folder=Path(folder))


async def test_a_manifest_that_is_gone_ends_the_session_with_its_reason() -> None:
    with pytest.raises(DatasetChangedError, match="no longer on") as raised:
        await read_dataset(Kept(None), request())  # type: ignore[arg-type]
    assert raised.value.reason == "dataset-changed"


async def test_a_dataset_that_retention_has_pruned_ends_the_session_with_its_reason() -> None:
    manifest = manifest_of([sample(number) for number in range(5)])
    with pytest.raises(PrunedRangeError) as raised:
        await read_dataset(Kept(manifest, first=3), request(dataset_id=manifest.dataset_id))  # type: ignore[arg-type]
    assert raised.value.reason == "dataset-pruned"


def test_records_that_are_not_those_that_were_sealed_are_refused(language_model: LanguageModel) -> None:
    samples = [sample(number) for number in range(5)]
    with pytest.raises(DatasetChangedError):
        encode_members(manifest_of(samples), samples[:-1], language_model, request())


def test_a_dataset_without_a_token_to_learn_is_refused(language_model: LanguageModel) -> None:
    samples = [sample(number) for number in range(5)]
    short = request(optimizer=OptimizerSettings(max_tokens=8))
    with pytest.raises(NothingToLearnError, match="8 tokens") as raised:
        encode_members(manifest_of(samples), samples, language_model, short)
    assert raised.value.reason == "nothing-to-learn"


def test_a_record_is_known_by_its_content_and_not_by_its_place(language_model: LanguageModel) -> None:
    samples = [sample(number) for number in range(5)]
    whole = encode_members(manifest_of(samples), samples, language_model, request()).units
    without = encode_members(manifest_of(samples[1:]), samples[1:], language_model, request()).units
    assert [unit.examples for unit in whole] == [(index,) for index in range(5)]
    assert [unit.identity for unit in whole[1:]] == [unit.identity for unit in without]


def test_whole_users_hold_all_their_records(language_model: LanguageModel) -> None:
    samples = [sample(number, user=f"u{number % 2}") for number in range(5)]
    privacy = PrivacySettings(unit=PrivacyUnit.USER, whole_users=True)
    data = encode_members(manifest_of(samples), samples, language_model, request(privacy=privacy))
    assert [(unit.identity, unit.examples) for unit in data.units] == [("user u0", (0, 2, 4)), ("user u1", (1, 3))]
    assert (data.manifest.counts.users, data.manifest.counts.without_user) == (2, 0)
