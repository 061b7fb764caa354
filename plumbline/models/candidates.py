"""One candidate: an architecture over a backbone's features, and how it is trained."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from plumbline.common.errors import UserError
from plumbline.common.params import Section, load_section, read_params
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import keras

ARCHITECTURES = Path(__file__).with_name("architectures")
TRANSFER, TRIPLET = "transfer", "triplet"
WITH_ATTENTION = ("compact_cnn",)
PRESETS: dict[str, dict[str, Any]] = {
    # the HelmNet study's settings with its own recommendations; also the defaults below
    "helmnet": {
        "epochs": 20,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "early_stopping_patience": 3,
        "plateau_factor": 0.2,
        "plateau_patience": 2,
    },
    # the "enterprise" system's custom CNN; its 224 pixels are those of the backbone entry
    "enterprise": {
        "epochs": 150,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "decay": 1e-6,
        "early_stopping_patience": 15,
        "plateau_factor": 0.2,
        "plateau_patience": 8,
    },
}


class Head(Section):
    """What is trained on top of a frozen backbone: hidden dense relu layers, dropout after the first, an output.

    `pooling: average` takes the mean of each feature map first, `flatten` keeps every place apart, `attention` takes a
    mean in which the places count as much as is learnt; it needs a backbone with pooling: none. `output: softmax`
    gives two classes a softmax of two units (the hybrid's) in place of one sigmoid unit.
    """

    pooling: Literal["flatten", "average", "attention"] = "flatten"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = ()
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    output: Literal["auto", "softmax"] = "auto"


class Triplet(Section):
    """How architecture `triplet` learns: the embedding's units, the margin, and which triplets of a batch count."""

    units: Annotated[int, Field(ge=2, le=4096)] = 64
    margin: Annotated[float, Field(gt=0, le=4)] = 0.2
    mining: Literal["semi_hard", "hard"] = "semi_hard"


class Start(Section):
    """What a network learns before it sees a label, from the pictures that are not test and those of a folder.

    `simsiam` makes two views of a picture alike; `denoising` and `colourisation` give back what was taken from it.
    The folder (`unlabelled`, such as incoming) is read as it is when the candidate is trained; DVC does not watch it.
    """

    method: Literal["simsiam", "denoising", "colourisation"] = "simsiam"
    epochs: Annotated[int, Field(ge=1)] = 30
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    unlabelled: str | None = None


class FineTuning(Section):
    """The second phase, once the head is trained: the unfrozen part of the backbone learns too, slowly."""

    epochs: Annotated[int, Field(ge=1)] = 10
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5


class Hints(Section):
    """How much a student's map of `stride` is drawn to its teacher's beside the answers; a weight of 0 is no hint."""

    weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    stride: Literal[4, 8, 16, 32] = 8


class Distillation(Section):
    """How a student hears its teacher: how much its probabilities are softened, and its share of the loss; and, where
    there are `hints`, how its maps are drawn to the teacher's."""

    temperature: Annotated[float, Field(ge=1, le=50)] = 4.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.7
    # Left out of what is written where there is none: records and keys of before it existed stay what they are.
    hints: Annotated[Hints | None, Field(exclude_if=lambda hints: hints is None)] = None


class Candidate(Section):
    """One entry of `candidates`. `preset` (helmnet, enterprise) fills in what the entry does not say.

    `networks` takes part of a backbone of several; `width` multiplies the filters and units of an architecture trained
    from scratch; `attention: cbam` weighs maps and places behind each block of those in WITH_ATTENTION; `mirror` and
    `brightness` (share either way) vary each training picture anew in every epoch, for architectures that read pixels;
    `augmented` uses the backbone's stored views. `fine_tuning` follows where the backbone's `freeze` leaves part of it
    to be trained. `class_weights: balanced` weighs each picture by 1 / its class's share. `schedule: cosine` lets the
    learning rate fall to zero over `epochs` (then give early stopping patience) instead of steps on a plateau;
    `weight_decay` is AdamW's. `curriculum` gives a third of the epochs to an easier lesson first: `sizes` pictures of
    half the size, `confidence` the half that a logistic regression on 16x16 pixels is surest of. `start` comes before
    any label; `labels` is the share of the training groups whose labels are used, for learning how much they bring.
    `teacher`, in an entry of `students`, names the candidate whose answers about the training pictures are learnt from
    as well, as `distillation` says, and with `hints` in it its maps.
    `precision: auto` trains some architectures in bfloat16 where the processor has units for it; predictions are made
    in float32.
    """

    architecture: str
    backbone: str
    preset: Literal["helmnet", "enterprise"] | None = None
    networks: tuple[str, ...] = ()
    head: Head | None = None
    triplet: Triplet = Triplet()
    curriculum: Literal["none", "sizes", "confidence"] = "none"
    start: Start | None = None
    labels: Annotated[float, Field(gt=0, le=1)] = 1.0
    teacher: str | None = None
    distillation: Distillation = Distillation()
    fine_tuning: FineTuning = FineTuning()
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    attention: Literal["none", "cbam"] = "none"
    augmented: bool = False
    mirror: bool = False
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["plateau", "cosine"] = "plateau"
    early_stopping_patience: Annotated[int, Field(ge=0)] = 3
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.2
    plateau_patience: Annotated[int, Field(ge=0)] = 2

    @property
    def hints(self) -> Hints | None:
        """How maps are learnt from the teacher's, None where they are not."""
        hints = self.distillation.hints
        return hints if hints is not None and hints.weight > 0 else None

    def second_phase(self) -> Candidate:
        """The same candidate with the settings of `fine_tuning`."""
        return self.model_copy(update=self.fine_tuning.model_dump())

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, values: Any) -> Any:
        preset = PRESETS.get(str(values.get("preset"))) if isinstance(values, dict) else None
        return {**preset, **values} if preset else values

    @field_validator("architecture")
    @classmethod
    def _is_an_architecture(cls, name: str) -> str:
        if name not in architecture_names():
            raise ValueError(f"there is no architecture '{name}': use one of {', '.join(architecture_names())}")
        return name

    @model_validator(mode="after")
    def _head_belongs_to_transfer(self) -> Candidate:
        transfer, frozen = self.architecture == TRANSFER, self.architecture in (TRANSFER, TRIPLET)
        if (self.head is not None) != transfer:
            raise ValueError("'head' is what architecture 'transfer' trains: give it there, and only there")
        if self.architecture != TRIPLET and self.triplet != Triplet():
            raise ValueError("'triplet' is for architecture 'triplet'")
        if frozen and (self.curriculum != "none" or self.start is not None):
            raise ValueError("'curriculum' and 'start' are for architectures that read pixels")
        if self.teacher is None and self.distillation != Distillation():
            raise ValueError("'distillation' is for a candidate with a 'teacher'")
        if self.teacher is not None and self.architecture == TRIPLET:
            raise ValueError("a triplet learns distances, which a 'teacher' does not tell: take one of the two out")
        if self.hints is not None and (frozen or self.augmented or self.curriculum != "none"):
            raise ValueError(
                "'hints' are for architectures that read pixels, without 'curriculum' and without 'augmented': the "
                "teacher's maps are those of the pictures as they are ('mirror' and 'brightness' may stay)"
            )
        if frozen and self.width != 1:
            raise ValueError("'width' is for architectures trained from scratch")
        if frozen and (self.mirror or self.brightness):
            raise ValueError("'mirror' and 'brightness' are for architectures that read pixels; use 'augmented'")
        if self.attention != "none" and self.architecture not in WITH_ATTENTION:
            raise ValueError(
                f"'attention' is for architecture {', '.join(WITH_ATTENTION)}; a head has pooling: attention"
            )
        return self


def entry_of(name: str) -> Candidate:
    """Return the entry of params.yaml that is called `name`: of `candidates`, or of `students`.

    Raises UserError where there is none, or it is wrong.
    """
    students = read_params().get("students")
    section = "students" if isinstance(students, dict) and name in students else "candidates"
    return load_section(f"{section}.{name}", Candidate)


def architecture_names() -> list[str]:
    """Return what `architecture` may name: the modules of `plumbline/models/architectures/`."""
    return sorted(path.stem for path in ARCHITECTURES.glob("*.py") if not path.stem.startswith("_"))


def build_network(
    candidate: Candidate, input_shape: tuple[int, ...], classes: int, task: Task = ONE_LABEL
) -> keras.Model:
    """Build what is trained: from one view's features (N, *input_shape) to probabilities.

    It ends in the task's last layer: for pictures of one label one sigmoid unit where there are two classes, the
    probability of the second, (N, 1), else a softmax (N, classes). The architecture is the module of that name in
    `plumbline/models/architectures/`.
    """
    module = importlib.import_module(f"plumbline.models.architectures.{candidate.architecture}")
    softmax = candidate.head is not None and candidate.head.output == "softmax"
    try:
        network: keras.Model = module.build(input_shape, task.output_layer(classes, softmax), candidate)
    except ValueError as error:
        if "dimension" not in str(error) and "shape" not in str(error):
            raise
        raise UserError(
            f"params.yaml: architecture '{candidate.architecture}' can't be built on features of shape {input_shape}: "
            f"give backbones.{candidate.backbone} a larger image_size."
        ) from None
    return network


def refined(maps: keras.KerasTensor, candidate: Candidate) -> keras.KerasTensor:
    """A block's maps (N, h, w, c), weighed where the candidate has `attention`."""
    from plumbline.models.attention import cbam

    return cbam(maps) if candidate.attention == "cbam" else maps


def scaled(count: int, width: float) -> int:
    """`count` filters or units times `width`, at least one."""
    return max(1, round(count * width))
