"""The records that this room writes: build/weights/*.json, backbone.json, model.json, cost.json."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from plumbline.common.records import Record
from plumbline.imaging.decode import Fit
from plumbline.models.augment import Augmentation
from plumbline.models.preprocessing import Preprocess

Freeze = Literal["head", "last_4", "all"]
Status = Literal["trained", "constant", "diverged"]
"""How training ended: `constant` gives every picture the same answer, `diverged` met a loss that is no number."""
NOT_ELIGIBLE: dict[str, str] = {
    "constant": "it gives every picture the same answer, whatever it starts from",
    "diverged": "its training diverged (the loss was no number any more); a smaller learning_rate may help",
}
"""What is said of a candidate whose training failed: it is shown, and can't be chosen."""


class NetworkWeights(Record):
    """Where the weights of one network of several came from."""

    network: str
    backbone: str
    requested: str
    origin: str
    file: str | None
    sha256: str | None


class WeightsRecord(Record):
    """build/weights/BACKBONE.json: it changes with the weights, not with where their file is."""

    backbone: str
    requested: str
    origin: str
    file: str | None
    sha256: str | None
    networks: tuple[NetworkWeights, ...] = ()

    @property
    def worthless(self) -> bool:
        """Whether all weights are random though others were asked for: features to compare with, not to use."""
        return self.requested != "random" and self.origin == "random"


class Part(Record):
    """Which network's features lie where in the flattened features, and how many frozen parameters made them."""

    network: str
    shape: tuple[int, ...]
    start: int
    stop: int
    parameters: int


class Recipe(Record):
    """How a backbone's features are made: all that a row depends on besides the picture.

    `views_left_out` augmented views were asked for and not computed, because the weights are random for want of others.
    """

    backbone: str
    network: str
    image_size: int
    pooling: str = "none"
    freeze: Freeze = "head"
    views: int = 0
    views_left_out: int = 0
    augmentation: Augmentation | None = None
    precision: str | dict[str, str]
    weights: WeightsRecord
    seed: int | None = None
    code: str
    channels: str | None = None
    scales: tuple[int, ...] = ()
    preprocess: Preprocess | None = None

    def unpooled(self) -> Recipe:
        """Return it without pooling, as features are made that end before a network does."""
        return self.model_copy(update={"pooling": "none"})

    @property
    def fit(self) -> Fit:
        """How a picture is brought to image_size."""
        return self.preprocess.fit if self.preprocess else "stretch"

    @property
    def network_size(self) -> int | None:
        """The side of the pictures that its networks are built for; None: any side."""
        return None if self.scales else self.image_size

    @property
    def network_names(self) -> list[str]:
        return self.network.split("+")


class BackboneRecord(Recipe):
    """backbone.json. `shape` is that of one view's features; pixels have no `parts`."""

    shape: tuple[int, ...]
    parts: tuple[Part, ...] = ()
    parameters: int = 0

    @classmethod
    def of(cls, recipe: Recipe, shape: tuple[int, ...], parts: tuple[Part, ...], parameters: int) -> BackboneRecord:
        """Complete a recipe by its results."""
        return cls(**dict(recipe), shape=shape, parts=parts, parameters=parameters)

    def recipe(self) -> Recipe:
        """Return how the features were made, without the results."""
        return Recipe(**{name: getattr(self, name) for name in Recipe.model_fields})


class MemberRecord(Record):
    """A member of an ensemble."""

    name: str
    backbone: str


class StartRecord(Record):
    """What a network learnt from before it saw a label: pictures of the data set, unlabelled ones, and how it went."""

    method: str
    known: int
    unlabelled: int
    unreadable: int
    sha256: str
    loss: float
    spread: float | None = None
    explained: float | None = None


class Tried(Record):
    """One way to compress, and what its file is worth on validation; `failed` says why there is no such file."""

    recipe: str
    bytes: int | None = None
    accuracy: float | None = None
    log_loss: float | None = None
    failed: str | None = None


class CompressedRecord(Record):
    """Of which candidate this is a smaller copy, how it was made, and every way that was tried, in their order.

    `recipe` says it in words, `kept` is the one of those tried that was kept. `original_bytes` are those of the float32
    file that was not pruned.
    """

    of: str
    how: str
    recipe: str
    kept: str = ""
    bytes: int
    original_bytes: int
    calibration_pictures: int = 0
    tried: tuple[Tried, ...] = ()


class ModelDescription(Record):
    """What was trained, on what, and the origin of its weights; `parameters` include the backbone's.

    `settings` are those of the entry in params.yaml. `starts` counts the initialisations that were tried: one from
    which every picture got the same answer is not gone on with. A candidate that is not `trained` can't be chosen. An
    ensemble has `members`, and nothing that only a single network can have, such as `freeze`. A compressed candidate
    says what it was made of; all else but its settings is the original's.
    """

    candidate: str
    architecture: str
    backbone: str
    network: str | None = None
    freeze: Freeze | None = None
    image_size: int
    parameters: int
    trainable_parameters: int
    weights: str
    weights_file: str | None = None
    weights_sha256: str | None = None
    precision: str | dict[str, str] | None = None
    classes: tuple[str, ...] = ()
    several_labels: bool = False
    task: str | None = None
    seed: int
    epochs_run: int
    best_epoch: int | None = None
    members: tuple[MemberRecord, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    training_precision: str | None = None
    fit: Fit = "stretch"
    start: StartRecord | None = None
    status: Status = "trained"
    starts: int = 1
    without_views: bool = False
    compressed: CompressedRecord | None = None

    @property
    def made_by(self) -> str:
        """The stage that makes it."""
        if self.members:
            return "ensemble"
        own = "train_of_students" if self.settings.get("teacher") else "train"
        return f"{'compress' if self.compressed else own}@{self.candidate}"

    @property
    def trouble(self) -> list[str]:
        """Sentences on what went wrong in training; none where nothing did."""
        said = []
        if self.status != "trained":
            said.append(f"{self.candidate} can't be chosen: {NOT_ELIGIBLE[self.status]}.")
        if self.starts > 1:
            from_ = "its first initialisation" if self.starts == 2 else f"{self.starts - 1} initialisations"
            said.append(f"From {from_} it gave every picture the same answer; start {self.starts} is shown.")
        if self.without_views:
            said.append("No pretrained weights were found for its backbone, so it was trained without augmented views.")
        return said


class ModelRecord(ModelDescription):
    """model.json, in the folder of a candidate or ensemble."""

    classes: tuple[str, ...]

    def description(self) -> ModelDescription:
        """Return it without its classes, which all candidates share."""
        return ModelDescription.model_validate(self.model_dump(exclude={"classes"}, exclude_unset=True))


class Speed(Record):
    """Milliseconds that a file takes in ONNX Runtime on one thread, as it is served: for one picture, and for 16."""

    one_ms: float
    sixteen_ms: float

    @property
    def pictures_per_second(self) -> float:
        """How many pictures one thread scores in batches of 16."""
        return 16_000 / self.sixteen_ms


class Cost(Record):
    """cost.json: seconds and memory of the training, milliseconds for one picture; None where not measured.

    Of a compressed candidate `speed` and, measured in turns with it, `original_speed`, which is its original's in
    float32; its `latency_ms` is `speed.one_ms`.
    """

    seconds: float | None = None
    peak_megabytes: int | None = None
    latency_ms: float | None = None
    speed: Speed | None = None
    original_speed: Speed | None = None
