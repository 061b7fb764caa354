"""Folders called train and test: a published split rather than classes."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import dropwhile
from pathlib import PurePosixPath
from shlex import quote
from typing import Literal

from plumbline.common.errors import UserError
from plumbline.imaging.pictures import PUBLISHED, Found, Refused
from plumbline.imaging.settings import DataParams

Side = Literal["train", "validation", "test", "none"]

_SIDES: dict[str, Side] = {
    **dict.fromkeys(("train", "training", "trn", "trainval", "fit"), "train"),
    **dict.fromkeys(("val", "vali", "valid", "validation", "validate", "vld", "minival"), "validation"),
    **dict.fromkeys(("dev", "devel", "development"), "validation"),
    **dict.fromkeys(("test", "tests", "testing", "tst", "testdev", "holdout", "heldout"), "test"),
    **dict.fromkeys(("eval", "evaluate", "evaluation"), "test"),
    # As other languages call them, without their accents.
    **dict.fromkeys(("trainingsdaten", "entrenamiento", "treino", "treinamento", "entrainement"), "train"),
    **dict.fromkeys(("apprentissage", "addestramento", "allenamento", "тренировка", "обучение"), "train"),
    **dict.fromkeys(("训练", "訓練", "学習", "훈련", "학습"), "train"),
    **dict.fromkeys(("validierung", "validierungsdaten", "validacion", "validacao", "validazione"), "validation"),
    **dict.fromkeys(("валидация", "验证", "驗證", "検証", "검증"), "validation"),
    **dict.fromkeys(("testdaten", "prueba", "pruebas", "teste", "testes", "тест"), "test"),
    **dict.fromkeys(("测试", "測試", "テスト", "테스트", "시험"), "test"),
    # Parts that come without labels, or beside a split.
    **dict.fromkeys(("unlabeled", "unlabelled", "unlabled", "unsup", "unsupervised"), "none"),
    **dict.fromkeys(("pred", "predict", "prediction", "predictions", "extra", "submission"), "none"),
}
# What stands before or behind such a name: seg_train, train_set, TrainData, images-test, test2017, val_1.
_AROUND = {
    *("seg", "set", "sets", "data", "dataset", "split", "splits", "subset", "part", "fold", "the", "my", "new"),
    *("image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos", "folder", "dir"),
    *("jpg", "jpeg", "png", "bmp", "webp", "file", "files", "bounding", "bbox", "box", "boxes"),
    *("sample", "samples", "examples", "full", "all", "mini", "tiny", "small", "large", "final", "public", "private"),
    *("raw", "original", "orig", "clean", "cleaned", "cropped", "resized", "hq", "lq", "aug", "augmented"),
    *("augmentation", "labeled", "labelled"),
}
_GLUED = re.compile(
    r"(?:seg|data|images?|imgs?|x|mini)?(train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?|dev|eval|holdout)"
    r"(?:sets?|data(?:sets?)?|images?|imgs?|photos?|pics?|pictures?|files?|split)?"
)
_LONG = ("training", "validation", "evaluation")
_SLIPS = 0.9  # of difflib's likeness: vaildation and traning are slips of the pen, trailing is another word
_FOLD = re.compile(r"(?:fold|split|cv|part|partition)[ _.-]*\d+|\d+[ _.-]*fold", re.I)
# How Roboflow names the copies that it augments, and those of copies that were brought to it again.
AUGMENTED = re.compile(r"\.rf\.[0-9A-Za-z]{16,}(_[a-z]{3,4}\.rf\.[0-9A-Za-z]{16,})*$")
# A folder that only says that pictures are in it: train/images/cat, or images/ beside labels/ and masks/.
OF_PICTURES = {
    *("image", "images", "img", "imgs", "jpegimages", "picture", "pictures", "photo", "photos"),
    *("leftimg8bit", "rgb", "inputs"),
}
# Words in names of folders that say where, when or in which series pictures were taken, and not what they show.
_WHERE = {
    *("site", "camera", "cam", "location", "loc", "place", "plant", "factory", "gate", "hall", "yard", "room"),
    *("building", "station", "store", "shop", "farm", "field", "hospital", "clinic", "lab", "city", "region", "area"),
    *("zone", "device", "scanner", "video", "clip", "sequence", "seq", "scene", "session", "batch", "shift", "day"),
    *("week", "month", "year", "subject", "patient", "person", "user"),
}
# Names of classes that say what is not there: of folders that hold each other these are the classes.
_DENIES = re.compile(r"(?:no|non|not|without|un|missing|lacks?)(?:[ _-]|(?-i:(?=[A-Z])))", re.I)

_ACCENTS = dict.fromkeys(range(0x300, 0x36F))


def side_of(name: str) -> Side | None:
    """Return which side of a split a folder of this name is, "none" for one without labels; None for other names.

    `Training`, `test_set`, `seg_train`, `TrainImages`, `val2017`, `hold-out` and `DEV` are such names; `train_station`
    is not.
    """
    side, rest = _side_and_rest(name)
    return side if rest == () else None


def _side_and_rest(name: str) -> tuple[Side | None, tuple[str, ...]]:
    """The side that a name holds a word for, and its words that say something else: cifar_train is train, (cifar,)."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", name).translate(_ACCENTS))
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).casefold()
    text = re.sub(r"(hold|held)[^a-z]*out", "holdout", text)
    text = re.sub(r"images[^a-z]*t([rs])\b", lambda found: {"r": "train", "s": "test"}[found.group(1)], text)
    if not text.isascii():
        side = _SIDES.get(re.sub(r"(?:[集組组]|数据集?|データ|[\W\d_])+$", "", text))
        return side, () if side else (text,)
    words = [word for word in re.split(r"[^a-z]+", text) if word]
    sides: list[Side] = []
    rest: list[str] = []
    for word in words:
        glued = _GLUED.fullmatch(word)
        side = _SIDES.get(word) or (_SIDES.get(glued.group(1)) if glued else _slip(word))
        if side:
            sides.append(side)
        elif word not in _AROUND and not (len(word) == 1 and len(words) > 1):
            rest.append(word)
    if not sides:
        labelled = not rest and bool({"labeled", "labelled"} & set(words))
        return ("train" if labelled else None), tuple(rest)
    return sides[0] if len(set(sides)) == 1 else "none", tuple(rest)


def _slip(word: str) -> Side | None:
    """The side whose long name was mistyped: `traning`, `vaildation`."""
    close = difflib.get_close_matches(word, [one for one in _LONG if one[0] == word[0]], 1, _SLIPS)
    return _SIDES[close[0]] if close else None


def photograph(path: str) -> str:
    """A photograph's name: its path without suffix, folders called train or test, and Roboflow's mark of a copy."""
    parts = PurePosixPath(path).with_suffix("").parts
    folders = [part for part in parts[:-1] if side_of(part) is None]
    return "/".join([*folders, AUGMENTED.sub("", parts[-1])])


def find_split(tops: Collection[str]) -> dict[str, Side]:
    """Return {folder: side} where the folders at the top of a set are a split, else nothing.

    They are where all are called so, or two of different sides are: `train` beside `bus` and `car` is a class. So are
    folders that are all called alike but for the side, such as `cifar_train` and `cifar_test`.
    """
    if {name.casefold() for name in tops} <= {"labeled", "labelled"}:
        return {}  # one folder of pictures that are labelled: no part beside it
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
        _refuse_folds(tops, found, params)
        _refuse_class_and_side(tops, params)
        _refuse_wrapped(found, params)
        _settle_inside_classes(found, params)
        _refuse_sites([PurePosixPath(row["path"]).parts[:-1] for row in found.rows], params)
        return
    if params.published_split == "refuse":
        raise UserError(_how_to_settle(sides, params))
    _refuse_strangers(sides, tops, found, params)
    below = [parts for row in found.rows if (parts := PurePosixPath(row["path"]).parts[:-1])]
    _refuse_sites([tuple(_without_sides(top, inside)) for top, *inside in below if top in sides], params)
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
    names = list(dropwhile(lambda name: name == top or side_of(name) is not None, inside))
    return names[1:] if len(names) > 1 and names[0].casefold() in OF_PICTURES else names


def _refuse_strangers(sides: dict[str, Side], tops: Collection[str], found: Found, params: DataParams) -> None:
    """A folder beside the parts of a split that is no part of it has to be one of its classes."""
    inside = [PurePosixPath(row["path"]).parts[:-1] for row in found.rows]
    classes = {name for top, *below in inside if top in sides for name in _without_sides(top, below)[:1]}
    strangers = sorted(set(tops) - set(sides) - classes)
    if strangers:
        raise UserError(
            f"{params.root}/ holds {strangers[0]}/ beside the published split ({', '.join(sorted(sides))}), and it is "
            "neither a part of the split nor one of its classes: rename it (train, validation, test, unlabeled), move "
            "it into a part, or remove it."
        )


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
            f"pictures that leak into test are set aside): `plumbline init {quote(str(params.root))} "
            "--published-split merge`."
        )
    if params.published_split == "keep":
        for row, names in zip(found.rows, second, strict=True):
            row[PUBLISHED] = "train" if sides[names[0]] == "none" else sides[names[0]]


def _tops(paths: Iterable[str]) -> set[str]:
    return {path.split("/", 1)[0] for path in paths if "/" in path}


def _refuse_class_and_side(tops: Collection[str], params: DataParams) -> None:
    """A split that stands in the classes' names: cat_train, cat_test, dog_train, dog_test."""
    by_class: dict[tuple[str, ...], set[Side | None]] = {}
    for side, rest in map(_side_and_rest, tops):
        by_class.setdefault(rest, set()).add(side)
    if len(by_class) > 1 and all(len(some - {None, "none"}) > 1 for some in by_class.values()):
        raise UserError(
            f"the folders of {params.root}/ name class and side of a split in one ({', '.join(sorted(tops)[:4])}), and "
            "these are no classes: make them folders in folders, such as train/cat, train/dog, test/cat and test/dog."
        )


def _unwrapped(paths: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder that holds all that lies in folders, from the outermost in, and the paths below it."""
    inner, around = list(paths), ""
    while len(tops := _tops(inner)) == 1:
        around += f"{next(iter(tops))}/"
        inner = [path.split("/", 1)[1] for path in inner if "/" in path]
        yield around, inner


def find_wrapped(paths: Collection[str]) -> tuple[str, list[str]]:
    """Return the folder around two or more folders that hold all pictures between them, and these; else "", []."""
    for around, inner in _unwrapped(paths):
        if len(inner) == len(paths) and all("/" in path for path in inner) and len(tops := _tops(inner)) > 1:
            return around, sorted(tops)
    return "", []


def wrapped_sentence(root: str, only: str, paths: Collection[str]) -> str | None:
    """Where the pictures of the `only` class lie in several folders of its own: that these may be the classes."""
    around, folders = find_wrapped(paths)
    if not around.startswith(f"{only}/"):
        return None
    return (
        f"{root}/ holds one folder, {around}, and its pictures lie in folders of it ({', '.join(folders[:6])}): where "
        f"these are the classes, move what {around} holds up into {root}/."
    )


def _refuse_wrapped(found: Found, params: DataParams) -> None:
    """Folders around a split, as in archives: data/archive/Training/cat."""
    for around, inner in _unwrapped(row["path"] for row in found.rows):
        if find_split(_tops(inner)):
            names = ", ".join(sorted(_tops(inner)))
            raise UserError(
                f"{params.root}/ holds one folder, {around}, with a split in it ({names}): move what {around} holds up "
                f"into {params.root}/, then say what to do with the split under data.published_split."
            )


def _refuse_folds(tops: Collection[str], found: Found, params: DataParams) -> None:
    """Folds of a cross-validation, fold1/cat and fold2/cat: parts of one set."""
    if len(tops) < 2 or not all(_FOLD.fullmatch(name) for name in tops):
        return
    if all(row["path"].count("/") > 1 for row in found.rows if "/" in row["path"]):
        raise UserError(
            f"the folders of {params.root}/ are folds ({', '.join(sorted(tops)[:4])}), and these are no classes: move "
            "their class folders together, `split` and the gate part them anew; or call them train and test and set "
            "data.published_split."
        )


def _refuse_sites(folders: Sequence[tuple[str, ...]], params: DataParams) -> None:
    """Folders of sites that hold the classes, site_a/cat and site_b/cat; `folders` are those above each picture.

    They are where every folder holds the same two or more, all pictures lie in these, and the names say so: the outer
    ones are called as sites or series are and the inner ones are not (gate_1/cat), or one of the inner ones denies
    something (berlin/no_helmet). Where no name tells, as in cat/indoor or berlin/cat, the outer folders are classes.
    """
    if params.layout != "auto":
        return
    inner: dict[str, set[str]] = {}
    for around in filter(None, folders):
        inner.setdefault(around[0], set()).update(around[1:2] or [""])
    held = next(iter(inner.values()), set())
    if len(inner) < 2 or len(held) < 2 or "" in held or any(some != held for some in inner.values()):
        return
    outer_are_places = all(map(_says_where, inner)) and not all(map(_says_where, held))
    inner_are_classes = any(map(_DENIES.match, held)) and not any(map(_DENIES.match, inner))
    if find_split(held) or not (outer_are_places or inner_are_classes):
        return
    tops, classes = sorted(inner), sorted(held)
    places = ", ".join(f"{params.root}/{name}" for name in classes[:2])
    raise UserError(
        f"the folders of {params.root}/ ({', '.join(tops[:4])}) hold the same folders each ({', '.join(classes[:4])}), "
        "as sites do and classes don't: put the pictures of all of them into one folder per class "
        f"({places}) and name the site of each in a column `site` of metadata.csv; where the outer folders are the "
        "classes, set data.layout: folders (or call `plumbline audit` with --layout folders)."
    )


def _says_where(name: str) -> bool:
    """Whether a folder's name is that of a site or a series, or a number or date."""
    words = [word for word in re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()) if word]
    return bool(_FOLD.fullmatch(name)) or not any(map(str.isalpha, name)) or bool(_WHERE & set(words))


def _how_to_settle(sides: dict[str, Side], params: DataParams) -> str:
    names = sorted(sides)
    folders = " ".join(quote(f"{params.root}/{name}") for name in names if sides[name] != "none")
    return (
        f"{params.root}/ is split already ({', '.join(names)}), and these are no classes: set data.published_split to "
        "merge (their class folders become one set, and `split` parts it anew) or to keep (who is train and test stays "
        f"so, and training pictures that leak into test are set aside), or call `plumbline init "
        f"{quote(str(params.root))} --published-split merge`; `plumbline audit {folders}` checks the split."
    )
