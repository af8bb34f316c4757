"""One training session as a process of its own: `python -m ctrainer.streams.training_session`.

The first line on standard input is the assignment; the end of standard input means that the trainer is gone.
Exit codes: 0 the session has ended, or was asked to stop and can go on later; 75 another process has it; 69 Kafka is
out of reach; 74 there is no room for a checkpoint; anything else is a crash.
"""

import fcntl
import importlib.metadata
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

import orjson
import torch
from aiokafka.errors import KafkaError

from ctrainer.agents.events import read_event
from ctrainer.agents.sealing import members, read_samples
from ctrainer.schemas.adapters import AdapterPublished
from ctrainer.schemas.datasets import DatasetSealed
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.identity import event_id
from ctrainer.schemas.privacy import BudgetGranted, BudgetRefused
from ctrainer.schemas.samples import AcceptedSample
from ctrainer.schemas.topics import DATASETS_SEALED
from ctrainer.schemas.training import SessionState, TrainAdapter, TrainingAssignment
from ctrainer.streams.active_constitution import reference_in_force
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import locate
from ctrainer.streams.logs import configure_logs
from ctrainer.streams.loop_thread import LoopThread
from ctrainer.streams.session_channel import SessionChannel, SessionFencedError, SessionStoppedError
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.training_plan import NO_ROOM, TAKEN_OVER, UNREACHABLE
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.adapter_store import store_adapter
from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.errors import CheckpointNotSavedError, DatasetChangedError, NothingToLearnError
from ctrainer.trainer.evaluation import Perplexity, held_out_perplexity
from ctrainer.trainer.loop import TrainingEnd, TrainingOutcome, train
from ctrainer.trainer.models import LanguageModel, load_model
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tokenization import EncodedExample, encode

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The encoded records of a dataset."""

    train: list[EncodedExample]
    held_out: list[EncodedExample]


@dataclass(slots=True, kw_only=True)
class SessionProcess:
    """Takes one session from wherever it is to its end, or to the next stop."""

    settings: Settings
    assignment: TrainingAssignment
    channel: SessionChannel
    loop: LoopThread
    stop: Event

    def run(self) -> None:
        """Train, evaluate and publish; a mistake that no restart can mend ends the session as failed.

        Raises:
            CheckpointNotSavedError: there is no room for a checkpoint; the session goes on when there is.
        """
        try:
            self._run()
        except CheckpointNotSavedError:
            raise
        except ConstitutionalTrainerError as error:
            reason = getattr(error, "reason", "training-failed")
            self.loop.run(self.channel.advanced(SessionState.FAILED, self._step(), reason=reason, message=str(error)))

    def _run(self) -> None:
        self.loop.run(self.channel.advanced(SessionState.STARTED, self._step()))
        manifest, samples = self.loop.run(read_dataset(self.channel.reader, self.assignment.request))
        language_model = load_model(self.assignment.request.base_model, cache_folder=self.settings.cache_folder)
        splits = encode_members(manifest, samples, language_model, self.assignment.request)
        model, outcome = self._train(language_model, splits)
        if outcome.end is TrainingEnd.HALTED:
            ending = self.channel.advanced(
                SessionState.HALTED, outcome.step, reason=outcome.reason, message=outcome.message
            )
            self.loop.run(ending)
        if outcome.end is TrainingEnd.COMPLETED:
            padding = language_model.tokenizer.pad_token_id
            perplexity = held_out_perplexity(model=model, examples=splits.held_out, pad_token_id=padding)
            adapter = self._saved(model, manifest, perplexity, outcome.step)
            self.loop.run(self.channel.published(adapter, outcome.step))

    def _train(self, language_model: LanguageModel, splits: Splits) -> tuple[object, TrainingOutcome]:
        request = self.assignment.request
        randomness = _randomness(request)
        # The base model moves first: an adapter made before would be left behind, and never train.
        model = add_adapter(language_model.model.to(_device()), request.lora)
        checkpoints = self._checkpoints()
        found = checkpoints.newest()
        if found.corrupt:
            _LOG.warning("corrupt checkpoints at steps %s were passed over", found.corrupt)
        outcome = train(
            model=model,
            examples=splits.train,
            pad_token_id=language_model.tokenizer.pad_token_id,
            plan=plan_of(self.assignment),
            learning_rate=request.optimizer.learning_rate,
            randomness=randomness,
            reserve=self._reserve,
            on_block=self._on_block,
            should_stop=self.stop.is_set,
            checkpoints=checkpoints,
            start=found.checkpoint,
        )
        return model, outcome

    def _reserve(self, first_step: int, steps: int) -> BudgetGranted | BudgetRefused:
        return self.loop.run(self.channel.reserve(first_step, steps))

    def _on_block(self, step: int) -> None:
        self.loop.run(self.channel.advanced(SessionState.TRAINING, step))

    def _saved(
        self, model: object, manifest: DatasetSealed, perplexity: Perplexity | None, step: int
    ) -> AdapterPublished:
        """Save the adapter atomically, with its evaluation beside it, and return its registry entry."""
        adapter_id = event_id(f"sessions/{self.assignment.session_id}", "adapter")
        stored = store_adapter(model, self.settings.state_folder / "adapters" / adapter_id)
        evaluation_file(stored.folder).write_bytes(orjson.dumps(evaluation_of(perplexity)))
        spent = self.channel.spent
        if spent is None:
            raise NothingToLearnError("the session completed without any grant in the privacy ledger")
        return AdapterPublished(
            adapter_id=adapter_id,
            session_id=self.assignment.session_id,
            tenant=self.assignment.tenant,
            path=str(stored.folder),
            digest=stored.digest,
            base_model=self.assignment.request.base_model,
            dataset_id=manifest.dataset_id,
            membership_digest=manifest.membership_digest,
            steps=step,
            guarantee=spent,
            constitution=self.channel.constitution,
            code_version=importlib.metadata.version("constitutional-trainer"),
        )

    def _step(self) -> int:
        """Return the step of the newest checkpoint: where the session is."""
        return max(self._checkpoints().steps(), default=0)

    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(folder=session_folder(self.settings, self.assignment.session_id) / "checkpoints")


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
) -> Splits:
    """Return the encoded members of a dataset.

    Raises:
        DatasetChangedError: the samples are not those that were sealed.
        NothingToLearnError: no record has a token to learn within `max_tokens`.
    """
    train_members, held_out = members(manifest, samples)
    splits = Splits(
        train=list(_encoded(train_members, language_model, request)),
        held_out=list(_encoded(held_out, language_model, request)),
    )
    if not splits.train:
        raise NothingToLearnError(f"no record has a token to learn within {request.optimizer.max_tokens} tokens")
    return splits


def plan_of(assignment: TrainingAssignment) -> PrivacyPlan:
    """Return the privacy plan of an assignment."""
    mechanism = assignment.mechanism
    return PrivacyPlan(
        noise_multiplier=mechanism.noise_multiplier,
        sampling_rate=mechanism.sampling_rate,
        expected_batch_size=mechanism.expected_batch_size,
        clip_norm=mechanism.clip_norm,
        steps=assignment.steps,
        delta=assignment.request.privacy.delta,
        epsilon_ceiling=assignment.request.privacy.epsilon,
        epsilon_planned=assignment.epsilon_planned,
    )


def evaluation_of(perplexity: Perplexity | None) -> dict[str, object]:
    """Return what is written beside an adapter. It is not private and never published."""
    measured = None if perplexity is None else {"base": perplexity.base, "adapted": perplexity.adapted}
    return {
        "private": False,
        "warning": "computed from held-out private records without noise: do not publish",
        "perplexity": measured,
    }


def evaluation_file(adapter: Path) -> Path:
    """Return where the evaluation of an adapter is: beside its folder, so that it never travels with the adapter."""
    return adapter.with_name(f"{adapter.name}.evaluation.json")


def session_folder(settings: Settings, session_id: str) -> Path:
    """Return where a session keeps its checkpoints and its lock."""
    return settings.state_folder / "sessions" / session_id


def _encoded(
    samples: Sequence[AcceptedSample], language_model: LanguageModel, request: TrainAdapter
) -> Iterator[EncodedExample]:
    for sample in samples:
        example = encode(
            [message.model_dump(mode="json") for message in sample.messages],
            sample.tools,
            language_model.tokenizer,
            objective=request.objective,
            max_tokens=request.optimizer.max_tokens,
        )
        if example is not None:
            yield example


def _randomness(request: TrainAdapter) -> Randomness:
    """Return the random stream of a session; a seeded one also fixes the adapter's first weights."""
    seed = request.privacy.unsafe_seed
    if seed is None:
        return Randomness.secure()
    torch.manual_seed(seed)
    return Randomness.unsafe_from_seed(seed)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Hold the lock of a session's folder; yields whether it was free."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def main() -> int:
    """Run the session that standard input names; return the exit code."""
    configure_logs()
    settings = Settings.read()
    assignment = TrainingAssignment.from_json(sys.stdin.readline().encode())
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Thread(target=_stop_at_end_of, args=(sys.stdin, stop), daemon=True).start()
    with exclusive(session_folder(settings, assignment.session_id)) as free, LoopThread() as loop:
        if not free:
            return TAKEN_OVER
        try:
            return _serve(settings, assignment, loop, stop)
        except SessionFencedError:
            _LOG.warning("session %s was taken over by another process", assignment.session_id)
            return TAKEN_OVER
        except CheckpointNotSavedError as error:
            _LOG.warning("session %s: %s", assignment.session_id, error)
            return NO_ROOM
        except KafkaError as error:
            _LOG.warning("session %s: Kafka is out of reach: %s", assignment.session_id, type(error).__name__)
            return UNREACHABLE


def _serve(settings: Settings, assignment: TrainingAssignment, loop: LoopThread, stop: Event) -> int:
    location = locate(settings)
    topics = TopicReader(bootstrap_servers=location.bootstrap_servers, security=client_security(settings))
    reference = loop.run(reference_in_force(settings, topics))
    opened = SessionChannel.open(settings, location, assignment, reference, should_stop=stop.is_set)
    channel = loop.run(opened)
    try:
        SessionProcess(settings=settings, assignment=assignment, channel=channel, loop=loop, stop=stop).run()
    except SessionStoppedError:
        _LOG.info("session %s stopped while it waited for the ledger", assignment.session_id)
    finally:
        loop.run(channel.close())
    return 0


def _stop_at_end_of(stream: TextIO, stop: Event) -> None:
    """Stop the session when its trainer is gone."""
    stream.read()
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
