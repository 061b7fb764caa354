"""Planted copies and fixed-camera sequences, drawn from whole photographs: truth for benchmarks/leakage.py.

Every base picture gets the copies that re-publishing, annotation tools and augmentation make, and a sequence: the same
scene from the same camera at other moments, another worker in it, helmet on or off, another light.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Maker = Callable[[Image.Image, np.random.Generator], bytes]
SIZE = (1280, 960)
QUALITY = 90


def _jpeg(image: Image.Image, quality: int = QUALITY, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def _crop(share: float) -> Maker:
    """Keep 1 - share of either side, anywhere."""

    def make(image: Image.Image, rng: np.random.Generator) -> bytes:
        width, height = round(image.width * (1 - share)), round(image.height * (1 - share))
        left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        return _jpeg(image.crop((left, top, left + width, top + height)))

    return make


def _brightness(image: Image.Image, rng: np.random.Generator) -> bytes:
    return _jpeg(ImageEnhance.Brightness(image).enhance(float(rng.choice([0.65, 1.4]))))


def _gamma(image: Image.Image, rng: np.random.Generator) -> bytes:
    power = float(rng.choice([0.6, 1.6]))
    table = [round(255 * (v / 255) ** power) for v in range(256)]
    return _jpeg(image.point(table * 3))


def _rotate(degrees: float) -> Maker:
    return lambda image, rng: _jpeg(image.rotate(float(rng.choice([-1, 1])) * degrees, Image.Resampling.BILINEAR))


def _text_bar(image: Image.Image, rng: np.random.Generator) -> bytes:
    image, bar = image.copy(), image.height // 9
    top = 0 if rng.random() < 0.5 else image.height - bar
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, top, image.width, top + bar), fill=(10, 10, 60))
    draw.text((bar // 3, top + bar // 5), "SITE 7   2026-05-01  13:45:10", fill="white", font_size=bar // 2)
    return _jpeg(image)


def _border(image: Image.Image, rng: np.random.Generator) -> bytes:
    return _jpeg(ImageOps.expand(image, border=image.height // 16, fill=(245, 245, 245)))


def _exif_rotation(image: Image.Image, rng: np.random.Generator) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to see it upright"
    return _jpeg(image.transpose(Image.Transpose.ROTATE_90), exif=exif)


COPIES: dict[str, Maker] = {
    "re-encode": lambda image, rng: _jpeg(image, 35),
    "resize": lambda image, rng: _jpeg(image.resize((image.width // 3, image.height // 3), Image.Resampling.LANCZOS)),
    "crop 5": _crop(0.05),
    "crop 10": _crop(0.10),
    "crop 20": _crop(0.20),
    "crop 35": _crop(0.35),
    "mirror": lambda image, rng: _jpeg(ImageOps.mirror(image)),
    "brightness": _brightness,
    "gamma": _gamma,
    "rotate 2": _rotate(2),
    "rotate 5": _rotate(5),
    "text bar": _text_bar,
    "border": _border,
    "exif rotation": _exif_rotation,
    "blur": lambda image, rng: _jpeg(image.filter(ImageFilter.GaussianBlur(image.width / 400))),
}


def sequence(scene: Image.Image, workers: list[Image.Image], rng: np.random.Generator) -> list[bytes]:
    """Return one picture per worker: the same camera, the light a little other, the worker elsewhere."""
    shots = []
    for worker in workers:
        shot = ImageEnhance.Brightness(scene).enhance(float(rng.uniform(0.85, 1.15)))
        side = int(scene.height * rng.uniform(0.12, 0.28))
        mask = Image.new("L", (side, side), 0)
        ImageDraw.Draw(mask).ellipse((0, 0, side - 1, side - 1), fill=255)
        place = int(rng.integers(scene.width - side)), int(rng.integers(scene.height - side))
        shot.paste(worker.resize((side, side)), place, mask.filter(ImageFilter.GaussianBlur(side / 20)))
        noise = rng.normal(0, 3, (scene.height, scene.width, 1))
        shots.append(_jpeg(Image.fromarray(np.clip(np.asarray(shot) + noise, 0, 255).astype(np.uint8))))
    return shots


def plant(
    scenes: list[Path], workers: list[Path], out: Path, bases: int, shots: int, seed: int = 0
) -> list[dict[str, str]]:
    """Write `bases` originals with their copies, and as many sequences of `shots` on other scenes, to `out`.

    Returns a row per file: path, base (the scene it was made from), kind (original, one of COPIES, or sequence).
    """
    rng = np.random.default_rng(seed)
    chosen = [scenes[i] for i in rng.permutation(len(scenes))]
    rows = []

    def put(name: str, data: bytes, base: Path, kind: str) -> None:
        folder = "sequence" if kind == "sequence" else "copies"
        (out / folder).mkdir(parents=True, exist_ok=True)
        (out / folder / name).write_bytes(data)
        rows.append({"path": f"{folder}/{name}", "base": base.stem, "kind": kind})

    for base in chosen[:bases]:
        image = ImageOps.fit(Image.open(base).convert("RGB"), SIZE, Image.Resampling.LANCZOS)
        put(f"{base.stem}.jpg", _jpeg(image), base, "original")
        for kind, make in COPIES.items():
            put(f"{base.stem}_{kind.replace(' ', '_')}.jpg", make(image, rng), base, kind)
    for base in chosen[bases : 2 * bases]:
        scene = ImageOps.fit(Image.open(base).convert("RGB"), SIZE, Image.Resampling.LANCZOS)
        seen = [Image.open(workers[i]).convert("RGB") for i in rng.integers(len(workers), size=shots)]
        for number, data in enumerate(sequence(scene, seen, rng)):
            put(f"{base.stem}_shot{number}.jpg", data, base, "sequence")
    return rows
