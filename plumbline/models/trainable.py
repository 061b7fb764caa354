"""What a candidate trains: a head, and the part of the backbone after the point where features are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plumbline.common.errors import UserError
from plumbline.models.candidates import Candidate, build_network
from plumbline.models.networks import build_collected, cut, find_network, scale_pixels
from plumbline.models.pooling import features_of, join, pooled
from plumbline.models.preprocessing import prepared
from plumbline.models.records import BackboneRecord, Part
from plumbline.models.weights import PIXELS
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import keras

OVER_PARTS = "over_parts"
HEAD = "head"
Parts = dict[str, tuple["keras.Model | None", "keras.Model | None"]]


def chosen_parts(candidate: Candidate, backbone: BackboneRecord) -> tuple[Part, ...]:
    """The parts of backbone.json that the candidate reads: all, or those of its `networks`; none for pixels."""
    parts = backbone.parts
    unknown = set(candidate.networks) - {part.network for part in parts}
    if unknown:
        raise UserError(
            f"params.yaml: backbones.{candidate.backbone} has no network '{min(unknown)}': "
            f"it has {', '.join(part.network for part in parts) or 'none'}."
        )
    return tuple(part for part in parts if not candidate.networks or part.network in candidate.networks)


def cut_networks(backbone: BackboneRecord, weights: str | None) -> Parts:
    """The networks of backbone.json by name, each as its frozen and its trained part (None where empty)."""
    names = [part.network for part in backbone.parts]
    networks = build_collected(names, backbone.network_size, weights)
    return {name: cut(network, backbone.freeze) for name, network in zip(names, networks, strict=True)}


def build_trainable(
    candidate: Candidate,
    backbone: BackboneRecord,
    networks: Parts | None,
    classes: int,
    task: Task = ONE_LABEL,
) -> keras.Model:
    """Build what is trained, from one view's features (N, ...) as stored to probabilities (N, 1) or (N, C).

    `networks` (from `cut_networks`) is needed where features are taken before a network's end: the remaining layers
    become part of it, with their batch normalisation frozen, as fine-tuning on few images needs.
    """
    import keras

    parts = chosen_parts(candidate, backbone)
    shape = backbone.shape
    whole = len(parts) == len(backbone.parts)
    if whole and backbone.freeze == "head":
        return build_network(candidate, shape, classes, task)
    features = keras.Input(shape, name="features")
    maps = []
    for part in parts:
        x = features
        if len(backbone.parts) > 1 and backbone.freeze != "all":
            x = keras.layers.Reshape(part.shape)(features[:, part.start : part.stop])
        upper = networks[part.network][1] if networks else None
        if upper is not None:
            if backbone.freeze == "all":
                x = scale_pixels(x, find_network(part.network).scaling)
            x = pooled(upper(x, training=False), backbone)
        maps.append(x)
    joined = join(maps)
    head = build_network(candidate, tuple(joined.shape[1:]), classes, task)
    head.name = HEAD
    return keras.Model(features, head(joined), name=OVER_PARTS)


def assemble(
    candidate: Candidate, backbone: BackboneRecord, networks: Parts | None, trained: keras.Model
) -> keras.Model:
    """The whole model from RGB pixels (N, S, S, 3) in [0, 255], with the parts that `trained` (see above) holds.

    `networks` is None where the candidate reads pixels.
    """
    import keras

    size = backbone.image_size
    pixels = keras.Input((size, size, 3), name="pixels")
    seen = prepared(pixels, backbone.preprocess, rounded=networks is None or backbone.freeze == "all")
    if networks is None:
        graph = getattr(trained, "_functional", None) or trained
        # Layer by layer, so that its last maps are found where they are without preprocessing (models/export.py).
        output = graph._run_through_graph(seen, operation_fn=lambda operation: operation)
        return keras.Model(pixels, output, name="candidate")
    maps = [
        features_of(seen, part.network, networks[part.network], backbone) for part in chosen_parts(candidate, backbone)
    ]
    head = trained.get_layer(HEAD) if trained.name == OVER_PARTS else trained
    return keras.Model(pixels, head(join(maps)), name="candidate")


def reads_pixels(backbone: BackboneRecord) -> bool:
    """Whether the features are the pixels themselves."""
    return backbone.network == PIXELS
