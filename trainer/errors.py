"""What can go wrong in training, as a person can mend it."""

from ctrainer.schemas.errors import ConstitutionalTrainerError


class TrainingError(ConstitutionalTrainerError):
    """A training session cannot go on. `reason` is its machine-readable code."""

    reason = "training-failed"


class UnknownModelError(TrainingError):
    """The base model is neither the default one, nor a local folder, nor loadable by its name."""

    reason = "unknown-model"


class UnusableTemplateError(TrainingError):
    """The base model has no chat template, or one that does not render a question and its answer."""

    reason = "unusable-template"


class UnsupportedAdapterError(TrainingError):
    """The adapter has trainable parameters whose per-sample gradients are not covered, or targets that do not exist."""

    reason = "unsupported-adapter"


class NotTrainingError(TrainingError):
    """The live-training proof failed: weights do not move, gradients are not real, or noise is absent."""

    reason = "not-training"


class PlanViolatedError(TrainingError):
    """A session did what its plan or its grants do not allow, and was stopped. The message holds no private number."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CorruptCheckpointError(TrainingError):
    """A checkpoint's files differ from its manifest, or are those of another adapter."""

    reason = "corrupt-checkpoint"


class CheckpointNotSavedError(TrainingError):
    """A checkpoint could not be written. The older ones are as they were."""

    reason = "checkpoint-not-saved"


class OutOfMemoryError(TrainingError):
    """Not even one record at a time fits into the memory of the device."""

    reason = "out-of-memory"


class DatasetChangedError(TrainingError):
    """The sealed ranges no longer hold the records that were sealed."""

    reason = "dataset-changed"


class NothingToLearnError(TrainingError):
    """After tokenisation no record has a token to learn from."""

    reason = "nothing-to-learn"
