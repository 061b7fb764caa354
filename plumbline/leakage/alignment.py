"""Proof that two pictures show the same shot: lay one over the other and compare what overlaps.

Two ways. `align_thumbnails` refines a guess (which part of one picture is the other) by ECC on small greys: cheap, for
candidates that hashes bring. `align_local` finds the overlap from nothing by SIFT matches and a robust affine: for
re-publications that were cropped, scaled and watermarked, which only an embedding brings together.

Either way the verdict is not the number of matches but the overlap after warping, block by block: strangers that share
a logo or a skyline match there and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Affine = NDArray[Any]  # (2, 3)

THUMBNAIL = (96, 72)  # width, height
LOCAL_SIDE = 320  # longer side at which local features are taken
LOCAL_FEATURES = 400
MIN_INLIERS = 6
SLACK = 0.88  # scale up to which a part has room to be looked for; a whole picture is looked for by its middle
MAX_SCALE = 4.0
MAX_ANISOTROPY = 1.6  # a 4:3 picture stretched to 16:9 has 1.33
MAX_ROTATION = 30.0  # degrees
MIN_OVERLAP = 0.25  # share of the smaller picture; less may be a caption, at the top of one and the foot of the other
BLOCKS = 10  # the overlap is compared in about BLOCKS x BLOCKS pieces of a whole picture
MIN_BLOCKS = 5  # pieces with something to see in them
FLAT = 3.0  # grey levels: a piece whose standard deviation is lower shows nothing


@dataclass(frozen=True)
class Overlap:
    """What remains when one picture is laid over the other.

    `score` is the median over textured blocks of their normalised correlation, -1 to 1; `worst` its 2nd percentile;
    `share` is the overlap's share of the smaller picture, `common` of the larger; `blocks` counts the textured blocks.
    """

    score: float
    worst: float
    share: float
    common: float
    blocks: int


NOTHING = Overlap(0.0, 0.0, 0.0, 0.0, 0)


@dataclass(frozen=True)
class Local:
    """Local features of one grey picture: points (K, 2) in pixels, RootSIFT descriptors (K, 128) of length 1."""

    grey: Grey
    points: NDArray[np.float32]
    descriptors: NDArray[np.float32]


def shrink(grey: Grey, longer_side: int = LOCAL_SIDE) -> Grey:
    """Return the picture with its longer side at most `longer_side`, averaged over areas."""
    height, width = grey.shape
    factor = longer_side / max(height, width)
    if factor >= 1:
        return grey
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def thumbnail(grey: Grey) -> Grey:
    """Return (72, 96): the picture stretched, averaged over areas."""
    return np.asarray(cv2.resize(grey, THUMBNAIL, interpolation=cv2.INTER_AREA), np.uint8)


def correlation(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Return Pearson's correlation of two arrays of one shape; 0 where one is constant."""
    x, y = a.astype(np.float32).ravel(), b.astype(np.float32).ravel()
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 1e-6 else 0.0


def part(thumb: Grey, box: tuple[float, float, float, float]) -> Grey:
    """Return the part of a thumbnail inside `box` (left, top, right, bottom as shares of it), stretched to (72, 96)."""
    height, width = thumb.shape
    left, top, right, bottom = box
    affine = np.array(
        [
            [(right - left), 0, left * width - 0.5 + 0.5 * (right - left)],
            [0, (bottom - top), top * height - 0.5 + 0.5 * (bottom - top)],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(thumb, affine, THUMBNAIL, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def locate(a: Grey, b: Grey, scale: float) -> tuple[float, tuple[float, float, float, float]]:
    """Find the place in thumbnail `a` where `b`, shrunk by `scale`, fits best.

    Returns the correlation there and the place as left, top, right, bottom, in shares of `a`.
    """
    width, height = THUMBNAIL[0] // 2, THUMBNAIL[1] // 2
    middle = SLACK if scale > SLACK else 1.0  # nearly as large as `a`: only its middle has room to be looked for
    margin = (1 - middle) / 2
    wanted = b if middle == 1.0 else part(b, (margin, margin, 1 - margin, 1 - margin))
    size = (max(8, round(width * scale * middle)), max(8, round(height * scale * middle)))
    small = cv2.resize(a, (width, height), interpolation=cv2.INTER_AREA)
    fit = cv2.matchTemplate(small, cv2.resize(wanted, size, interpolation=cv2.INTER_AREA), cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(fit)
    grown_x, grown_y = margin / middle * size[0], margin / middle * size[1]
    left, top, right, bottom = x - grown_x, y - grown_y, x + size[0] + grown_x, y + size[1] + grown_y
    box = (left / width, top / height, right / width, bottom / height)
    return float(best) if np.isfinite(best) else 0.0, box


def align_thumbnails(a: Grey, b: Grey) -> tuple[float, Overlap]:
    """Refine the overlay of two thumbnails that should be alike as they are, by an affine ECC.

    Evangelidis and Psarakis 2008, "Parametric image alignment using enhanced correlation coefficient maximization".
    Returns the enhanced correlation coefficient (0 where it does not converge) and the overlap.
    """
    start = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        whole = np.full_like(a, 255)
        ecc, warp = cv2.findTransformECC(b, a, start, cv2.MOTION_AFFINE, stop, whole, 5)
    except cv2.error:  # no texture, or the overlap ran off the picture
        return 0.0, NOTHING
    if not plausible(np.asarray(warp, np.float64)):
        return 0.0, NOTHING
    return float(ecc), compare_overlap(a, b, cv2.invertAffineTransform(np.asarray(warp, np.float64)), blur=0.0)


def local_features(grey: Grey) -> Local:
    """Return SIFT features of a picture shrunk to 320 pixels, as RootSIFT (Arandjelovic and Zisserman 2012)."""
    small = shrink(grey)
    sift = cv2.SIFT.create(nfeatures=LOCAL_FEATURES, contrastThreshold=0.02)
    keypoints, raw = sift.detectAndCompute(small, None)
    if raw is None or not len(keypoints):
        return Local(small, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    descriptors = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)
    return Local(small, np.array([k.pt for k in keypoints], np.float32), descriptors)


def mirrored(local: Local) -> Local:
    """Return what `local_features` would find in the mirror image, without looking again.

    A descriptor is a 4 x 4 grid of 8 orientations in its keypoint's own frame; a mirror image reverses the grid's rows
    and the sense of the orientations.
    """
    grid = local.descriptors.reshape(-1, 4, 4, 8)[:, ::-1, :, :]
    descriptors = grid[..., [0, 7, 6, 5, 4, 3, 2, 1]].reshape(-1, 128)
    points = local.points.copy()
    points[:, 0] = local.grey.shape[1] - 1 - points[:, 0]
    return Local(np.ascontiguousarray(local.grey[:, ::-1]), points, np.ascontiguousarray(descriptors))


def align_local(a: Local, b: Local, ratio: float = 0.8) -> tuple[int, Overlap]:
    """Return how many matches agree on one affine map from `a` to `b`, and the overlap under it.

    Matches pass Lowe's ratio test; the map comes from RANSAC (3 pixels) and must be one a publisher applies: no mirror,
    scale up to 4, stretch up to 1.6, rotation up to 30 degrees.
    """
    if min(len(a.points), len(b.points)) < MIN_INLIERS:
        return 0, NOTHING
    chosen = _matches(a.descriptors @ b.descriptors.T, ratio)
    rows = np.flatnonzero(chosen >= 0)
    if len(rows) < MIN_INLIERS:
        return 0, NOTHING
    affine, inside = cv2.estimateAffine2D(
        a.points[rows],
        b.points[chosen[rows]],
        method=cv2.RANSAC,
        ransacReprojThreshold=3,
        maxIters=500,
        confidence=0.99,
    )
    inliers = 0 if affine is None else int(inside.sum())
    if inliers < MIN_INLIERS or not plausible(affine):
        return inliers, NOTHING
    return inliers, compare_overlap(a.grey, b.grey, affine)


@njit(cache=True, nogil=True)
def _matches(similarity: NDArray[np.float32], ratio: float) -> NDArray[np.int64]:
    """For each row its best column where that is clearly better than the second best, else -1 (unit vectors)."""
    chosen = np.full(similarity.shape[0], -1, np.int64)
    for i in range(similarity.shape[0]):
        best, second, at = -2.0, -2.0, -1
        for j in range(similarity.shape[1]):
            s = similarity[i, j]
            if s > best:
                second, best, at = best, s, j
            elif s > second:
                second = s
        if 2 - 2 * best < ratio * ratio * (2 - 2 * second):  # |x - y|^2 = 2 - 2 x.y
            chosen[i] = at
    return chosen


def plausible(affine: Affine) -> bool:
    """Return whether an affine map is one that re-publishing applies: turn, scale and stretch within bounds."""
    linear = affine[:, :2]
    large, small = np.linalg.svd(linear, compute_uv=False)
    if np.linalg.det(linear) <= 0 or large > MAX_SCALE or small < 1 / MAX_SCALE or large > MAX_ANISOTROPY * small:
        return False
    u, _, vt = np.linalg.svd(linear)
    rotation = u @ vt
    return bool(abs(np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0]))) <= MAX_ROTATION)


def compare_overlap(a: Grey, b: Grey, affine: Affine, blur: float = 2.0) -> Overlap:
    """Lay `a` over `b` by `affine` (pixels of `a` to pixels of `b`) and compare them block by block.

    `blur` is the standard deviation in pixels of a Gaussian on both, so that an alignment that is a pixel off counts.
    """
    height, width = b.shape
    warped = cv2.warpAffine(a, affine, (width, height), flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones_like(a), affine, (width, height), flags=cv2.INTER_NEAREST).astype(bool)
    covered = float(inside.sum())
    area_of_a = a.size * abs(float(np.linalg.det(affine[:, :2])))
    share, common = covered / max(min(b.size, area_of_a), 1.0), covered / max(b.size, area_of_a)
    if share < MIN_OVERLAP:
        return NOTHING
    x, y = np.asarray(warped, np.float32), b.astype(np.float32)
    if blur:
        x, y = (np.asarray(cv2.GaussianBlur(v, (0, 0), blur), np.float32) for v in (x, y))
    scores = _block_scores(x, y, inside, _side(height), _side(width))
    if len(scores) < MIN_BLOCKS:
        return Overlap(0.0, 0.0, share, common, len(scores))
    return Overlap(float(np.median(scores)), float(np.quantile(scores, 0.02)), share, common, len(scores))


def _side(length: int) -> int:
    return max(8, length // BLOCKS)


def _block_scores(
    x: NDArray[np.float32], y: NDArray[np.float32], inside: NDArray[np.bool_], rows: int, columns: int
) -> NDArray[np.float32]:
    """Correlation of each block that lies inside and shows something in at least one of the two pictures."""
    height, width = (x.shape[0] // rows) * rows, (x.shape[1] // columns) * columns

    def blocks(values: NDArray[np.generic]) -> NDArray[np.generic]:
        cut = values[:height, :width].reshape(height // rows, rows, width // columns, columns)
        return cut.transpose(0, 2, 1, 3).reshape(-1, rows * columns)

    whole = blocks(inside).all(axis=1)
    p, q = blocks(x)[whole].astype(np.float32), blocks(y)[whole].astype(np.float32)
    p, q = p - p.mean(axis=1, keepdims=True), q - q.mean(axis=1, keepdims=True)
    deviation_p, deviation_q = np.sqrt((p * p).mean(axis=1)), np.sqrt((q * q).mean(axis=1))
    seen = np.maximum(deviation_p, deviation_q) > FLAT
    scale = np.maximum(deviation_p * deviation_q, 0.25)
    return np.asarray(((p * q).mean(axis=1) / scale)[seen], np.float32)
