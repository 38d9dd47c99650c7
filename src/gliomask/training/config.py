"""How to train: every setting of a training run that a model file need not carry."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gliomask.errors import InputError, unknown_name
from gliomask.model.choices import Normalization, Precision
from gliomask.networks import NETWORKS
from gliomask.training.losses import LOSSES
from gliomask.training.options import Option, Panel, flag_of

_LENGTHS = ("epochs", "steps", "budget_seconds")
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def read_seconds(time: object) -> object:
    """Return the seconds in a text such as `2h`, `1h30m`, `90m`, `45s` or `1.5h`; a number is returned as it is.

    Raises:
        InputError: The text is no time with units. A bare number is refused, as it may mean any unit.
    """
    if not isinstance(time, str):
        return time
    compact = time.lower().replace(" ", "")
    if not re.fullmatch(r"(\d+(\.\d+)?(d|h|m|min|s))+", compact):
        raise InputError(f"--budget {time!r}: write a time such as 2h, 90m, 1h30m or 45s.")
    return sum(float(number) * _UNITS[unit[0]] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(d|h|min|m|s)", compact))


class TrainConfig(BaseModel):
    """How to train. It is stored with the run and never needed to predict.

    Each field stands here once, with its type, range, default and command-line option (`Option`), whose help text also
    documents the field. `gliomask train` builds its options from these fields.

    One of `epochs`, `steps` and `budget_seconds` sets the length, and the learning rate schedule is fitted to it;
    without any of them the length is 20 epochs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Annotated[str, Option(f"Network: {', '.join(NETWORKS)}.", Panel.TASK, names=lambda: list(NETWORKS))] = (
        "fast"
    )
    norm: Annotated[
        Literal["instance", "batch", "none"] | None,
        Option("Normalization layers: instance, batch or none. [the network's own]", Panel.TASK),
    ] = None
    network_arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the network's class, such as `channels`; from Python only. `norm` may be given here as well."""
    modalities: tuple[str, ...] = ("t2f", "t1c", "t2w")
    cases: str | None = None
    """The folder of the cases or of their cache, so that `gliomask train --resume` finds them again."""
    labels: str | None = None
    """The label convention of the masks, as for `resolve_conventions`; None: what the cases themselves tell."""
    start_from: Annotated[
        str | None,
        Option(
            "Begin with the weights of a model, also of nnU-Net; sequences may differ.",
            Panel.TASK,
            flag="--from",
            metavar="<path>",
        ),
    ] = None
    corrected: Annotated[
        str | None,
        Option(
            "Learn from the corrected masks (CASE_edited.nii.gz) in this folder, and compare with --from on held-out "
            "cases.",
            Panel.TASK,
            metavar="<path>",
        ),
    ] = None
    """The masks replace those of the cases; the other cases are trained on too, if they have masks."""

    epochs: Annotated[
        int | None, Field(ge=1), Option("How often training goes through all cases. [20]", Panel.LENGTH)
    ] = None
    steps: Annotated[int | None, Field(ge=1), Option("Instead of epochs: optimizer steps.", Panel.LENGTH)] = None
    budget_seconds: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False),
        BeforeValidator(read_seconds),
        Option("Instead of epochs: a time such as 2h, 90m, 1h30m or 45s.", Panel.LENGTH, flag="--budget", as_text=True),
    ] = None
    """Preparation, training and validation together, summed over the parts of a resumed run."""
    patience: Annotated[
        int | None, Field(ge=1), Option("Stop after N validations without improvement.", Panel.LENGTH)
    ] = None
    val_every: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "Epochs between validations. [1; with --budget: so many that validations take a tenth of the time]",
            Panel.LENGTH,
        ),
    ] = None

    patch_size: Annotated[
        int, Field(ge=16, le=1024), Option("Edge of the training patches, in voxels.", Panel.RESOURCES)
    ] = 128
    """Rounded up to a size that the network accepts."""
    whole_brain: Annotated[
        bool, Option("Train on whole brains instead of patches; the model then predicts in one pass.", Panel.RESOURCES)
    ] = False
    batch_size: Annotated[int, Field(ge=1), Option("Patches per step, over all processes.", Panel.LEARNING)] = 1
    accumulate: Annotated[
        int,
        Field(ge=1),
        Option("Process a step's patches in N parts, which needs less memory; same result.", Panel.RESOURCES),
    ] = 1
    patches_per_case: Annotated[int, Field(ge=1), Option("Patches of each case per epoch.", Panel.LENGTH)] = 1
    loss: Annotated[
        str, Option(f"Loss function: {' or '.join(LOSSES)}.", Panel.LEARNING, names=lambda: list(LOSSES))
    ] = "dice+ce"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False), Option("Highest learning rate (AdamW).", Panel.LEARNING)] = (
        1e-3
    )
    schedule: Annotated[
        Literal["cosine", "constant"], Option("Learning rate schedule: cosine or constant.", Panel.LEARNING)
    ] = "cosine"
    seed: Annotated[
        int, Field(ge=0, le=10**12), Option("Seed of the split, the initial weights and the patches.", Panel.LEARNING)
    ] = 0
    drop_modalities: Annotated[
        float,
        Field(ge=0, lt=1),
        Option("Probability of removing each sequence from a patch; above 0, cases may lack some.", Panel.LEARNING),
    ] = 0.0
    lone_modality: Annotated[
        float,
        Field(ge=0, lt=1),
        Option(
            "Probability of removing all sequences of a patch but one; needs --drop-modalities above 0.", Panel.LEARNING
        ),
    ] = 0.0
    """Needs `drop_modalities` above 0, which applies to the other patches."""
    partial_share: Annotated[
        float | None,
        Field(gt=0, lt=1),
        Option("Share of patches from cases whose masks label some regions only. [each case once]", Panel.LEARNING),
    ] = None
    normalization: Annotated[
        Normalization, Option("How intensities are normalized: zscore or minmax.", Panel.LEARNING)
    ] = "zscore"
    augment: Annotated[
        float,
        Field(ge=0, le=10),
        Option("How often to rotate, scale, add noise and the like: 0 never, 2 twice as often.", Panel.LEARNING),
    ] = 1.0
    """A factor on the probabilities of `Augmentation`."""
    thick_slices: Annotated[
        float,
        Field(ge=0, le=1),
        Option("Probability that all sequences of a patch have slices of 2 to 5 voxels.", Panel.LEARNING),
    ] = 0.0
    transplant: Annotated[
        float,
        Field(ge=0, le=1),
        Option("Probability that a patch also receives another case's tumour.", Panel.LEARNING),
    ] = 0.0
    histograms: Annotated[
        float,
        Field(ge=0, le=1),
        Option("Probability of moving a patch's intensities towards another case's.", Panel.LEARNING),
    ] = 0.0
    lesion_contrast: Annotated[
        float,
        Field(ge=0, le=1),
        Option(
            "Probability of lowering or raising the contrast of a tumour region to its surroundings.", Panel.LEARNING
        ),
    ] = 0.0
    """See `augment.lesion`."""
    repeat_faint: Annotated[
        int,
        Field(ge=1),
        Option("How often per epoch to use a case whose tumour core hardly enhances, or not at all.", Panel.LEARNING),
    ] = 1
    """Such a case has less ET than a fiftieth of its TC; see `patches.repeated`."""
    ema: Annotated[
        float,
        Field(ge=0, lt=1),
        Option("Validate and save a moving average of the weights with this decay: 0.999; 0: off.", Panel.LEARNING),
    ] = 0.0

    val_fraction: Annotated[
        float, Field(ge=0, lt=1), Option("Fraction of the patients to validate on; 0: none.", Panel.HELD_OUT)
    ] = 0.25
    """Not used with folds or a split file."""
    patients: Annotated[
        str | None,
        Option("A CSV table (case,patient), if names do not tell patients apart.", Panel.HELD_OUT, metavar="<path>"),
    ] = None
    """See `patients.read_patients`. The table is read when the split is drawn, not when a run is resumed."""
    split: Annotated[
        str | None,
        Option(
            "A splits_final.json with the ids to train and to validate on, as nnU-Net writes it.",
            Panel.HELD_OUT,
            metavar="<path>",
        ),
    ] = None
    """A list of `{"train": [...], "val": [...]}` like nnU-Net's `splits_final.json`, of which the entry `fold` is used.
    Cases in neither are left out."""
    folds: Annotated[
        int | None, Field(ge=2), Option("Cross-validation with N folds, a run for each.", Panel.HELD_OUT)
    ] = None
    fold: int = Field(default=0, ge=0)
    """The fold that this run holds out, or the entry of the split file, counted from 0."""
    min_tumour: Annotated[
        float,
        Field(ge=0, lt=1),
        Option("Do not train on cases whose whole tumour fills less than this fraction of a patch.", Panel.HELD_OUT),
    ] = 0.0

    device: str = "auto"
    precision: Annotated[
        Precision, Option("Floating-point type: auto, bf16, fp16 (GPU only) or fp32.", Panel.RESOURCES)
    ] = "auto"
    threads: int | None = Field(default=None, ge=1)
    workers: Annotated[
        int | None, Field(ge=1), Option("Threads that draw patches. [1; on a GPU 2]", Panel.RESOURCES)
    ] = None
    low_memory: Annotated[
        bool,
        Option("Recompute activations instead of storing them: same result, less memory, slower.", Panel.RESOURCES),
    ] = False
    compiled: Annotated[bool, Option("Let torch compile the network (GPU).", Panel.RESOURCES, flag="--compile")] = False
    tensorboard: Annotated[bool, Option("Also log for TensorBoard, in OUTPUT/tensorboard.")] = False

    @model_validator(mode="before")
    @classmethod
    def _fill_length(cls, values: Any) -> Any:
        """Train for 20 epochs if no length is given."""
        if isinstance(values, dict) and all(values.get(length) is None for length in _LENGTHS):
            return {**values, "epochs": 20}
        return values

    @model_validator(mode="after")
    def _known_names(self) -> TrainConfig:
        """Refuse unknown names here, where the file that they come from is known to the caller."""
        from gliomask.cases import get_modality  # imported here because it needs NumPy, which would slow down --help

        for kind, name, known in (("network", self.network, NETWORKS), ("loss", self.loss, LOSSES)):
            if name not in known:
                raise unknown_name(kind, name, known)
        for modality in self.modalities:
            get_modality(modality)
        return self

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        given = [length for length in _LENGTHS if getattr(self, length) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(_LENGTHS)}; got {' and '.join(given)}")
        if not self.split and self.fold >= (self.folds or 1):
            raise ValueError(f"there is no fold {self.fold} of {self.folds or 1}; folds count from 0")
        if self.folds and self.split:
            raise ValueError("--folds and --split both choose the held-out cases; give one of the two")
        if self.corrected and not self.start_from:
            raise ValueError("--corrected needs --from, the model whose masks were corrected")
        if self.lone_modality and not self.drop_modalities:
            raise ValueError("--lone-modality needs --drop-modalities above 0")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be divided into {self.accumulate} equal parts")
        if self.compiled and self.low_memory and self.norm == "batch":
            raise ValueError("--compile and --low-memory do not go together with --norm batch; leave one out")
        return self


FREE = {
    *(*_LENGTHS, "patience", "val_every"),
    *("cases", "device", "threads", "workers", "low_memory", "compiled", "tensorboard"),
}
"""Fields whose values may change when a run is resumed."""


def make_config(**values: object) -> TrainConfig:
    """Return a config with these values and the defaults for the others.

    Raises:
        InputError: A value is out of its range or of another type. All errors are listed, by the option's name.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(_describe(problem) for problem in error.errors())) from error


def _describe(problem: Any) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return text
    name = str(problem["loc"][0])
    return f"{flag_of(name, TrainConfig.model_fields.get(name))}: {text}"
