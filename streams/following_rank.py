"""A rank that follows: it never speaks to Kafka, and does what the leader tells it."""

from collections.abc import Sequence

from ctrainer.schemas.training import TrainingAssignment
from ctrainer.streams.settings import Settings
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.batches import Unit
from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.computation import placed
from ctrainer.trainer.loop import train
from ctrainer.trainer.models import load_model
from ctrainer.trainer.plan import NonPrivatePlan, PrivacyPlan
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.ranks import TorchRanks
from ctrainer.trainer.reservations import Answer
from ctrainer.trainer.tokenization import EncodedExample


class LeaderError(Exception):
    """A rank that follows was asked for a decision of the leader's."""


def follow(settings: Settings, ranks: TorchRanks) -> None:
    """Take part in one session, from the leader's assignment to the end of its training."""
    assignment = ranks.decide(_assignment)
    language_model = load_model(assignment.request.base_model, cache_folder=settings.cache_folder)
    model = add_adapter(placed(language_model.model, ranks.device), assignment.request.lora)
    plan, examples, units = ranks.decide(_work)
    train(
        model=model,
        examples=examples,
        pad_token_id=language_model.tokenizer.pad_token_id,
        plan=plan,
        learning_rate=assignment.request.optimizer.learning_rate,
        randomness=_randomness(seeded=assignment.request.privacy.unsafe_seed is not None),
        reserve=_reserve,
        on_block=_on_block,
        should_stop=_should_stop,
        checkpoints=Checkpoints(folder=settings.state_folder),
        ranks=ranks,
        units=units,
    )


def _randomness(*, seeded: bool) -> Randomness:
    """Return a stream that is never drawn from: its kind must be that of the leader's, which checkpoints tell."""
    return Randomness.unsafe_from_seed(0) if seeded else Randomness.secure()


def _assignment() -> TrainingAssignment:
    raise LeaderError


def _work() -> tuple[PrivacyPlan | NonPrivatePlan, Sequence[EncodedExample], Sequence[Unit] | None]:
    raise LeaderError


def _reserve(_first_step: int, _steps: int) -> Answer:
    raise LeaderError


def _on_block(_step: int) -> None:
    raise LeaderError


def _should_stop() -> bool:
    raise LeaderError
