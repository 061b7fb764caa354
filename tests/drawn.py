"""Pictures for tests: scenes that differ by their seed, made of a sky, blocks and blobs."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def scene(seed, size=(320, 240)):
    rng = np.random.default_rng(seed)
    width, height = size
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y = rng.integers(width), rng.integers(height)
        w, h = rng.integers(8, width // 4), rng.integers(8, height // 4)
        colour = tuple(int(c) for c in rng.integers(0, 255, 3))
        (draw.rectangle if rng.random() < 0.6 else draw.ellipse)((x, y, x + w, y + h), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(0.8))


def with_worker(image, seed):
    """The same scene at another moment: somebody stands in it."""
    rng = np.random.default_rng(seed)
    image = image.copy()
    x, y = rng.integers(20, image.width - 80), rng.integers(20, image.height - 100)
    draw = ImageDraw.Draw(image)
    colours = [tuple(int(c) for c in rng.integers(0, 255, 3)) for _ in range(3)]
    draw.rectangle((x, y + 25, x + 50, y + 90), fill=colours[0])
    draw.ellipse((x + 10, y, x + 40, y + 30), fill=colours[1])
    draw.pieslice((x + 8, y - 8, x + 42, y + 26), 180, 360, fill=colours[2])
    return image


def grey(image):
    return np.asarray(image.convert("L"))
