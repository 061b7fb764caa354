"""A champion without training, sites, and pictures of people whose helmet is a bright upper half."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from plumbline.common.files import write_json, write_table
from plumbline.common.records import write_record
from plumbline.common.served import CHAMPION
from plumbline.imaging.decode import decode
from plumbline.imaging.describe import describe, describe_camera
from plumbline.imaging.hashing import phash
from plumbline.imaging.small import small_grey
from plumbline.models.export import EMBEDDING, INPUT, PROBABILITIES, Embedder, OnnxModel
from plumbline.registry import bundle
from plumbline.registry import versions as registry
from plumbline.registry.eyes import ONNX, RECORD, EyesRecord
from plumbline.registry.folder import small_jpeg

CLASSES = ["with_helmet", "without_helmet"]
SIZE = 32
PARAMS = """
data: {}
group: {}
promote: {}
sites: {GATE: {timezone: UTC}, YARD: {timezone: UTC}}
drift: {permutations: 4999, horizon: 10, label_first: 6, label_random: 0}
"""


def picture(seed: int, label: int, dark: float = 1.0, quality: int = 90) -> bytes:
    """A JPEG of 48 x 48: noise of some colour at some scale, brighter above where `label` is 0."""
    random = np.random.default_rng(seed)
    cells = int(random.integers(4, 12))
    coarse = random.integers(30, 150, (cells, cells, 3)).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)).astype(float)
    pixels += random.normal(0, 5, pixels.shape)
    if label == 0:
        pixels[:24] += 70
    out = io.BytesIO()
    Image.fromarray(np.clip(dark * pixels, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def write_network(path: Path) -> None:
    """An ONNX champion without training: embedding is the picture in 4 x 4 cells, the score which half is brighter."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    side = SIZE // 4
    half = np.zeros((48, 1), np.float32)
    half[:24], half[24:] = -0.004, 0.004  # the embedding's order is row, column, colour
    nodes = [
        helper.make_node("Transpose", [INPUT], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["nchw"], ["cells"], kernel_shape=[side, side], strides=[side, side]),
        helper.make_node("Transpose", ["cells"], ["nhwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Flatten", ["nhwc"], [EMBEDDING]),
        helper.make_node("Gemm", [EMBEDDING, "weights", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], [PROBABILITIES], axis=1),
    ]
    constants = {"weights": half, "bias": np.full(1, 3.4, np.float32), "one": np.ones(1, np.float32)}
    graph = helper.make_graph(
        nodes,
        "champion",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", 48]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def write_eyes(path: Path) -> None:
    """Eyes without training: they see a picture in 2 x 8 cells."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Transpose", [INPUT], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["nchw"], ["cells"], kernel_shape=[SIZE // 2, SIZE // 8], strides=[SIZE // 2, SIZE // 8]
        ),
        helper.make_node("Flatten", ["cells"], [EMBEDDING]),
    ]
    graph = helper.make_graph(
        nodes,
        "eyes",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", 48])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def open_their_eyes(folder: Path, own: bool = True) -> None:
    """Give a version of `write_version` eyes, of their own or the champion's network, and training pictures."""
    home = folder / bundle.HOME / "reference"
    table = pd.read_parquet(home / "images.parquet").assign(split="validation")
    files = [picture(number, label) for number, label in enumerate(np.arange(len(table)) // 2 % 2)]
    more = [picture(500_000 + number, number // 2 % 2) for number in range(60)]
    pixels = [decode(data) for data in files + more]
    added = [
        {
            "path": f"train/{number}.jpg",
            "id": f"{500_000 + number:064x}",
            "label": CLASSES[number // 2 % 2],
            "group": f"t{number // 2}",
            "width": 48,
            "height": 48,
            "bytes": len(more[number]),
            "format": "JPEG",
            "split": "train",
            **describe(pixels[len(files) + number]),
            **describe_camera(pixels[len(files) + number]),
        }
        for number in range(60)
    ]
    write_table(home / "pool.parquet", pd.concat([table, pd.DataFrame(added)], ignore_index=True))
    small = [np.asarray(Image.fromarray(one).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for one in pixels]
    if own:
        write_eyes(home / ONNX)
        network = Embedder(home / ONNX)
    else:
        champion = OnnxModel(folder / bundle.ONNX)
        network = lambda batch: champion(batch)[1]  # noqa: E731
    np.save(home / "pool_seen.npy", network(np.stack(small)).astype(np.float16))
    np.save(home / "pool_small.npy", np.stack([small_grey(Image.fromarray(one).convert("L")) for one in pixels]))
    through = "its own network" if own else "the champion's, which is the same network"
    write_record(home / RECORD, EyesRecord(network="mobilenet_v2", origin="imagenet", image_size=SIZE, through=through))


def write_version(folder: Path, first_seed: int = 0, images: int = 90) -> None:
    """A version's folder as promotion writes it, its reference of `images` pictures, two a photograph."""
    home = folder / bundle.HOME
    (home / "reference").mkdir(parents=True)
    write_network(folder / bundle.ONNX)
    labels = np.arange(images) // 2 % 2
    files = [picture(first_seed + number, label) for number, label in enumerate(labels)]
    pixels = [decode(data) for data in files]
    rows = [
        {
            "path": f"{CLASSES[label]}/{number}.jpg",
            "id": f"{first_seed + number:064x}",
            "label": CLASSES[label],
            "group": f"g{number // 2}",
            "width": 48,
            "height": 48,
            "bytes": len(files[number]),
            "format": "JPEG",
            **describe(pixels[number]),
            **describe_camera(pixels[number]),
        }
        for number, label in enumerate(labels)
    ]
    model = OnnxModel(folder / bundle.ONNX)
    small = [np.asarray(Image.fromarray(one).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for one in pixels]
    probabilities, embeddings = model.score(small)
    table = pd.DataFrame(rows).assign(**{f"p_{name}": probabilities[:, k] for k, name in enumerate(CLASSES)})
    write_table(home / "reference" / "images.parquet", table)
    write_table(
        home / "reference" / "thumbnails.parquet",
        pd.DataFrame({"path": table["path"], "jpeg": [small_jpeg(one) for one in pixels]}),
    )
    np.save(home / "reference" / "embeddings.npy", embeddings)
    hashes = [phash(Image.fromarray(one)) for one in pixels]
    splits = table[["path", "id", "label", "group"]].assign(split="validation", phash=np.array(hashes, np.uint64))
    write_table(home / "splits.parquet", splits)
    write_json(
        home / "serving.json",
        {
            "candidate": "halves",
            "classes": CLASSES,
            "violation_class": CLASSES[1],
            "threshold": 0.5,
            "temperature": 1.0,
            "several_labels": False,
            "weights": "none",
        },
    )
    write_json(home / "provenance.json", {"data_md5": "0123456789abcdef.dir"})


def promote(folder: Path) -> int:
    """Register a version's folder and make it champion; return its number."""
    opened = registry.open_registry()
    version = registry.register(opened, folder, bundle.seal(folder), "halves", {}, {}, {}, "for a test")
    registry.move_champion(opened, version, registry.number(registry.find(opened, CHAMPION)))
    return version


class Site:
    """A project folder with sites that send pictures."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def send(self, site: str, name: str, data: bytes) -> None:
        path = self.root / "incoming" / site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def send_many(self, site: str, first: int, count: int, folder: str = "", **how: float) -> None:
        for number in range(first, first + count):
            self.send(site, f"{folder}{number:05d}.jpg", picture(number, number % 2, **how))
