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


def with_helmet(image, colour, radius=30):
    """A face in the middle of a scene, under a helmet of one colour."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    x, y = image.width // 2, image.height // 2
    draw.ellipse((x - radius, y - radius, x + radius, y + radius + 10), fill=(200, 160, 130))
    draw.pieslice((x - radius - 6, y - radius - 14, x + radius + 6, y + radius), 180, 360, fill=colour)
    return image


def silhouette(seed, sky=(150, 180, 220), size=(320, 240)):
    """A dark thing of its own shape before a plain sky: all that two such pictures share is that."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, sky)
    angles = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    away = rng.uniform(0.55, 1.0, 9)
    outline = [
        (size[0] / 2 + 110 * r * np.cos(t), size[1] / 2 + 45 * r * np.sin(t)) for r, t in zip(away, angles, strict=True)
    ]
    ImageDraw.Draw(image).polygon(outline, fill=(40, 45, 50))
    return image.filter(ImageFilter.GaussianBlur(2))


def hue_shifted(image, by):
    """Every colour another, by a share of the colour circle in 256ths."""
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(by)
    return Image.fromarray(hsv, "HSV").convert("RGB")


def grey(image):
    return np.asarray(image.convert("L"))
