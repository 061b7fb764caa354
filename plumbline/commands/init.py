"""Fit params.yaml to a folder of pictures: `plumbline init PATH`.

It looks at the folder without decoding a picture, writes into params.yaml what follows from it, and lists what only a
person can decide: which class must not be missed, and how to treat a published split.
"""

from __future__ import annotations

import argparse
import shlex
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from plumbline.common.errors import UserError, run
from plumbline.common.files import write_text
from plumbline.common.params import PARAMS, read_params, with_value
from plumbline.imaging.boxes import BACKGROUND
from plumbline.imaging.collection import Collection, list_images
from plumbline.imaging.labels import classes_of, label_classes, shown
from plumbline.imaging.layouts.arrays import open_array, read_labels
from plumbline.imaging.layouts.published import wrapped_sentence
from plumbline.imaging.layouts.which import find_layout
from plumbline.imaging.settings import DataParams
from plumbline.models.fit import Facts, as_sentence, find_misfits, offered_violations

if TYPE_CHECKING:
    import pandas as pd

# Columns that don't say which pictures belong together.
_NO_GROUP = {"path", "label", "site", "captured_at", "camera", "published_split", "subset", "split"}


@dataclass
class Fitted:
    """What to write (key in params.yaml to value), and what a person should know or decide."""

    changes: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def fit(
    settings: dict[str, Any], root: Path, violation: str | None = None, published_split: str | None = None
) -> Fitted:
    """Return what must change in `settings` (params.yaml) for the pictures in `root`.

    Args:
        violation: the class that must not be missed, "none" where no class is one; None leaves it to be decided.
        published_split: keep or merge, where the folders are train and test.

    Raises UserError where the folder can't be used, or no class is called `violation`.
    """
    found = Fitted()
    data = DataParams.model_validate({**(settings.get("data") or {}), "root": root})
    if published_split:
        found.changes["data.published_split"] = published_split
        data = data.model_copy(update={"published_split": published_split})
    if find_layout(data) == "arrays":
        data = _fit_arrays(found, data)
    collection = list_images(data)
    labels = Counter(collection.images["label"])
    whole = data.task == "detect"
    classes = tuple(sorted(classes_of(labels) - ({BACKGROUND} if whole else set())))
    if len(classes) < 2 and not whole:
        if classes and (said := wrapped_sentence(str(root), classes[0], collection.images["path"].tolist())):
            raise UserError(said)
        only = f"only the class {classes[0]}" if classes else "no class"
        raise UserError(
            f"{root}/ has {only}, and telling apart takes two: put a folder per class there, not into a folder in it, "
            f"or a metadata.csv with the columns path and label{_first_refused(collection)}."
        )
    _fit_violation(found, settings, classes, violation, root)
    listed = (settings.get("validate") or {}).get("classes")
    if listed and set(listed) != set(classes):
        found.changes["validate.classes"] = []
    _fit_columns(found, settings, collection.images)
    found.said.insert(0, f"{root}/: {_described_boxes(collection) if whole else _described(labels, classes)}.")
    if collection.refused:
        found.said.append(f"{len(collection.refused)} files can't be used{_first_refused(collection)}.")
    changed = with_changes(settings, found.changes)
    facts = Facts(classes, tuple(collection.images.columns), root)
    left = find_misfits(changed, facts)
    if left:
        found.said.append(as_sentence(left, None))
    return found


def _described(labels: Counter[str], classes: tuple[str, ...]) -> str:
    counts = Counter(name for label, count in labels.items() for name in label_classes(label) for _ in range(count))
    several = ", some with several labels" if any(len(label_classes(label)) > 1 for label in labels) else ""
    named = ", ".join(f"{counts[name]} {shown(name)}" for name in classes)
    return f"{labels.total()} pictures ({named}){several}"


def _described_boxes(collection: Collection) -> str:
    counts = sorted(Counter(box.label for box in collection.boxes).items())
    named = ", ".join(f"{count} {shown(name)}" for name, count in counts)
    return f"{len(collection.images)} photographs, {len(collection.boxes)} boxes ({named})"


def with_changes(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with some values replaced ("evaluate.violation_class": None)."""
    result = dict(settings)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        inner = dict(result.get(section) or {})
        result[section] = with_changes(inner, {name: value}) if "." in name else {**inner, name: value}
    return result


def _first_refused(collection: Collection) -> str:
    if not collection.refused:
        return ""
    first = collection.refused[0]
    return f" (the first: {first.path} {first.reason})"


def _fit_violation(
    found: Fitted, settings: dict[str, Any], classes: tuple[str, ...], wanted: str | None, root: Path
) -> None:
    now = (settings.get("evaluate") or {}).get("violation_class")
    if wanted is not None:
        wanted = unicodedata.normalize("NFC", wanted)  # as labels are; macOS types another form
        no_class = wanted == "none" and "none" not in classes
        if not no_class and wanted not in classes:
            raise UserError(f"--violation {shown(wanted)}: the classes are {', '.join(map(shown, classes))}, or none.")
        found.changes["evaluate.violation_class"] = None if no_class else wanted
    elif now not in (None, *classes):
        found.changes["evaluate.violation_class"] = None
        offers = offered_violations(classes)
        one = f"{shown(offers[0])} may be" if offers else "perhaps one of them is"
        found.said.append(
            f"No class is taken for a violation now. {one[0].upper()}{one[1:]} the class that must not be missed: if "
            f"so, `plumbline init {quote(str(root))} --violation {quote(shown(offers[0] if offers else classes[0]))}`."
        )


def _fit_arrays(found: Fitted, data: DataParams) -> DataParams:
    """Make up names for the numbers in labels.csv where params.yaml lacks some."""
    labels_file = data.root / data.arrays.labels
    header, rows = read_labels(labels_file, len(open_array(data)), data.arrays.classes)
    values = sorted({_as_class(row[header.index("label")]) for row in rows})
    known = {*data.arrays.classes, *data.arrays.classes.values()}
    if set(values) <= known:
        return data
    names = {value: f"class_{value}" if value.isdigit() else value for value in values}
    found.changes["data.arrays.classes"] = names
    found.said.append(
        f"{labels_file} has the labels {', '.join(values[:12])}: name them under data.arrays.classes in {PARAMS}, and "
        "check data.arrays.channels (bgr or rgb)."
    )
    return data.model_copy(update={"arrays": data.arrays.model_copy(update={"classes": names})})


def _as_class(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        return text.strip()
    return str(int(number)) if number.is_integer() else text.strip()


def _fit_columns(found: Fitted, settings: dict[str, Any], images: pd.DataFrame) -> None:
    """Grouping columns: keep those of params.yaml that the data has, else suggest columns with repeated values."""
    named = list((settings.get("group") or {}).get("columns") or [])
    if any(name in images for name in named):
        return
    repeated = [
        name
        for name in images.columns
        if name not in _NO_GROUP and 1 < images[name].nunique() < images[name].notna().sum() / 1.2
    ]
    if repeated:
        found.said.append(
            f"The columns {', '.join(map(shown, repeated))} repeat their values: where one of them says which pictures "
            f"belong together (one photograph, video, person), add it to group.columns in {PARAMS}."
        )


def main() -> None:
    """Look at the folder, write params.yaml, and print what was written and what is left to decide."""
    parser = argparse.ArgumentParser(prog="plumbline init", description="Fit params.yaml to a folder of pictures.")
    parser.add_argument("path", type=Path, nargs="?", default=Path("data"), help="the folder of pictures (data)")
    parser.add_argument("--violation", metavar="CLASS", help="the class that must not be missed; none: no class is one")
    parser.add_argument("--published-split", choices=["keep", "merge"], help="where the folders are train and test")
    given = parser.parse_args()
    settings = read_params()
    found = fit(settings, given.path, given.violation, given.published_split)
    text = PARAMS.read_text(encoding="utf-8")
    for key, value in found.changes.items():
        text = with_value(text, key, value)
    if found.changes:
        write_text(PARAMS, text)
    for line in found.said:
        print(line)
    for key, value in found.changes.items():
        print(f"{PARAMS}: {key} is now {'null' if value is None else value}")
    home = (settings.get("data") or {}).get("root", "data")
    print(next_step(given.path, Path(home)))


def next_step(pictures: Path, home: Path) -> str:
    """Return what to run next, ready for a shell: the pictures become all that is in the data folder `home`."""
    there, data, beside = (shlex.quote(str(path)) for path in (pictures, home, f"{home}.new"))
    if pictures.resolve() == home.resolve():
        return f"Next: dvc add {data} && dvc repro"
    copied = f"cp -r {there} {beside} && rm -rf {data} && mv {beside} {data}"  # they may lie below `home`
    return f"Next: put the pictures into {home}/ ({copied}), then dvc add {data}"


if __name__ == "__main__":
    run(main)
