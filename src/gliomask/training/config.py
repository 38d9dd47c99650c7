"""How to train: every choice of a run that a model file need not carry."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gliomask.errors import InputError
from gliomask.inference.windows import Precision
from gliomask.model.plan import Normalization

_LENGTHS = ("epochs", "steps", "budget_seconds")


class TrainConfig(BaseModel):
    """How to train; kept with the run for the record, never needed to predict.

    One of `epochs`, `steps` and `budget_seconds` says for how long, and the learning rate's schedule is fitted to it;
    without any of them it is 20 epochs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str = "fast"
    norm: Literal["instance", "batch", "none"] | None = None
    """The network's normalization; by default its own, which is instance for ours."""
    network_arguments: dict[str, Any] = Field(default_factory=dict)
    """Those of the network's class, for Python: `channels`, say. `norm` may stand in here as well."""
    modalities: tuple[str, ...] = ("t2f", "t1c", "t2w")
    cases: str | None = None
    """Where the cases or their cache are, so that the command can go on with a run without being told."""
    start_from: str | None = None
    """A model file whose weights to begin with; its sequences may be others."""

    epochs: int | None = Field(default=None, ge=1)
    """Times through the cases."""
    steps: int | None = Field(default=None, ge=1)
    budget_seconds: float | None = Field(default=None, gt=0)
    """By the clock: preparation, training and validation together, summed over the parts of a resumed run."""
    patience: int | None = Field(default=None, ge=1)
    """End after so many validations without a better one."""
    val_every: int | None = Field(default=None, ge=1)
    """Epochs from one validation to the next. By default 1, and under a time budget so that it takes a tenth of it."""

    patch_size: int = Field(default=128, ge=16)
    """The edge of the cubes it is trained on, in voxels; rounded up to what the network takes."""
    whole_brain: bool = False
    """Train on whole brains, one a step, rather than on patches; the model then predicts in one pass."""
    batch_size: int = Field(default=1, ge=1)
    """Patches a step, over all processes together."""
    accumulate: int = Field(default=1, ge=1)
    """In how many parts, one after another, a process takes its patches of a step; the result is the same."""
    patches_per_case: int = Field(default=1, ge=1)
    """How many patches of each case make an epoch."""
    loss: str = "dice+ce"
    lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    seed: int = Field(default=0, ge=0)
    min_tumour: float = Field(default=0.0, ge=0, lt=1)
    """A case whose whole tumour would fill less than this share of a patch is not trained on."""
    drop_modalities: float = Field(default=0.0, ge=0, lt=1)
    """The probability with which a patch loses each sequence; above 0 the model can predict without some."""
    normalization: Normalization = "zscore"
    augment: float = Field(default=1.0, ge=0, le=10)
    """How often patches are changed, as a multiple of the probabilities of `Augmentation`; 0: never."""
    transplant: float = Field(default=0.0, ge=0, le=1)
    """The probability with which a patch gets the tumour of another case as well."""
    histograms: float = Field(default=0.0, ge=0, le=1)
    """The probability with which a patch's intensities are moved towards those of another case, some of the way."""
    lesion_contrast: float = Field(default=0.0, ge=0, le=1)
    """The probability with which one of a patch's regions stands out less or more; see `augment.lesion`."""
    repeat_faint: int = Field(default=1, ge=1)
    """How many times an epoch a case is drawn that hardly enhances: ET is less than a fiftieth of TC, or not there."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Average the weights over the steps, so much of the average kept each step; the average is what is validated and
    saved as the model. 0: the weights as they are."""

    val_fraction: float = Field(default=0.25, ge=0, lt=1)
    """Of the patients, those kept for validation; 0: none. Not used with folds."""
    folds: int | None = Field(default=None, ge=2)
    """Cross-validation: how many folds there are ..."""
    fold: int = Field(default=0, ge=0)
    """... and which of them this run holds out, counted from 0."""

    device: str = "auto"
    precision: Precision = "auto"
    threads: int | None = Field(default=None, ge=1)
    workers: int | None = Field(default=None, ge=1)
    """Threads that draw patches ahead. By default 1, and on a GPU 2."""
    low_memory: bool = False
    """Keep fewer activations and compute them again on the way back: the same result, slower."""
    compiled: bool = False
    """Let torch compile the network."""
    tensorboard: bool = False
    """Also write the log for TensorBoard."""

    @model_validator(mode="before")
    @classmethod
    def _fill_length(cls, values: Any) -> Any:
        """Train for 20 epochs where nothing is said."""
        if isinstance(values, dict) and all(values.get(length) is None for length in _LENGTHS):
            return {**values, "epochs": 20}
        return values

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        said = [length for length in _LENGTHS if getattr(self, length) is not None]
        if len(said) > 1:
            raise ValueError(f"give one of {', '.join(_LENGTHS)}; got {' and '.join(said)}")
        if self.fold >= (self.folds or 1):
            raise ValueError(f"there is no fold {self.fold} of {self.folds or 1}; folds count from 0")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be taken in {self.accumulate} equal parts")
        if self.compiled and self.low_memory and self.norm == "batch":
            raise ValueError("--compile and --low-memory do not go together with --norm batch; leave one out")
        return self


FREE = {
    *(*_LENGTHS, "patience", "val_every"),
    *("cases", "device", "threads", "workers", "low_memory", "compiled", "tensorboard"),
}
"""Fields that a resumed run may have other values for."""


def make_config(**values: object) -> TrainConfig:
    """Return a config of these values, the others by default.

    Raises:
        InputError: A value is out of its range or of another kind; all that is wrong is said, by the option's name.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(_say(problem) for problem in error.errors())) from error


def _say(problem: Any) -> str:
    option = f"--{str(problem['loc'][0]).replace('_', '-')}: " if problem["loc"] else ""
    text = str(problem["msg"]).removeprefix("Value error, ")
    return f"{option}{text}"
