"""The records of a training session: from the manifest that a request names to encoded members."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ctrainer.agents.events import read_event
from ctrainer.agents.sealing import members, read_samples
from ctrainer.schemas.datasets import DatasetSealed
from ctrainer.schemas.membership import Member, Membership
from ctrainer.schemas.samples import AcceptedSample
from ctrainer.schemas.topics import DATASETS_SEALED
from ctrainer.schemas.training import TrainAdapter
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.trainer.batches import Unit
from ctrainer.trainer.errors import DatasetChangedError, NothingToLearnError
from ctrainer.trainer.evaluation import Text
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.tokenization import EncodedExample, Span, call_spans, encode

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionData:
    """A dataset: its manifest, who is in it, and those of its records, encoded, that have a token to learn.

    `units` are what batches of `train` are made of: each record, or all records of each user.
    """

    manifest: DatasetSealed
    membership: Membership
    train: Sequence[EncodedExample]
    units: Sequence[Unit]
    held_out: Sequence[Text]


async def read_dataset(reader: TopicReader, request: TrainAdapter) -> tuple[DatasetSealed, list[AcceptedSample]]:
    """Return the manifest that a request names, and the samples of its frozen ranges.

    Raises:
        DatasetChangedError: the manifest is gone.
        PrunedRangeError: retention removed samples of the ranges.
    """
    async for record in reader.read_topic(DATASETS_SEALED):
        manifest = read_event(record.value, DatasetSealed)
        if (manifest.tenant, manifest.dataset_id) == (request.tenant, request.dataset_id):
            found = await read_samples(
                reader.read_ranges(manifest.ranges),
                tenant=manifest.tenant,
                workloads=manifest.workloads,
                since=manifest.accepted_since,
            )
            return manifest, [sample for _, sample in found]
    raise DatasetChangedError(f"dataset {request.dataset_id}: its manifest is no longer on {DATASETS_SEALED}")


def encode_members(
    manifest: DatasetSealed, samples: Sequence[AcceptedSample], language_model: LanguageModel, request: TrainAdapter
) -> SessionData:
    """Return the encoded members of a dataset.

    Raises:
        DatasetChangedError: the samples are not those that were sealed.
        NothingToLearnError: no record has a token to learn within `max_tokens`.
        UnusableTemplateError: the model has no chat template to render records with.
    """
    train, held_out = members(manifest, samples)
    encoded = list(_encoded(train, language_model, request))
    if left_out := len(train) - len(encoded):
        _LOG.warning(
            "%d of %d records: no token to learn, or the chat template does not take them", left_out, len(train)
        )
    data = SessionData(
        manifest=manifest,
        membership=Membership(
            dataset_id=manifest.dataset_id, train=tuple(_members(train)), held_out=tuple(_members(held_out))
        ),
        train=[example for _, example in encoded],
        units=units_of([sample for sample, _ in encoded], whole_users=request.privacy.whole_users),
        held_out=[
            Text(example=example, calls=_calls(sample, language_model, request))
            for sample, example in _encoded(held_out, language_model, request)
        ],
    )
    if not data.train:
        raise NothingToLearnError(
            f"no record has a token to learn within {request.optimizer.max_tokens} tokens, "
            "or the chat template of the base model takes none of them"
        )
    return data


def units_of(samples: Sequence[AcceptedSample], *, whole_users: bool) -> list[Unit]:
    """Return the units of training records, each named by what depends on nobody else: its content, or its user."""
    grouped: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        user = f"user {sample.user_digest}" if whole_users and sample.user_digest is not None else None
        grouped[user or f"record {sample.content_digest}"].append(index)
    return [Unit(identity=identity, examples=tuple(indices)) for identity, indices in grouped.items()]


def _members(samples: Iterable[AcceptedSample]) -> Iterator[Member]:
    return (Member(sample_id=sample.sample_id, content_digest=sample.content_digest) for sample in samples)


def _encoded(
    samples: Sequence[AcceptedSample], language_model: LanguageModel, request: TrainAdapter
) -> Iterator[tuple[AcceptedSample, EncodedExample]]:
    for sample in samples:
        example = encode(
            [message.model_dump(mode="json") for message in sample.messages],
            sample.tools,
            language_model.tokenizer,
            objective=request.objective,
            max_tokens=request.optimizer.max_tokens,
        )
        if example is not None:
            yield sample, example


def _calls(
    sample: AcceptedSample, language_model: LanguageModel, request: TrainAdapter
) -> tuple[tuple[Span, ...], ...]:
    return call_spans(
        [message.model_dump(mode="json") for message in sample.messages],
        sample.tools,
        language_model.tokenizer,
        max_tokens=request.optimizer.max_tokens,
    )
