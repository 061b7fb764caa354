"""Proof that two pictures show the same shot: lay one over the other and compare what overlaps.

There are two ways. `align_thumbnails` refines a guess (which part of one picture is the other) by ECC on small grey
thumbnails: cheap, for candidates from hashes. `align_local` finds the overlap without a guess, by SIFT matches and a
robust affine map: for cropped, scaled and watermarked re-publications, which only an embedding finds.

Either way what counts is not the number of matches but the overlap after warping, block by block: different pictures
that share a logo or a skyline match there and nowhere else. Plain ground looks the same in any two pictures, so blocks
without texture don't count, few textured blocks must agree better, and colours count too (`copy_score`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Affine = NDArray[Any]  # (2, 3)

THUMBNAIL = (96, 72)  # width, height
CELL = 4  # pixels of a thumbnail, each way, that share one colour
CELLS = (THUMBNAIL[1] // CELL, THUMBNAIL[0] // CELL)  # rows, columns
MIN_CELLS = 20
LOCAL_SIDE = 320  # longer side at which local features are taken
LOCAL_FEATURES = 400  # 320 lose 2 of 195 pairs that share 16 to 65% of a photograph; 256 tie two more strangers
MIN_INLIERS = 6
SLACK = 0.88  # scale up to which a part has room to be looked for; a whole picture is looked for by its middle
MAX_SCALE = 4.0
MAX_ANISOTROPY = 1.6  # a 4:3 picture stretched to 16:9 has 1.33
MAX_ROTATION = 30.0  # degrees
MIN_OVERLAP = 0.25  # share of the smaller picture; less may be a caption, at the top of one and the foot of the other
COARSE = 2  # pixels of a thumbnail, each way, that are one where an overlay is tried first
HOPELESS = 0.2  # so much below the asked score it is not tried further; of 1,184 planted copies' pairs none is 0.11
BLOCKS = 10  # the overlap is compared in about BLOCKS x BLOCKS pieces of a whole picture
MIN_BLOCKS = 5  # pieces with something to see in them
FLAT = 3.0  # grey levels: a piece whose standard deviation is lower shows nothing
TEXTURED = 9.0  # grey levels: a piece whose standard deviation is higher counts as texture ...
TEXTURED_SHARE = 0.3  # ... or this share of the whole picture's, where that is less: dark and hazy pictures
COLOURED = 12.0  # levels of Cb and Cr away from grey: less is no colour but noise and compression
CONTRARY = 35.0  # levels between the colours of two places, the tint of the whole allowed for: not one colour
EDGE = 0.1  # ... and as much more of what the colour changes by from there to the next place
MAX_TINT = 40.0  # levels that a camera's or publisher's tint may move all colours by
NEAR = 13  # pixels of a thumbnail, each way, that are looked at to tell whether two places show the same shapes ...
SAME_SHAPE = 0.5  # ... by the absolute value of their correlation
TONED = 6.0  # levels of colour that brightness does not explain, below which a picture is black and white, or sepia
FADED = 0.7  # agreement of colours from which the paler picture is taken for a faded version of the other

# The places of a mirror image's descriptor in the picture's own: see `mirrored`.
MIRROR_IMAGE = np.arange(128).reshape(4, 4, 8)[::-1][..., [0, 7, 6, 5, 4, 3, 2, 1]].ravel()


@dataclass(frozen=True)
class Overlap:
    """The overlap of two pictures, one laid over the other.

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
class Colours:
    """How the colours of two pictures agree where they overlap.

    `agreement` is the correlation of their Cb and Cr, -1 to 1, 0 where either picture has none; `contrary` the share of
    places, of about 400 in a whole picture, that show the same shapes in other colours, after the tint of the whole is
    taken out; `different` the share of places in other colours, whatever they show.
    """

    agreement: float
    contrary: float
    different: float


UNKNOWN = Colours(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Likeness:
    """How alike two thumbnails are when one is laid over the other.

    `ecc` is the enhanced correlation coefficient, 0 where the overlay failed; `firm` the 25th percentile of the
    correlations of the blocks with clear texture, `textured` their number.
    """

    ecc: float
    overlap: Overlap
    firm: float
    textured: int
    colours: Colours


UNLIKE = Likeness(0.0, NOTHING, 0.0, 0, UNKNOWN)


def copy_score(likeness: Likeness) -> float:
    """Return a score for two pictures being one shot; from `group.min_evidence` on (6.5) they are taken for one.

    atanh(firm) + 1.3 ln(textured) + 1.1 agreement: form and weights are a logistic regression's, on 650 pairs
    of CIFAR-10 that people sorted by eye into copies and different pictures (see docs/leakage.md). Where
    colours agree fully, 6.5 asks for a 25th percentile of 0.84 with 25 textured blocks, and of 0.2 with 55.
    """
    if likeness.textured < MIN_BLOCKS:
        return 0.0
    firm = min(max(likeness.firm, -0.99), 0.99)
    return math.atanh(firm) + 1.3 * math.log(likeness.textured) + 1.1 * likeness.colours.agreement


@dataclass(frozen=True)
class Local:
    """Local features of one grey picture: points (K, 2) in pixels, RootSIFT descriptors (K, 128) of length 1."""

    grey: Grey
    points: NDArray[np.float32]
    descriptors: NDArray[np.float32]


def shrink(grey: Grey, longer_side: int = LOCAL_SIDE) -> Grey:
    """Return the picture, grey or RGB, its longer side reduced to at most `longer_side` by area averaging."""
    height, width = grey.shape[:2]
    factor = longer_side / max(height, width)
    if factor >= 1:
        return grey
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def thumbnail(grey: Grey) -> Grey:
    """Return (72, 96): the picture stretched, by area averaging."""
    return np.asarray(cv2.resize(grey, THUMBNAIL, interpolation=cv2.INTER_AREA), np.uint8)


def correlation(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Return Pearson's correlation of two arrays of one shape; 0 where one is constant."""
    x, y = a.astype(np.float32).ravel(), b.astype(np.float32).ravel()
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 1e-6 else 0.0


def part(thumb: Grey, box: tuple[float, float, float, float]) -> Grey:
    """Return the part of a thumbnail inside `box` (left, top, right, bottom as shares of it), stretched to (72, 96)."""
    affine = _cut(box)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(thumb, affine, THUMBNAIL, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _cut(box: tuple[float, float, float, float]) -> Affine:
    """From pixels of the part to pixels of the thumbnail that it is cut from."""
    (width, height), (left, top, right, bottom) = THUMBNAIL, box
    return np.array(
        [
            [(right - left), 0, left * width - 0.5 + 0.5 * (right - left)],
            [0, (bottom - top), top * height - 0.5 + 0.5 * (bottom - top)],
        ]
    )


def locate(a: Grey, b: Grey, scale: float) -> tuple[float, tuple[float, float, float, float]]:
    """Find the place in thumbnail `a` where `b`, shrunk by `scale`, fits best.

    Returns the correlation there and the place as left, top, right, bottom, in shares of `a`.
    """
    width, height = THUMBNAIL[0] // 2, THUMBNAIL[1] // 2
    middle = SLACK if scale > SLACK else 1.0  # nearly as large as `a`: only its middle can be moved about
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

    Returns the enhanced correlation coefficient (0 where it does not converge) and the overlap.
    """
    ecc, warp = _refined(a, b)
    return (ecc, NOTHING) if warp is None else (ecc, compare_overlap(a, b, _inverse(warp), blur=0.0))


def align_whole(a: Grey, b: Grey) -> tuple[Overlap, Affine | None]:
    """Return the overlap of `align_thumbnails`, and the map from pixels of `a` to pixels of `b`."""
    _, warp = _refined(a, b)
    return (NOTHING, None) if warp is None else (compare_overlap(a, b, _inverse(warp), blur=0.0), _inverse(warp))


def compare_thumbnails(a: Grey, b: Grey, place: tuple[float, float, float, float], min_score: float = -1.0) -> Likeness:
    """Lay the part `place` of thumbnail `a` over `b`, refine that, and return what they have in common.

    Args:
        a, b: (72, 96) grey, or (81, 96) with colours below (see plumbline.imaging.hashing.stored_thumbnail).
        place: left, top, right, bottom in shares of `a`, from `locate`.
        min_score: of an overlap with a lower score the colours are not looked at, and one that half the resolution
            shows to be far below it is not refined, which saves half of the time.
    """
    grey_a, grey_b = grey_of(a), grey_of(b)
    wanted = part(grey_a, place)
    rough = _roughly_refined(wanted, grey_b)
    if rough is not None:
        overlap = compare_overlap(wanted, grey_b, _inverse(rough), blur=0.0)
        if overlap.score < min_score - HOPELESS:
            return Likeness(0.0, overlap, 0.0, 0, UNKNOWN)
    ecc, warp = _refined(wanted, grey_b)
    if warp is None:
        return UNLIKE
    affine = _inverse(_after(place, warp))  # pixels of a to pixels of b
    overlap, blocks = _overlap_and_blocks(grey_a, grey_b, affine, blur=0.0)
    level = min(TEXTURED, max(FLAT, TEXTURED_SHARE * float(grey_b.std())))
    textured = blocks[0][blocks[1] > level]
    firm = _quantile(np.sort(textured), 0.25) if len(textured) else 0.0
    colours = compare_colours(a, b, affine) if overlap.score >= min_score else UNKNOWN
    return Likeness(ecc, overlap, firm, len(textured), colours)


def turned(thumb: Grey) -> Grey:
    """Return the thumbnail of the mirror image, colours included."""
    grey, planes = grey_of(thumb)[:, ::-1], chroma_of(thumb)
    if planes is None:
        return np.ascontiguousarray(grey)
    return np.vstack([grey, np.ascontiguousarray(planes[:, :, ::-1]).reshape(-1, THUMBNAIL[0])])


def grey_of(thumb: Grey) -> Grey:
    """Return the (72, 96) grey of a thumbnail, with or without colours."""
    return np.ascontiguousarray(thumb[: THUMBNAIL[1]])


def chroma_of(thumb: Grey) -> Grey | None:
    """Return the (2, 18, 24) Cb and Cr of a thumbnail, None where it has no colours."""
    return thumb[THUMBNAIL[1] :].reshape(2, *CELLS) if len(thumb) > THUMBNAIL[1] else None


def compare_colours(a: Grey, b: Grey, affine: Affine) -> Colours:
    """Compare the colours of two thumbnails where `affine` (pixels of `a` to pixels of `b`) lays one over the other.

    A picture may be tinted, faded or black and white as a whole. A place that differs in colour even then, such as a
    helmet that is red here and blue there, is contrary.
    """
    planes_a, planes_b = chroma_of(a), chroma_of(b)
    if planes_a is None or planes_b is None:
        return UNKNOWN
    to_pixels = np.array([[CELL, 0, (CELL - 1) / 2], [0, CELL, (CELL - 1) / 2], [0, 0, 1]])
    cells = (np.linalg.inv(to_pixels) @ np.vstack([affine, [0, 0, 1]]) @ to_pixels)[:2]
    size = (CELLS[1], CELLS[0])
    inside = cv2.warpAffine(np.ones(CELLS, np.uint8), cells, size, flags=cv2.INTER_NEAREST).astype(bool)
    if inside.sum() < MIN_CELLS:
        return UNKNOWN
    lumas = [cv2.resize(grey_of(thumb), size, interpolation=cv2.INTER_AREA) for thumb in (a, b)]
    first = np.dstack([*planes_a, lumas[0]])
    first = cv2.warpAffine(first, cells, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    second = np.dstack([*planes_b, lumas[1]])
    same_shape = _same_shape(grey_of(a), grey_of(b), affine)
    allowed = CONTRARY + EDGE * _colour_range(second[..., :2])
    places = [planes[inside].astype(np.float64) for planes in (first, second)]
    return _colours(places[0], places[1], same_shape[inside], allowed[inside])


def _colour_range(planes: Grey) -> NDArray[np.float64]:
    """How much Cb and Cr (18, 24, 2) change from each cell to the next: a pixel of misfit there is another colour."""
    near = np.ones((3, 3), np.uint8)
    change = cv2.dilate(planes, near).astype(np.float64) - cv2.erode(planes, near)
    return np.asarray(np.linalg.norm(change, axis=2))


def _same_shape(a: Grey, b: Grey, affine: Affine) -> NDArray[np.bool_]:
    """Which cells (18, 24) of `b` show the same shapes, or none, in both pictures, whether dark on bright or reversed.

    Elsewhere, as where somebody walked into the scene, other colours mean nothing.
    """
    x = cv2.warpAffine(a, affine, THUMBNAIL, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    y = b.astype(np.float32)
    likeness, spread = _local_correlation(x, y)
    ends, _ = _local_correlation(_edges(x), _edges(y))
    same = (np.abs(likeness) >= SAME_SHAPE) | (ends >= SAME_SHAPE) | (spread < FLAT**2)
    return np.asarray(same[CELL // 2 :: CELL, CELL // 2 :: CELL])


def _edges(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """How steep a picture is at each pixel: where things end, whichever of the two sides is brighter."""
    return np.asarray(cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)))


def _local_correlation(
    x: NDArray[np.float32], y: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The correlation of two greys around each pixel, and the larger of their variances there."""
    mean_x, mean_y, xx, yy, xy = (cv2.boxFilter(v, -1, (NEAR, NEAR)) for v in (x, y, x * x, y * y, x * y))
    spread_x, spread_y = np.maximum(xx - mean_x**2, 0.0), np.maximum(yy - mean_y**2, 0.0)
    correlation = (xy - mean_x * mean_y) / np.maximum(np.sqrt(spread_x * spread_y), 0.25)
    return np.asarray(correlation), np.asarray(np.maximum(spread_x, spread_y))


def _colours(
    a: NDArray[np.float64], b: NDArray[np.float64], same_shape: NDArray[np.bool_], allowed: NDArray[np.float64]
) -> Colours:
    """Compare (N, 3) Cb, Cr and luma of places that lie over one another; `same_shape` (N,) are those that count,
    `allowed` (N,) how far apart two colours there may be.

    Fading takes all colours alike: where it was the helmet alone that became pale, it is another helmet.
    """
    u, v = a[:, :2] - 128, b[:, :2] - 128
    p, q = u - u.mean(axis=0), v - v.mean(axis=0)
    spread = np.sqrt((p * p).sum() * (q * q).sum())
    agreement = float((p * q).sum() / spread) if min((p * p).sum(), (q * q).sum()) > len(u) else 0.0
    own = [_own_colour(a), _own_colour(b)]
    if min(own) < TONED and max(own) > TONED:  # one in black and white, or sepia: then it is as bright everywhere
        coloured = np.maximum(np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=1)) > COLOURED
        other = _unlike_brightness(a[:, 2], b[:, 2]) & coloured
        return Colours(agreement, float((other & same_shape).mean()), float(other.mean()))
    if agreement >= FADED:  # faded by how much: least squares say it
        common = (p * q).sum()
        u, v = u * min(1.0, common / (p * p).sum()), v * min(1.0, common / (q * q).sum())
    tint = np.median(v - u, axis=0)
    tint *= min(1.0, MAX_TINT / max(float(np.linalg.norm(tint)), 1e-9))
    other = np.linalg.norm(v - u - tint, axis=1) > allowed
    return Colours(agreement, float((other & same_shape).mean()), float(other.mean()))


def _own_colour(places: NDArray[np.float64]) -> float:
    """How much colour (99th percentile, in levels) places (N, 3) of Cb, Cr and luma have that is no tone of the luma.

    Black and white, sepia and blueprints have next to none.
    """
    luma = places[:, 2] / 255
    tones = np.stack([np.ones_like(luma), luma, luma * luma], axis=1)
    colour = places[:, :2] - 128
    weights = np.linalg.solve(tones.T @ tones + 1e-6 * np.eye(3), tones.T @ colour)  # least squares, of one luma, too
    left = colour - tones @ weights
    return float(np.quantile(np.linalg.norm(left, axis=1), 0.99))


def _unlike_brightness(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where the brightness of two pictures differs after exposure and contrast of the whole are evened out."""
    gain = np.clip(b.std() / max(a.std(), 1.0), 0.5, 2.0)
    return np.asarray(np.abs(b - np.median(b) - gain * (a - np.median(a))) > CONTRARY)


def _refined(a: Grey, b: Grey) -> tuple[float, Affine | None]:
    """The ECC of two greys of one size and the affine from pixels of `b` to pixels of `a`; None where there is none."""
    ecc, warp = _ecc(a, b, blur=5, gain=1e-3)  # 1e-4: twice the time, same verdicts
    return (ecc, warp) if warp is not None and plausible(warp) else (0.0, None)


def _roughly_refined(a: Grey, b: Grey) -> Affine | None:
    """About the same affine, found at half the resolution in a third of the time; None where none is found.

    To begin `_refined` there would save more, but moves scores by 0.03 either way and costs one of ciFAIR's pairs.
    """
    size = (a.shape[1] // COARSE, a.shape[0] // COARSE)
    small = [np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8) for grey in (a, b)]
    # The blur is small like the picture: after one of 5 pixels, 6 of 1,184 copies would be called hopeless.
    _, warp = _ecc(small[0], small[1], blur=3, gain=3e-3)
    if warp is None or not plausible(warp):
        return None
    middle = (COARSE - 1) / 2  # of the pixels that became one
    shift = COARSE * warp[:, 2] + middle - warp[:, :2] @ np.array([middle, middle])
    return np.column_stack([warp[:, :2], shift])


def _ecc(a: Grey, b: Grey, blur: int, gain: float) -> tuple[float, Affine | None]:
    """Maximise the ECC of two greys of one size over affine maps from pixels of `b` to pixels of `a`.

    Evangelidis and Psarakis 2008, "Parametric image alignment using enhanced correlation coefficient maximization".
    It ends after 30 steps, or where a step gains less than `gain`.
    """
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, gain)
    start = np.eye(2, 3, dtype=np.float32)
    try:
        ecc, warp = cv2.findTransformECC(b, a, start, cv2.MOTION_AFFINE, stop, np.full_like(a, 255), blur)
    except cv2.error:  # no texture, or the overlap ran off the picture
        return 0.0, None
    return float(ecc), np.asarray(warp, np.float64)


def _inverse(affine: Affine) -> Affine:
    return np.asarray(cv2.invertAffineTransform(affine), np.float64)


def _after(place: tuple[float, float, float, float], warp: Affine) -> Affine:
    """The map from pixels of b to pixels of all of a, from `warp`, which maps to the part `place` of a."""
    return np.asarray((np.vstack([_cut(place), [0, 0, 1]]) @ np.vstack([warp, [0, 0, 1]]))[:2], np.float64)


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
    """Return the features that `local_features` would find in the mirror image, without computing them again.

    A descriptor is a 4 x 4 grid of 8 orientations in its keypoint's own frame; a mirror image reverses the grid's rows
    and the sense of the orientations.
    """
    points = local.points.copy()
    points[:, 0] = local.grey.shape[1] - 1 - points[:, 0]
    return Local(np.ascontiguousarray(local.grey[:, ::-1]), points, np.take(local.descriptors, MIRROR_IMAGE, axis=1))


def align_local(a: Local, b: Local, ratio: float = 0.8) -> tuple[int, Overlap]:
    """Return how many matches agree on one affine map from `a` to `b`, and the overlap under it; see `locate_local`."""
    inliers, affine = locate_local(a, b, ratio)
    return inliers, NOTHING if affine is None else compare_overlap(a.grey, b.grey, affine)


def locate_local(a: Local, b: Local, ratio: float = 0.8) -> tuple[int, Affine | None]:
    """Return how many matches agree on one affine map from pixels of `a` to pixels of `b`, and the map.

    Matches pass Lowe's ratio test; the map comes from RANSAC (3 pixels) and must be one a publisher applies: no mirror,
    scale up to 4, stretch up to 1.6, rotation up to 30 degrees; else None.
    """
    if min(len(a.points), len(b.points)) < MIN_INLIERS:
        return 0, None
    chosen = _matches(b.descriptors @ a.descriptors.T, ratio)
    rows = np.flatnonzero(chosen >= 0)
    if len(rows) < MIN_INLIERS:
        return 0, None
    affine, inside = cv2.estimateAffine2D(
        a.points[rows],
        b.points[chosen[rows]],
        method=cv2.RANSAC,
        ransacReprojThreshold=3,
        maxIters=500,
        confidence=0.99,
    )
    inliers = 0 if affine is None else int(inside.sum())
    good = inliers >= MIN_INLIERS and plausible(affine)
    return inliers, np.asarray(affine, np.float64) if good else None


def on_thumbnails(affine: Affine, a: Grey, b: Grey) -> Affine:
    """Return a map from pixels of `a` to pixels of `b` as one between the pixels of their thumbnails."""

    def shrinking(grey: Grey) -> Affine:
        x, y = THUMBNAIL[0] / grey.shape[1], THUMBNAIL[1] / grey.shape[0]
        return np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])

    return np.asarray((shrinking(b) @ np.vstack([affine, [0, 0, 1]]) @ np.linalg.inv(shrinking(a)))[:2], np.float64)


@njit(cache=True, nogil=True)
def _matches(similarity: NDArray[np.float32], ratio: float) -> NDArray[np.int64]:
    """For each column the best row, where clearly better than the second best, else -1 (unit vectors).

    Row after row, so that the processor compares many columns at once: an eighth of the time of one after the other.
    """
    rows, columns = similarity.shape
    best, second = np.full(columns, np.float32(-2)), np.full(columns, np.float32(-2))
    for i in range(rows):
        for j in range(columns):
            s = similarity[i, j]
            second[j] = max(second[j], min(best[j], s))
            best[j] = max(best[j], s)
    chosen = np.full(columns, -1, np.int64)
    for j in range(columns):
        if 2 - 2 * best[j] < ratio * ratio * (2 - 2 * second[j]):  # |x - y|^2 = 2 - 2 x.y
            i = 0
            while similarity[i, j] != best[j]:
                i += 1
            chosen[j] = i
    return chosen


def plausible(affine: Affine) -> bool:
    """Return whether an affine map is a plausible re-publication: rotation, scale and stretch within bounds."""
    linear = affine[:, :2]
    u, (large, small), vt = np.linalg.svd(linear)
    if np.linalg.det(linear) <= 0 or large > MAX_SCALE or small < 1 / MAX_SCALE or large > MAX_ANISOTROPY * small:
        return False
    rotation = u @ vt
    return bool(abs(np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0]))) <= MAX_ROTATION)


def compare_overlap(a: Grey, b: Grey, affine: Affine, blur: float = 2.0) -> Overlap:
    """Lay `a` over `b` by `affine` (pixels of `a` to pixels of `b`) and compare them block by block.

    `blur` is the standard deviation in pixels of a Gaussian on both, so that an alignment may be a pixel off.
    """
    return _overlap_and_blocks(a, b, affine, blur)[0]


def _overlap_and_blocks(
    a: Grey, b: Grey, affine: Affine, blur: float
) -> tuple[Overlap, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The overlap, and the correlation and standard deviation of each block that is not flat."""
    height, width = b.shape
    nothing = np.zeros(0, np.float32)
    warped = cv2.warpAffine(a, affine, (width, height), flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones_like(a), affine, (width, height), flags=cv2.INTER_NEAREST)
    covered = float(cv2.countNonZero(inside))
    area_of_a = a.size * abs(float(np.linalg.det(affine[:, :2])))
    share, common = covered / max(min(b.size, area_of_a), 1.0), covered / max(b.size, area_of_a)
    if share < MIN_OVERLAP:
        return NOTHING, (nothing, nothing)
    x, y = np.asarray(warped, np.float32), b.astype(np.float32)
    if blur:
        x, y = (np.asarray(cv2.GaussianBlur(v, (0, 0), blur), np.float32) for v in (x, y))
    scores, texture = _blocks(x, y, np.asarray(inside, np.uint8), _side(height), _side(width))
    if len(scores) < MIN_BLOCKS:
        return Overlap(0.0, 0.0, share, common, len(scores)), (scores, texture)
    rising = np.sort(scores)
    overlap = Overlap(_quantile(rising, 0.5), _quantile(rising, 0.02), share, common, len(scores))
    return overlap, (scores, texture)


def _quantile(rising: NDArray[np.float32], share: float) -> float:
    """As numpy.quantile of sorted numbers, which takes longer on them than comparing the pictures."""
    place = share * (len(rising) - 1)
    below = int(place)
    low, high = float(rising[below]), float(rising[min(below + 1, len(rising) - 1)])
    return low + (high - low) * (place - below)


def _side(length: int) -> int:
    return max(8, length // BLOCKS)


@njit(cache=True, nogil=True)
def _blocks(
    x: NDArray[np.float32], y: NDArray[np.float32], inside: NDArray[np.uint8], rows: int, columns: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Correlation and texture (the larger standard deviation) of each block that lies inside and is not flat."""
    most = (x.shape[0] // rows) * (x.shape[1] // columns)
    scores, texture = np.empty(most, np.float32), np.empty(most, np.float32)
    found, size = 0, rows * columns
    for top in range(0, x.shape[0] - rows + 1, rows):
        for left in range(0, x.shape[1] - columns + 1, columns):
            whole, mean_x, mean_y = True, 0.0, 0.0
            for i in range(top, top + rows):
                for j in range(left, left + columns):
                    whole = whole and inside[i, j] != 0
                    mean_x += x[i, j]
                    mean_y += y[i, j]
            if not whole:
                continue
            mean_x, mean_y = mean_x / size, mean_y / size
            xx, yy, xy = 0.0, 0.0, 0.0
            for i in range(top, top + rows):
                for j in range(left, left + columns):
                    p, q = x[i, j] - mean_x, y[i, j] - mean_y
                    xx, yy, xy = xx + p * p, yy + q * q, xy + p * q
            deviation_x, deviation_y = np.sqrt(xx / size), np.sqrt(yy / size)
            if max(deviation_x, deviation_y) > FLAT:
                scores[found] = xy / size / max(deviation_x * deviation_y, 0.25)
                texture[found] = max(deviation_x, deviation_y)
                found += 1
    return scores[:found].copy(), texture[:found].copy()
