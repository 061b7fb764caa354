"""Section `backbones` of params.yaml: what an entry may say, and which parts a hybrid has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from plumbline.common.params import Section
from plumbline.models.augment import Augmentation
from plumbline.models.precision import Precision
from plumbline.models.preprocessing import Preprocess
from plumbline.models.records import WeightsRecord
from plumbline.models.weights import PIXELS, Weights, join_records, resolve_weights


class Backbone(Section):
    """One entry of `backbones`: a frozen network at one input size, or `pixels`, the pictures themselves.

    `network` defaults to the entry's name; `networks` puts the features of several side by side. `freeze` says where
    features are taken, and so what a candidate trains: after the network (`head`), before its last four layers
    (`last_4`), at the pixels (`all`), or by the course's rule on the number of training images (`auto`). `views`
    augmented views are computed per picture; `pooling: average` keeps the mean of each feature map instead of the maps;
    `scales` are sides, up to image_size, to which each picture is shrunk as well: the pooled features are averaged;
    `preprocess` is done to a picture before anything else; `seed` draws random weights.
    """

    network: str | None = None
    networks: tuple[str, ...] = ()
    freeze: Literal["auto", "head", "last_4", "all"] = "head"
    image_size: Annotated[int, Field(ge=16, le=1024)]
    weights: str = "random"
    seed: int = 0
    pooling: Literal["none", "average"] = "none"
    scales: tuple[Annotated[int, Field(ge=32, multiple_of=32)], ...] = ()
    preprocess: Preprocess = Preprocess()
    views: Annotated[int, Field(ge=0, le=64)] = 0
    augmentation: Augmentation = Augmentation()
    precision: Literal["auto"] | Precision = "auto"
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 32

    @model_validator(mode="after")
    def _makes_sense(self) -> Backbone:
        if self.network and self.networks:
            raise ValueError("give 'network' or 'networks', not both")
        if len(set(self.networks)) != len(self.networks) or PIXELS in self.networks:
            raise ValueError("'networks' names each network once, and never 'pixels'")
        if len(self.networks) > 1 and self.weights not in ("auto", "imagenet", "random"):
            raise ValueError("several 'networks' can't share one weights file: use auto, imagenet or random")
        if self.scales and (self.pooling != "average" or self.freeze != "head" or self.network == PIXELS):
            raise ValueError("'scales' are for a frozen network: freeze: head and pooling: average")
        if self.scales and (max(self.scales) > self.image_size or len(set(self.scales)) < len(self.scales)):
            raise ValueError("'scales' are different sides, the largest no larger than image_size")
        return self

    def networks_of(self, name: str) -> list[str]:
        """The networks of the entry called `name`."""
        return list(self.networks) or [self.network or name]


def resolve_entry(name: str, entry: Backbone) -> list[Weights]:
    """Resolve the weights of each network of an entry; UserError where requested weights are not available."""
    return [resolve_weights(name, network, entry.weights) for network in entry.networks_of(name)]


def record_entry(name: str, entry: Backbone, weights: list[Weights]) -> WeightsRecord:
    """Return the content of build/weights/NAME.json."""
    return join_records(name, entry.weights, weights, entry.networks_of(name))


def called(weights: Weights, network: str) -> str:
    """Return the backbone's name, and its network's where that is another, for the log."""
    return weights.backbone if network == weights.backbone else f"{weights.backbone} ({network})"


def origin_of(weights: Weights) -> str:
    """Return where the weights come from, for the log, with a warning where random ones were not asked for."""
    if weights.origin == "none":
        return "the pictures themselves, no weights"
    if weights.origin == "random":
        asked = "as asked" if weights.requested == "random" else "NO PRETRAINED WEIGHTS FOUND"
        return f"random weights ({asked})"
    return f"{weights.origin} weights from {weights.path}"
