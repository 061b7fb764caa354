"""Folders called train and test: a published split rather than classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from itertools import dropwhile
from pathlib import PurePosixPath
from typing import Literal

from plumbline.common.errors import UserError
from plumbline.imaging.pictures import PUBLISHED, Found, Refused
from plumbline.imaging.settings import DataParams

Side = Literal["train", "validation", "test", "none"]

_SIDES: dict[str, Side] = {
    **dict.fromkeys(("train", "training", "trn", "trainval", "fit"), "train"),
    **dict.fromkeys(("val", "vali", "valid", "validation", "validate", "dev", "devel", "development"), "validation"),
    **dict.fromkeys(("test", "tests", "testing", "tst", "eval", "evaluation", "holdout", "heldout"), "test"),
    # Parts that come without labels, or beside a split.
    **dict.fromkeys(("unlabeled", "unlabelled", "unlabled", "unsup", "unsupervised"), "none"),
    **dict.fromkeys(("pred", "predict", "prediction", "predictions", "extra", "submission"), "none"),
}
# What stands before or behind such a name: seg_train, train_set, TrainData, images-test, test2017, val_1.
_AROUND = {
    *("seg", "set", "sets", "data", "dataset", "split", "splits", "subset", "part", "fold", "the", "my", "new"),
    *("image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos", "folder", "dir"),
    *("jpg", "jpeg", "png", "bmp", "webp"),
    *(
        "samples",
        "examples",
        "full",
        "all",
        "small",
        "large",
        "final",
        "raw",
        "cropped",
        "resized",
        "public",
        "private",
    ),
}
_GLUED = re.compile(
    r"(?:seg|data|images?|imgs?)?(train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?|dev|eval|holdout)"
    r"(?:sets?|data(?:sets?)?|images?|imgs?|split)?"
)


def side_of(name: str) -> Side | None:
    """Return which side of a split a folder of this name is, "none" for one without labels; None for other names.

    `Training`, `test_set`, `seg_train`, `TrainImages`, `val2017`, `hold-out` and `DEV` are such names; `train_station`
    is not.
    """
    side, rest = _side_and_rest(name)
    return side if rest == () else None


def _side_and_rest(name: str) -> tuple[Side | None, tuple[str, ...]]:
    """The side that a name holds a word for, and its words that say something else: cifar_train is train, (cifar,)."""
    text = unicodedata.normalize("NFKC", name)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).casefold()
    text = re.sub(r"(hold|held)[^a-z]*out", "holdout", text)
    text = re.sub(r"images[^a-z]*t([rs])\b", lambda found: {"r": "train", "s": "test"}[found.group(1)], text)
    if not text.isascii():
        return None, (text,)
    words = [word for word in re.split(r"[^a-z]+", text) if word]
    sides: list[Side] = []
    rest: list[str] = []
    for word in words:
        glued = _GLUED.fullmatch(word)
        side = _SIDES.get(word) or (_SIDES.get(glued.group(1)) if glued else None)
        if side:
            sides.append(side)
        elif word not in _AROUND and not (len(word) == 1 and len(words) > 1):
            rest.append(word)
    if not sides:
        return None, tuple(rest)
    return sides[0] if len(set(sides)) == 1 else "none", tuple(rest)


def find_split(tops: Collection[str]) -> dict[str, Side]:
    """Return {folder: side} where the folders at the top of a set are a split, else nothing.

    They are where all are called so, or two of different sides are: `train` beside `bus` and `car` is a class. So are
    folders that are all called alike but for the side, such as `cifar_train` and `cifar_test`.
    """
    sides = {name: side for name in tops if (side := side_of(name))}
    whole = bool(tops) and len(sides) == len(set(tops)) and set(sides.values()) != {"none"}
    two = len({side for side in sides.values() if side != "none"}) > 1
    if whole or two:
        return sides
    parted = {name: _side_and_rest(name) for name in tops}
    named = {name: side for name, (side, _) in parted.items() if side}
    alike = len({rest for _, rest in parted.values()}) == 1 and len(named) == len(parted)
    return named if alike and len(set(named.values()) - {"none"}) > 1 else {}


def settle_split(found: Found, params: DataParams) -> None:
    """Label pictures below train and test by the next folder, as `data.published_split` allows; else UserError."""
    tops = _tops(row["path"] for row in found.rows)
    sides = find_split(tops)
    if not sides:
        _refuse_wrapped(tops, found, params)
        _settle_inside_classes(found, params)
        return
    if params.published_split == "refuse":
        raise UserError(_how_to_settle(sides, params))
    rows = []
    for row in found.rows:
        top, *inside = PurePosixPath(row["path"]).parts[:-1] or ("",)
        side = sides.get(top)
        if side is None:
            rows.append(row)
            continue
        classes = _without_sides(top, inside)
        if not classes and side == "none":
            reason = f"lies in {top}, a part of the published split without classes: remove it, or label it"
            found.refused.append(Refused(row["path"], reason, "label"))
            continue
        row["label"] = classes[0] if classes else ""
        if params.published_split == "keep":
            row[PUBLISHED] = "train" if side == "none" else side
        rows.append(row)
    found.rows = rows


def _without_sides(top: str, inside: Sequence[str]) -> list[str]:
    """The folders below `top` that say what a picture shows; archives repeat the side: seg_train/seg_train/forest."""
    return list(dropwhile(lambda name: name == top or side_of(name) is not None, inside))


def _settle_inside_classes(found: Found, params: DataParams) -> None:
    """The other order, cat/train and cat/test: the classes are right, and there is a published split below them."""
    second = [PurePosixPath(row["path"]).parts[1:2] if row["path"].count("/") > 1 else () for row in found.rows]
    sides = find_split({name for names in second for name in names})
    if len(set(sides.values()) - {"none"}) < 2 or not all(names and names[0] in sides for names in second):
        return
    if params.published_split == "refuse":
        raise UserError(
            f"the class folders of {params.root}/ are split already ({', '.join(sorted(sides))} in each): set "
            "data.published_split to merge (`split` draws anew) or keep (who is train and test stays so, and training "
            f"pictures that leak into test are set aside): `plumbline init {params.root} --published-split merge`."
        )
    if params.published_split == "keep":
        for row, names in zip(found.rows, second, strict=True):
            row[PUBLISHED] = "train" if sides[names[0]] == "none" else sides[names[0]]


def _tops(paths: Iterable[str]) -> set[str]:
    return {path.split("/", 1)[0] for path in paths if "/" in path}


def _refuse_wrapped(tops: Collection[str], found: Found, params: DataParams) -> None:
    """A folder around the split, as in archives: data/archive/Training/cat."""
    if len(tops) != 1:
        return
    (top,) = tops
    inner = [row["path"].split("/", 1)[1] for row in found.rows if "/" in row["path"]]
    if find_split(_tops(inner)):
        names = ", ".join(sorted(_tops(inner)))
        raise UserError(
            f"{params.root}/ holds one folder, {top}/, with a split in it ({names}): move what {top}/ holds up into "
            f"{params.root}/, then say what to do with the split under data.published_split."
        )


def _how_to_settle(sides: dict[str, Side], params: DataParams) -> str:
    names = sorted(sides)
    folders = " ".join(f"{params.root}/{name}" for name in names if sides[name] != "none")
    return (
        f"{params.root}/ is split already ({', '.join(names)}), and these are no classes: set data.published_split to "
        "merge (their class folders become one set, and `split` parts it anew) or to keep (who is train and test stays "
        f"so, and training pictures that leak into test are set aside), or call `plumbline init {params.root} "
        f"--published-split merge`; `plumbline audit {folders}` checks the split."
    )
