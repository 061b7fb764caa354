"""The frozen backbones: each Keras network with the pixel scaling of its weights and its weights file."""

from __future__ import annotations

import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from plumbline.common.errors import UserError, first_line
from plumbline.models import efficientnet_lite
from plumbline.models.records import Freeze

if TYPE_CHECKING:
    import keras

Scaling = Literal["caffe", "tf", "torch", "lite"]
TUNED_LAYERS = 4
ANY_SIZE = 224
"""The side of the noise that settles an untrained network which is to take pictures of any side."""
EFFICIENTNET_LITE0 = "EfficientNetLite0"
KERAS_STORE = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclass(frozen=True)
class Network:
    """One network without its classification top: of keras.applications, or EfficientNetLite0 (efficientnet_lite).

    `scaling` is the network's own `preprocess_input`: "caffe" (BGR, ImageNet means subtracted), "tf" (x / 127.5 - 1),
    "torch" (ImageNet mean and standard deviation; EfficientNet does the same inside, see `build_backbone`), "lite"
    ((x - 127) / 128). `keras_file` and `url` are those of Keras' own download, None where it has none.
    `bfloat16` marks the networks that were measured to run faster on bfloat16 units (VGG16: 54 against 110 ms a picture
    with avx512_bf16) *and* to keep their pooled features within cosine 0.999 of float32. ResNet50 is faster too, but an
    untrained one keeps 0.996 only; MobileNetV2 gains nothing. `maps` names, by stride, the layer whose
    output a detector uses (the last of that size; in MobileNetV2 and EfficientNet the expanded maps of a block, as is
    usual), or says why there are none.
    """

    application: str
    scaling: Scaling
    local_file: str
    keras_file: str | None
    url: str | None
    md5: str | None
    bfloat16: bool
    maps: dict[int, str] | str


NETWORKS: dict[str, Network] = {
    "vgg16": Network(
        "VGG16",
        "caffe",
        "vgg16_notop.weights.h5",
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        f"{KERAS_STORE}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "6d6bbae143d832006294945121d1f1fc",
        True,
        {4: "block3_conv3", 8: "block4_conv3", 16: "block5_conv3", 32: "block5_pool"},
    ),
    "resnet50": Network(
        "ResNet50",
        "caffe",
        "resnet50_notop.weights.h5",
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        f"{KERAS_STORE}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626",
        False,
        {4: "conv2_block3_out", 8: "conv3_block4_out", 16: "conv4_block6_out", 32: "conv5_block3_out"},
    ),
    "inception_v3": Network(
        "InceptionV3",
        "tf",
        "inception_v3_notop.weights.h5",
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        f"{KERAS_STORE}/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "bcbd6486424b2319ff4ef7d526e38f63",
        False,
        "its convolutions are not padded, so that a map's places lie on no grid of the picture",
    ),
    "efficientnet_b0": Network(
        "EfficientNetB0",
        "torch",
        "efficientnet_b0_notop.weights.h5",
        "efficientnetb0_notop.h5",
        "https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5",
        "50bc09e76180e00e4465e1a485ddc09d",
        False,
        {
            4: "block3a_expand_activation",
            8: "block4a_expand_activation",
            16: "block6a_expand_activation",
            32: "top_activation",
        },
    ),
    "mobilenet": Network(
        "MobileNet",
        "tf",
        "mobilenet_v1_1.0_224_notop.weights.h5",
        "mobilenet_1_0_224_tf_no_top.h5",
        f"{KERAS_STORE}/mobilenet/mobilenet_1_0_224_tf_no_top.h5",
        None,
        False,
        {4: "conv_pw_3_relu", 8: "conv_pw_5_relu", 16: "conv_pw_11_relu", 32: "conv_pw_13_relu"},
    ),
    "mobilenet_v2": Network(
        "MobileNetV2",
        "tf",
        "mobilenet_v2_1.0_224_notop.weights.h5",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        f"{KERAS_STORE}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        None,
        False,
        {4: "block_3_expand_relu", 8: "block_6_expand_relu", 16: "block_13_expand_relu", 32: "out_relu"},
    ),
    "densenet121": Network(
        "DenseNet121",
        "torch",
        "densenet121_notop.weights.h5",
        "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        f"{KERAS_STORE}/densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "30ee3e1110167f948a6b9946edeeb738",
        False,
        {4: "pool2_relu", 8: "pool3_relu", 16: "pool4_relu", 32: "relu"},
    ),
    "efficientnet_lite0": Network(
        EFFICIENTNET_LITE0,
        "lite",
        "efficientnet_lite0_imagenet.npz",
        None,
        None,
        None,
        False,
        {4: "block03_expand_relu", 8: "block05_expand_relu", 16: "block11_expand_relu", 32: "head_relu"},
    ),
}


def find_network(name: str) -> Network:
    """Return the network called `name`; UserError lists the known ones."""
    if name not in NETWORKS:
        raise UserError(
            f"params.yaml: no network is called '{name}': use one of {', '.join(sorted(NETWORKS))}, "
            "or 'pixels' for the pictures themselves."
        )
    return NETWORKS[name]


def scale_pixels(pixels: keras.KerasTensor, scaling: Scaling) -> keras.KerasTensor:
    """Scale RGB pixels (N, H, W, 3) in [0, 255] as the network's `preprocess_input` does, by serialisable layers."""
    import keras

    if scaling == "tf":
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    if scaling == "lite":
        return keras.layers.Rescaling(1 / 128, offset=-127 / 128)(pixels)
    if scaling == "caffe":
        bgr = keras.ops.flip(pixels, axis=-1)
        return keras.layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68])(bgr)
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return keras.layers.Rescaling(
        [1 / (255 * d) for d in deviation],
        offset=[-m / d for m, d in zip(mean, deviation, strict=True)],
    )(pixels)


def build_backbone(
    name: str, image_size: int | None, weights: str | None, seed: int = 0, settled: bool = True
) -> keras.Model:
    """Return network `name` without its top, frozen, from scaled pixels (N, S, S, 3) to feature maps (N, h, w, c).

    `image_size` None leaves S free, as long as it is a multiple of 32.

    `weights` is a file that `load_weights` reads, or None for random weights drawn with `seed`, with batch
    normalisation settled on noise: an untrained network's own statistics (mean 0, variance 1) would let the signal
    shrink to nothing in some fifty layers. `settled` False leaves that out, where stored weights are loaded next.

    EfficientNet is used without its own scaling layers, which Keras builds differently with and without ImageNet
    weights and ONNX can't represent; `scale_pixels` gives the same numbers.
    """
    import keras

    network = find_network(name)
    keras.utils.set_random_seed(seed)
    shape, called = (image_size, image_size, 3), f"backbone_{name}"
    backbone: keras.Model
    if network.application == EFFICIENTNET_LITE0:
        backbone = efficientnet_lite.build(shape, called)
    else:
        build = getattr(keras.applications, network.application)
        backbone = build(weights=None, include_top=False, input_shape=shape, name=called)
    whole, backbone = backbone, _behind_normalization(backbone)
    if weights is not None:
        _load(backbone, whole, weights, network)
    elif settled:
        _settle_batch_normalisation(backbone, network.scaling, image_size or ANY_SIZE, seed)
    backbone.trainable = False
    return backbone


def without_pointwise_strides(network: keras.Model) -> keras.Model:
    """Return a copy of `network` that answers the same, its 1x1 convolutions with strides fed every so many places.

    With strides TensorFlow 2.21 (oneDNN) writes past the end of its memory for the gradient of such a convolution's
    weights where the map's side is even, and crashes now and then: ResNet50 trained further is full of them.
    """
    import keras

    strided = {
        layer.name: layer.strides
        for layer in network.layers
        if type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1) and layer.strides != (1, 1)
    }

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        changed = {"strides": (1, 1)} if layer.name in strided else {}
        return layer.__class__.from_config({**layer.get_config(), **changed})

    def called(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name not in strided:
            return layer(*args, **kwargs)
        return layer(keras.layers.MaxPooling2D(1, strided[layer.name], name=f"{layer.name}_places")(args[0]))

    if not strided:
        return network
    copy = keras.models.clone_model(network, clone_function=copied, call_function=called)
    for layer in network.layers:
        if layer.weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def _behind_normalization(backbone: keras.Model) -> keras.Model:
    import keras

    last = next((layer for layer in backbone.layers if isinstance(layer, keras.layers.Normalization)), None)
    return backbone if last is None else keras.Model(last.output, backbone.output, name=backbone.name)


def _load(backbone: keras.Model, whole: keras.Model, weights: str, network: Network) -> None:
    """Load a published file, which holds the `whole` network, or one saved by this project, which holds `backbone`."""
    failures = []
    for model in (whole, backbone) if whole is not backbone else (backbone,):
        try:
            with warnings.catch_warnings():
                # Keras only warns when a file lacks some layers' weights, which would then stay random.
                warnings.simplefilter("error", UserWarning)
                if Path(weights).suffix == ".npz" and network.application == EFFICIENTNET_LITE0:
                    efficientnet_lite.load_arrays(model, Path(weights))
                else:
                    model.load_weights(weights)
            return
        except (OSError, ValueError, UserWarning, zipfile.BadZipFile) as error:
            failures.append(first_line(error))
    raise UserError(
        f"{weights} does not hold the weights of {network.application} without its top: "
        f"put the published file there or choose other weights in params.yaml ({failures[0]})."
    )


def load_stored(network: keras.Model, file: str | os.PathLike[str], stage: str = "") -> None:
    """Load weights that this project stored; UserError names the file, and the `stage` that stores it."""
    try:
        with warnings.catch_warnings():
            # Keras only warns when a file lacks some layers' weights, which would then stay random.
            warnings.simplefilter("error", UserWarning)
            network.load_weights(file)
    except (OSError, ValueError, KeyError, UserWarning) as error:
        again = f"dvc repro -f {stage}" if stage else "dvc repro"
        raise UserError(
            f"{file} is missing, damaged or of another network ({first_line(error)}): run `{again}`."
        ) from None


def collect(backbones: list[keras.Model]) -> keras.Model:
    """One model that holds several backbones, so that their weights are one file."""
    import keras

    if len(backbones) == 1:
        return backbones[0]
    inputs = [keras.Input(backbone.input_shape[1:]) for backbone in backbones]
    outputs = [backbone(pixels, training=False) for backbone, pixels in zip(backbones, inputs, strict=True)]
    return keras.Model(inputs, outputs, name="backbones")


def build_collected(names: list[str], image_size: int | None, weights: str | None) -> list[keras.Model]:
    """Rebuild the backbones of `names` from the one file that `collect(...).save_weights` wrote (None: random)."""
    if len(names) == 1:
        return [build_backbone(names[0], image_size, weights)]
    backbones = [build_backbone(name, image_size, None, settled=weights is None) for name in names]
    if weights is not None:
        load_stored(collect(backbones), weights)
    return backbones


def freeze_by_size(training_images: int) -> Freeze:
    """Return what to train, by the course's rule: head below 10,000 images, last_4 below 50,000, else all."""
    if training_images < 10_000:
        return "head"
    return "last_4" if training_images < 50_000 else "all"


def cut(backbone: keras.Model, freeze: Freeze) -> tuple[keras.Model | None, keras.Model | None]:
    """Cut `backbone` into a frozen part, (N, S, S, 3) to maps, and a trained part, maps to maps; an empty part is None.

    `last_4` trains the last four layers that have a kernel, or a few more: the cut needs a place where a single tensor
    holds everything that follows depends on, and there is none inside blocks with shortcuts.
    """
    import keras

    if freeze == "head":
        return backbone, None
    if freeze == "all":
        whole = without_pointwise_strides(backbone)
        return None, _trainable(keras.Model(whole.input, whole.output, name=_upper_name(backbone)))
    tensor = _cut_before_last(backbone, TUNED_LAYERS)
    lower = keras.Model(backbone.input, tensor, name=f"lower_{backbone.name}")
    lower.trainable = False
    upper = keras.Model(tensor, backbone.output, name=_upper_name(backbone))
    return lower, _trainable(without_pointwise_strides(upper))


def _upper_name(backbone: keras.Model) -> str:
    return f"upper_{backbone.name}"


def _trainable(upper: keras.Model) -> keras.Model:
    for layer in upper.layers:  # the backbone's own layers, frozen when it was built
        layer.trainable = True
    return upper


def kernel_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The convolutions and dense layers of a model, in its order."""
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Dense)
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def _cut_before_last(backbone: keras.Model, count: int) -> keras.KerasTensor:
    """The last tensor through which everything passes with at least `count` kernel layers after it."""
    nodes = [
        node for level in sorted(backbone._nodes_by_depth, reverse=True) for node in backbone._nodes_by_depth[level]
    ]
    last_use: dict[int, int] = {}
    for place, node in enumerate(nodes):
        for tensor in node.input_tensors:
            last_use[id(tensor)] = place
    kernels = set(map(id, kernel_layers(backbone)))
    live: dict[int, keras.KerasTensor] = {}
    best, ahead = None, sum(id(node.operation) in kernels for node in nodes)
    for place, node in enumerate(nodes):
        ahead -= id(node.operation) in kernels
        live |= {id(tensor): tensor for tensor in node.outputs}
        live = {key: tensor for key, tensor in live.items() if last_use.get(key, -1) > place}
        if len(live) == 1 and ahead >= count and place:
            best = next(iter(live.values()))
    if best is None:
        raise UserError(f"{backbone.name} has no place to cut before its last {count} layers: use freeze: all.")
    return best


def _settle_batch_normalisation(backbone: keras.Model, scaling: Scaling, image_size: int, seed: int) -> None:
    """Set the moving statistics to those of a batch of smooth, seeded noise; no picture of the data is used."""
    import keras

    layers = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        return
    coarse = np.random.default_rng(seed).uniform(0, 255, (8, 8, 8, 3)).astype(np.float32)
    noise = keras.ops.image.resize(coarse, (image_size, image_size), interpolation="bilinear")
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    backbone(scale_pixels(noise, scaling), training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
