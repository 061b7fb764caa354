"""Is this data fit to learn from? Great Expectations on the manifest, every failing row named.

A run that could not give a valid result is stopped with one sentence: rows of metadata.csv without a file, too many
files in quarantine, a missing class, fewer than two classes, too few groups in a class, a broken manifest. Everything
else is a warning. The report is always written: reports/validation/index.html, and build/validation.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from pydantic import Field

from plumbline.common import artefacts
from plumbline.common.params import Section
from plumbline.imaging.box_expectations import BoxBounds, box_expectations, count_expectation, describe_boxes
from plumbline.imaging.boxes import BACKGROUND
from plumbline.imaging.expectations import Checked, Expectation, Outcome, check
from plumbline.imaging.labels import alike, classes_as_written, shown
from plumbline.imaging.layouts.published import wrapped_sentence
from plumbline.imaging.metadata import BLANK_WORDS, ISO_TIME, grouping_values
from plumbline.imaging.pictures import BOX_COUNT, RESERVED, WARNING, source_of

if TYPE_CHECKING:
    import pandas as pd

SHA256 = r"^[0-9a-f]{64}$"


class ValidateParams(Section):
    """params.yaml, section `validate`."""

    classes: tuple[str, ...] = ()
    max_quarantined: float = Field(0.05, ge=0, le=1)
    min_groups: int = Field(10, ge=1)
    min_side: int = Field(32, ge=1)
    max_side: int = Field(10_000, ge=1)
    brightness: tuple[float, float] = (0.03, 0.97)
    contrast: tuple[float, float] = (0.02, 0.5)
    boxes: BoxBounds = BoxBounds()


@dataclass(frozen=True)
class Validated:
    """`problem` is the sentence that stops the run, None where the data can be used."""

    problem: str | None
    warnings: list[str]
    outcomes: list[Outcome]
    classes: pd.DataFrame


def validate(
    manifest: pd.DataFrame,
    quarantine: pd.DataFrame,
    grouping: Sequence[str],
    params: ValidateParams,
    docs: Path,
    blank_words: Sequence[str] = BLANK_WORDS,
    boxes: pd.DataFrame | None = None,
) -> Validated:
    """Check a manifest and its quarantine; Great Expectations writes its pages into folder `docs`.

    Args:
        manifest: as ingest writes it.
        quarantine: path, reason, kind, label.
        grouping: the columns that tie pictures into groups (those that exist).
        blank_words: values of these that say nothing.
        boxes: of whole photographs, as ingest writes them; None for pictures of a class each.
    """
    classes = count_classes(manifest, quarantine, grouping, params, blank_words, boxes)
    problem = find_problem(manifest, quarantine, classes, params, boxes)
    tables = [
        Checked("manifest", manifest, "path", manifest_expectations(manifest, grouping, params)),
        Checked("classes", classes, "class", class_expectations(params, fewest=2 if boxes is None else 1)),
        Checked("quarantine", quarantine, "path", quarantine_expectations(len(manifest), params)),
    ]
    if boxes is not None and len(boxes):
        described = describe_boxes(boxes, manifest)
        tables.append(Checked("boxes", described, "box", box_expectations(params.classes, params.boxes)))
    outcomes = check(tables, docs)
    broken = next((one for one in outcomes if not one.success and one.expectation.severity == "critical"), None)
    if problem is None and broken is not None:
        named = f" (first: {broken.failing[0]})" if broken.failing else ""
        problem = f"{broken.expectation.notes.rstrip('.')}: not so for {_count(len(broken.failing), 'row')}{named}."
    return Validated(problem, find_warnings(manifest, outcomes), outcomes, classes)


def count_classes(
    manifest: pd.DataFrame,
    quarantine: pd.DataFrame,
    grouping: Sequence[str],
    params: ValidateParams,
    blank_words: Sequence[str] = BLANK_WORDS,
    boxes: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return class, pictures, groups for each class wanted or found, quarantine included; `a;b` counts for both.

    A group is a set of pictures tied by the grouping columns, directly or through others. Of whole photographs the
    number of `boxes`, too; photographs without a box are of no class.
    """
    import pandas as pd

    group = tied_by_columns(manifest, grouping, blank_words)
    parts = pd.DataFrame({"class": manifest["label"].map(classes_as_written), "group": group}).explode("class")
    met = set(parts["class"]) | {part for label in quarantine["label"] for part in classes_as_written(label)}
    if boxes is not None:
        parts, met = parts[parts["class"] != BACKGROUND], met - {BACKGROUND}
    names = list(params.classes) or sorted(met)
    grouped = parts.groupby("class")["group"]
    counts = pd.DataFrame({"pictures": grouped.size(), "groups": grouped.nunique()}).reindex(names, fill_value=0)
    if boxes is not None:
        counts["boxes"] = boxes["label"].value_counts().reindex(names, fill_value=0)
    return counts.astype("int64").rename_axis("class").reset_index()


def tied_by_columns(manifest: pd.DataFrame, grouping: Sequence[str], blank_words: Sequence[str] = BLANK_WORDS) -> Any:
    """Return (N,) component numbers of pictures that share a value of a grouping column; blanks tie nothing."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first: list[NDArray[Any]] = [np.arange(0)]
    second: list[NDArray[Any]] = [np.arange(0)]
    count = len(manifest)
    for column in (name for name in grouping if name in manifest):
        text = grouping_values(manifest, column, blank_words)
        given = (text != "").to_numpy()
        # pandas numbers up to 128 values in 8 bits, too few for `count` to be added
        codes = text[given].astype("category").cat.codes.to_numpy().astype(np.int64)
        first.append(np.flatnonzero(given))
        second.append(count + codes)
        count += int(codes.max(initial=-1)) + 1
    rows, columns = np.concatenate(first), np.concatenate(second)
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1][: len(manifest)]


def find_problem(
    manifest: pd.DataFrame,
    quarantine: pd.DataFrame,
    classes: pd.DataFrame,
    params: ValidateParams,
    boxes: pd.DataFrame | None = None,
) -> str | None:
    """Return the sentence that stops the run (of several the gravest), None where there is none.

    Quarantined `boxes` of whole photographs are counted among boxes, not among photographs.
    """
    missing = quarantine[quarantine["kind"] == "missing"]
    refused = quarantine[~quarantine["kind"].isin(["missing", "empty"])]
    if boxes is not None:
        single = refused["path"].map(lambda path: source_of(path) != path).astype(bool)
        spoilt, refused = refused[single], refused[~single]
        share_of_boxes = len(spoilt) / max(1, len(spoilt) + len(boxes))
    share = len(refused) / max(1, len(refused) + len(manifest))
    empty = classes[classes["pictures"] == 0]["class"].tolist()
    few = classes[classes["groups"] < params.min_groups]
    if len(missing):
        return (
            f"{_count(len(missing), 'metadata row')} without a file (first: {missing['path'].iloc[0]}): "
            "correct the path, bring the file back or remove the row."
        )
    if share > params.max_quarantined:
        worst = refused.iloc[0]
        return (
            f"{len(refused)} of {len(refused) + len(manifest)} pictures are quarantined ({share:.1%}, at most "
            f"{params.max_quarantined:.1%} by validate.max_quarantined; first: {worst['path']} {worst['reason']}): "
            f"repair or remove those in {artefacts.QUARANTINE}."
        )
    if boxes is not None and not len(boxes):
        first = f" (the first: {spoilt['path'].iloc[0]} {spoilt['reason'].iloc[0]})" if len(spoilt) else ""
        return f"no photograph has a box that can be used{first}: mark what is to be found, on some of them."
    if boxes is not None and share_of_boxes > params.max_quarantined:
        worst = spoilt.iloc[0]
        return (
            f"{len(spoilt)} of {len(spoilt) + len(boxes)} boxes are quarantined ({share_of_boxes:.1%}, at most "
            f"{params.max_quarantined:.1%} by validate.max_quarantined; first: {worst['path']} {worst['reason']}): "
            f"correct those in {artefacts.QUARANTINE}, for what they mark is on photographs that are used."
        )
    if empty:
        refused_of = refused[[empty[0] in classes_as_written(label) for label in refused["label"]]]
        first = f" (first: {refused_of['path'].iloc[0]} {refused_of['reason'].iloc[0]})" if len(refused_of) else ""
        return (
            f"class {shown(empty[0])} has no usable picture{first}: put some into its folder, or remove it (from the "
            "data, or from validate.classes)."
            if boxes is None
            else f"class {shown(empty[0])} has no usable box{first}: mark some, or take it out of validate.classes."
        )
    if twins := find_twins(classes["class"], params):
        return (
            f"the classes {' and '.join(twins)} differ only in case, spaces, hyphens or Unicode form: call them the "
            "same in the data, or list both under validate.classes if they are two."
        )
    if len(classes) < 2 and boxes is None:
        if len(classes) and (said := wrapped_sentence("data", classes["class"].iloc[0], manifest["path"].tolist())):
            return said
        only = f"only the class {classes['class'].iloc[0]}" if len(classes) else "no class"
        return (
            f"the data has {only}, and telling apart takes two: put a folder per class into data/, not into a folder "
            "there."
        )
    if len(few):
        name, groups = few.iloc[0]["class"], few.iloc[0]["groups"]
        return (
            f"class {name} has {_count(int(groups), 'group')} of pictures, fewer than the {params.min_groups} of "
            "validate.min_groups: add photographs, or check the grouping columns of metadata.csv (group.columns)."
        )
    return None


def find_twins(classes: Iterable[str], params: ValidateParams) -> list[str]:
    """Return the first classes that look like spellings of one class; those in validate.classes are accepted."""
    spelled: dict[str, list[str]] = {}
    for name in classes:
        if name not in params.classes:
            spelled.setdefault(alike(name), []).append(name)
    for name in params.classes:
        if others := spelled.get(alike(name)):
            others.append(name)
    return next((names for names in spelled.values() if len(names) > 1), [])


def manifest_expectations(manifest: pd.DataFrame, grouping: Sequence[str], params: ValidateParams) -> list[Expectation]:
    """What every row of the manifest must be (critical) or should be (warning)."""
    expected = [
        Expectation("expect_column_values_to_be_unique", {"column": "path"}, notes="Each picture has one row"),
        Expectation(
            "expect_column_values_to_match_regex",
            {"column": "id", "regex": SHA256},
            notes="The id is the sha256 of the picture's bytes",
        ),
        Expectation(
            "expect_column_values_to_match_regex",
            {"column": "pixels_sha256", "regex": SHA256},
            notes="The pixels have a sha256",
        ),
        Expectation("expect_column_values_to_not_be_null", {"column": "label"}, notes="Each picture has a label"),
    ]
    if params.classes:
        wanted = set(params.classes)
        wanted |= {BACKGROUND} if BOX_COUNT in manifest else set()
        known = [label for label in sorted(set(manifest["label"])) if set(classes_as_written(label)) <= wanted]
        expected.append(
            Expectation(
                "expect_column_values_to_be_in_set",
                {"column": "label", "value_set": list(dict.fromkeys([*params.classes, *known]))},
                notes="The label is one of validate.classes, or several of them joined by ;",
            )
        )
    for column in ("width", "height"):
        bounds: dict[str, Any] = {"column": column, "min_value": params.min_side, "max_value": params.max_side}
        note = f"The {column} is {params.min_side} to {params.max_side} pixels (validate.min_side, max_side)"
        expected.append(Expectation("expect_column_values_to_be_between", bounds, "warning", note))
    for column, (low, high) in {"brightness": params.brightness, "contrast": params.contrast}.items():
        bounds = {"column": column, "min_value": low, "max_value": high}
        note = f"The {column} is {low:g} to {high:g} (validate.{column}); else too dark, washed out or blank"
        expected.append(Expectation("expect_column_values_to_be_between", bounds, "warning", note))
    for column in ("sharpness", "colourfulness"):
        bounds = {"column": column, "min_value": 0}
        expected.append(Expectation("expect_column_values_to_be_between", bounds, notes=f"The {column} is 0 or more"))
    for column in (name for name in grouping if name in manifest):
        note = f"Grouping column {column} has a value; a picture without one may be parted from its like"
        expected.append(Expectation("expect_column_values_to_not_be_null", {"column": column}, "warning", note))
    if BOX_COUNT in manifest:
        expected.append(count_expectation(params.boxes, BOX_COUNT))
    if WARNING in manifest:
        bounds = {"column": WARNING}
        note = "The picture's decoder warns of nothing; a damaged file may show grey or shifted parts"
        expected.append(Expectation("expect_column_values_to_be_null", bounds, "warning", note))
    if "captured_at" in manifest:
        bounds = {"column": "captured_at", "regex": ISO_TIME}
        note = "captured_at, where given, is a date or time that exists, in ISO 8601, such as 2026-03-31T14:05:00"
        expected.append(Expectation("expect_column_values_to_match_regex", bounds, notes=note))
    return expected


def class_expectations(params: ValidateParams, fewest: int = 2) -> list[Expectation]:
    """What the table of classes must be."""
    enough = "There are two classes or more" if fewest > 1 else "There is a class"
    return [
        Expectation("expect_table_row_count_to_be_between", {"min_value": fewest}, notes=enough),
        Expectation(
            "expect_column_values_to_be_between",
            {"column": "pictures", "min_value": 1},
            notes="Each class has a usable picture",
        ),
        Expectation(
            "expect_column_values_to_be_between",
            {"column": "groups", "min_value": params.min_groups},
            notes=f"Each class has {params.min_groups} groups of pictures or more (validate.min_groups)",
        ),
    ]


def quarantine_expectations(pictures: int, params: ValidateParams) -> list[Expectation]:
    """What must not be in quarantine; a warning names each file that is."""
    return [
        Expectation(
            "expect_column_values_to_not_be_in_set",
            {"column": "kind", "value_set": ["missing"]},
            notes="Each row of metadata.csv has its file",
        ),
        Expectation(
            "expect_column_values_to_not_be_in_set",
            {"column": "kind", "value_set": ["name", "unreadable", "label", "box"]},
            "warning",
            f"No file is quarantined (at most {params.max_quarantined:.1%} may be, validate.max_quarantined)",
        ),
    ]


def find_warnings(manifest: pd.DataFrame, outcomes: Sequence[Outcome]) -> list[str]:
    """Return a sentence for each warning that has failing rows, and for pictures that metadata.csv does not know."""
    found = []
    columns = [name for name in manifest if name not in RESERVED]
    unknown = manifest.loc[manifest[columns].isna().all(axis=1), "path"].tolist() if columns else []
    if unknown:
        found.append(f"{_count(len(unknown), 'picture')} without metadata (first: {unknown[0]}).")
    for one in outcomes:
        if not one.success and one.expectation.severity == "warning":
            notes = one.expectation.notes
            # Of an expectation on a whole column, such as a mean, no row fails by itself.
            named = f"not so for {len(one.failing)} (first: {one.failing[0]})" if one.failing else None
            found.append(f"{notes}: {named or f'it is {one.observed:.3g}'}.")
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def report(
    manifest: pd.DataFrame, quarantine: pd.DataFrame, found: Validated, boxes: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Return build/validation.json: the verdict, the counts, and each expectation with the rows that fail it."""
    counts = {"pictures": len(manifest), "quarantined": len(quarantine)}
    if boxes is not None:
        counts |= {"boxes": len(boxes), "background": int((manifest[BOX_COUNT] == 0).sum())}
    return {
        "success": found.problem is None,
        "problem": found.problem,
        "warnings": found.warnings,
        "counts": counts,
        "classes": found.classes.to_dict("records"),
        "expectations": [
            {
                "table": one.table,
                "expectation": one.expectation.kind,
                "column": one.expectation.bounds.get("column"),
                "bounds": {key: value for key, value in one.expectation.bounds.items() if key != "column"},
                "severity": one.expectation.severity,
                "says": one.expectation.notes,
                "success": one.success,
                "failing": list(one.failing),
            }
            for one in found.outcomes
        ],
    }
