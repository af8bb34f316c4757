"""One training session as a process of its own: `python -m ctrainer.streams.training_session`.

The first line on standard input is the assignment; the end of standard input means that the trainer is gone: then the
session stops as if it was asked to. Started by torchrun, or with its environment (`ctrainer.streams.rank_group`), the
first rank does this and leads; the others only compute.
Exit codes: 0 the session has ended, or was asked to stop and can go on later; 75 another process has it; 69 Kafka is
out of reach; 74 there is no room for a checkpoint; anything else is a crash.
"""

import logging
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event, Thread
from typing import TextIO

import torch
from aiokafka.errors import KafkaError
from torch import distributed

from ctrainer.schemas.adapters import AdapterPublished
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.privacy import NoMechanism, PrivacyMode
from ctrainer.schemas.training import SessionChecked, SessionState, TrainAdapter, TrainingAssignment
from ctrainer.streams.active_constitution import constitution_of, reference_in_force
from ctrainer.streams.following_rank import follow
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.keyring import read_signing_key
from ctrainer.streams.location import locate
from ctrainer.streams.logs import configure_logs
from ctrainer.streams.loop_thread import LoopThread
from ctrainer.streams.session_channel import LedgerAnswer, SessionChannel, SessionFencedError, SessionStoppedError
from ctrainer.streams.session_data import SessionData, encode_members, read_dataset
from ctrainer.streams.session_folder import exclusive, session_folder
from ctrainer.streams.session_release import SessionRelease
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.training_plan import NO_ROOM, TAKEN_OVER, UNREACHABLE
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.computation import placed
from ctrainer.trainer.errors import CheckpointNotSavedError, NothingToLearnError, PlanViolatedError
from ctrainer.trainer.live_pace import LivePace
from ctrainer.trainer.loop import TrainingEnd, TrainingOutcome, train
from ctrainer.trainer.models import LanguageModel, load_model
from ctrainer.trainer.plan import NonPrivatePlan, PrivacyPlan
from ctrainer.trainer.probes import Probes
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.ranks import OneRank, Ranks, TorchRanks
from ctrainer.trainer.training_checks import Snapshot, TrainingChecks

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class SessionProcess:
    """Takes one session from wherever it is to its end, or to the next stop."""

    settings: Settings
    assignment: TrainingAssignment
    channel: SessionChannel
    loop: LoopThread
    stop: Event
    ranks: Ranks
    _told: Future[None] | None = field(default=None, init=False)

    def run(self) -> None:
        """Train, evaluate and publish; a mistake that no restart can mend ends the session as failed.

        So does a step that was not what plan and grants say; that one is a violation, and told to the ledger too.

        Raises:
            CheckpointNotSavedError: there is no room for a checkpoint; the session goes on when there is.
        """
        try:
            self._run()
        except CheckpointNotSavedError:
            raise
        except PlanViolatedError as error:
            violated = self.channel.violated(self._step(), reason=error.reason, message=str(error))
            self.loop.run(violated)
        except ConstitutionalTrainerError as error:
            reason = getattr(error, "reason", "training-failed")
            _LOG.error("session %s failed: %s: %s", self.assignment.session_id, reason, error)
            self.loop.run(self.channel.advanced(SessionState.FAILED, self._step(), reason=reason, message=str(error)))

    def _run(self) -> None:
        self.loop.run(self.channel.advanced(SessionState.STARTED, self._step()))
        release = self._release()
        manifest, samples = self.loop.run(read_dataset(self.channel.reader, self.assignment.request))
        self.ranks.decide(lambda: self.assignment)
        language_model = load_model(self.assignment.request.base_model, cache_folder=self.settings.cache_folder)
        data = encode_members(manifest, samples, language_model, self.assignment.request)
        adapted, outcome = self._train(language_model, data, release)
        if outcome.end is TrainingEnd.HALTED:
            ending = self.channel.advanced(
                SessionState.HALTED, outcome.step, reason=outcome.reason, message=outcome.message
            )
            self.loop.run(ending)
        if outcome.end is TrainingEnd.COMPLETED:
            self._conclude(release, adapted, data, outcome.step)
        if outcome.end is TrainingEnd.STOPPED and not self.stop.is_set():
            message = "two checks in a row: far fewer answers are accepted, or far more alike, than without the adapter"
            self.loop.run(
                self.channel.advanced(SessionState.REJECTED, outcome.step, reason="collapsed", message=message)
            )
        elif outcome.end is TrainingEnd.STOPPED:
            self.loop.run(self.channel.settle(outcome.step))

    def _train(
        self, language_model: LanguageModel, data: SessionData, release: SessionRelease
    ) -> tuple[LanguageModel, TrainingOutcome]:
        request = self.assignment.request
        randomness = _randomness(request)
        model = add_adapter(placed(language_model.model, own_device()), request.lora)
        checkpoints = self._checkpoints()
        found = checkpoints.newest()
        if found.corrupt:
            _LOG.warning("corrupt checkpoints at steps %s were passed over", found.corrupt)
        began = found.checkpoint.step if found.checkpoint else 0
        checks = release.checks(replace(language_model, model=model))
        plan, examples, units = self.ranks.decide(lambda: (plan_of(self.assignment), data.train, data.units))
        outcome = train(
            model=model,
            examples=examples,
            pad_token_id=language_model.tokenizer.pad_token_id,
            plan=plan,
            learning_rate=request.optimizer.learning_rate,
            randomness=randomness,
            reserve=self._reserve,
            on_block=partial(self._on_block, checks, began),
            should_stop=lambda: checks.collapsed or self.stop.is_set(),
            checkpoints=checkpoints,
            start=found.checkpoint,
            units=units,
            granted_before=self.channel.granted_before,
            on_step=self._live(found.checkpoint.step if found.checkpoint else 0),
            ranks=self.ranks,
        )
        self.ranks.leave()
        self._heard()
        return replace(language_model, model=model), outcome

    def _reserve(self, first_step: int, steps: int) -> LedgerAnswer:
        return self.loop.run(self.channel.reserve(first_step, steps))

    def _on_block(self, checks: TrainingChecks, began: int, step: int) -> None:
        """Tell of a block while the next one runs; what went wrong with the block before is raised here.

        Now and then the model is looked at: one that has collapsed is trained no further. One that is trained without
        privacy is not: what it says is not free to publish.
        """
        self._heard()
        self._told = self.loop.begin(self.channel.advanced(SessionState.TRAINING, step))
        private = not isinstance(self.assignment.mechanism, NoMechanism)
        found = checks.after(step - began) if private and step < self.assignment.steps else None
        if found is not None:
            self._heard()
            self._told = self.loop.begin(self.channel.checked(self._checked(found, step)))

    def _checked(self, found: Snapshot, step: int) -> SessionChecked:
        return SessionChecked(
            session_id=self.assignment.session_id,
            tenant=self.assignment.tenant,
            step=step,
            prompts=found.prompts,
            compliance=found.compliance.adapted,
            base_compliance=found.compliance.base,
            distinct_2=found.distinct_2.adapted,
            base_distinct_2=found.distinct_2.base,
            probes_digest=Probes.packaged().digest,
        )

    def _live(self, first: int) -> Callable[[int], None]:
        """Return what tells of steps now and then: without waiting, and never while the last telling goes on."""
        pace, telling = LivePace(began=time.monotonic(), first=first), list[Future[None]]()

        def on_step(step: int) -> None:
            now = time.monotonic()
            if all(told.done() for told in telling) and pace.is_due(now):
                speed = pace.steps_per_second(step, now)
                telling[:] = [self.loop.begin(self.channel.progressed(step, steps_per_second=speed))]

        return on_step

    def _heard(self) -> None:
        told, self._told = self._told, None
        if told is not None:
            told.result()

    def _release(self) -> SessionRelease:
        """Return what decides about the adapter: all that can be wrong with it is found before anything is spent."""
        key = self.settings.receipt_key
        constitution = constitution_of(self.channel.constitution, self.settings, self.channel.reader)
        return SessionRelease(
            adapters=self.settings.state_folder / "adapters",
            assignment=self.assignment,
            constitution=self.loop.run(constitution),
            key=read_signing_key(key) if key else None,
        )

    def _conclude(self, release: SessionRelease, adapted: LanguageModel, data: SessionData, step: int) -> None:
        """Release the adapter, or leave it in quarantine, and say so."""
        if self.channel.spent is None:
            raise NothingToLearnError("the session completed without any grant in the privacy ledger")
        adapter = release.conclude(adapted, data, step=step, guarantee=self.channel.spent)
        if isinstance(adapter, AdapterPublished):
            self.loop.run(self.channel.published(adapter, step))
        else:
            self.loop.run(self.channel.rejected(adapter, step))

    def _step(self) -> int:
        """Return the step of the newest checkpoint: where the session is."""
        return max(self._checkpoints().steps(), default=0)

    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(folder=session_folder(self.settings, self.assignment.session_id) / "checkpoints")


def plan_of(assignment: TrainingAssignment) -> PrivacyPlan | NonPrivatePlan:
    """Return the plan of an assignment."""
    mechanism, request = assignment.mechanism, assignment.request
    if isinstance(mechanism, NoMechanism):
        return NonPrivatePlan(
            sampling_rate=mechanism.sampling_rate,
            expected_batch_size=mechanism.expected_batch_size,
            steps=assignment.steps,
            whole_users=request.privacy.whole_users,
        )
    return PrivacyPlan(
        noise_multiplier=mechanism.noise_multiplier,
        sampling_rate=mechanism.sampling_rate,
        expected_batch_size=mechanism.expected_batch_size,
        clip_norm=mechanism.clip_norm,
        steps=assignment.steps,
        delta=request.privacy.delta,
        epsilon_ceiling=request.privacy.epsilon,
        epsilon_planned=assignment.epsilon_planned or 0.0,
        mode=PrivacyMode(mechanism.mode),
        unit=mechanism.unit,
        adjacency=mechanism.adjacency,
        records_per_user=mechanism.records_per_user,
        whole_users=mechanism.whole_users,
        bands=mechanism.bands,
    )


def _randomness(request: TrainAdapter) -> Randomness:
    """Return the random stream of a session; a seeded one also fixes the adapter's first weights."""
    seed = request.privacy.unsafe_seed
    if seed is None:
        return Randomness.secure()
    torch.manual_seed(seed)
    return Randomness.unsafe_from_seed(seed)


def own_device() -> torch.device:
    """Return the GPU of this rank, by its number on this machine; the CPU where there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", distributed.get_node_local_rank(fallback_rank=0))


def join_ranks() -> Ranks:
    """Meet the other ranks, where torchrun or a rank group started this process."""
    if not distributed.is_torchelastic_launched():
        return OneRank()
    device = own_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return TorchRanks.join(device)


def main() -> int:
    """Run the session that standard input names, or take part in it; return the exit code."""
    configure_logs()
    settings = Settings.read()
    ranks = join_ranks()
    if isinstance(ranks, TorchRanks) and not ranks.leads:
        follow(settings, ranks)
        ranks.leave()
        return 0
    return _lead(settings, ranks)


def _lead(settings: Settings, ranks: Ranks) -> int:
    line = sys.stdin.readline()
    if not line:
        # The trainer went before it said whose session this is.
        return 0
    assignment = TrainingAssignment.from_json(line.encode())
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Thread(target=_stop_at_end_of, args=(sys.stdin, stop), daemon=True).start()
    with exclusive(session_folder(settings, assignment.session_id)) as free, LoopThread() as loop:
        if not free:
            return TAKEN_OVER
        try:
            return _serve(settings, assignment, loop, stop, ranks)
        except SessionFencedError:
            _LOG.warning("session %s was taken over by another process", assignment.session_id)
            return TAKEN_OVER
        except CheckpointNotSavedError as error:
            _LOG.warning("session %s: %s", assignment.session_id, error)
            return NO_ROOM
        except KafkaError as error:
            _LOG.warning("session %s: Kafka is out of reach: %s", assignment.session_id, type(error).__name__)
            return UNREACHABLE


def _serve(settings: Settings, assignment: TrainingAssignment, loop: LoopThread, stop: Event, ranks: Ranks) -> int:
    location = locate(settings)
    topics = TopicReader(bootstrap_servers=location.bootstrap_servers, security=client_security(settings))
    reference = loop.run(reference_in_force(settings, topics))
    opened = SessionChannel.open(settings, location, assignment, reference, should_stop=stop.is_set)
    channel = loop.run(opened)
    try:
        SessionProcess(
            settings=settings, assignment=assignment, channel=channel, loop=loop, stop=stop, ranks=ranks
        ).run()
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
