"""Are the classes of a batch those of data/? A misspelt class must not be committed as a new one."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from flows.batch import LabelledBatch
from plumbline.common.errors import UserError
from plumbline.imaging.labels import (
    SEVERAL,
    LabelError,
    alike,
    classes_of,
    label_classes,
    nearest_class,
    read_label,
    same_but_for_spelling,
    shown,
)
from plumbline.imaging.layouts.published import find_wrapped

ANY = "*"  # --new-class without a name: every class of the batch that data/ doesn't have


def settle_classes(
    batch: LabelledBatch, known_labels: Collection[str], same_as: Mapping[str, str], new_classes: Sequence[str]
) -> LabelledBatch:
    """Return the batch with the classes of data/; UserError, before anything is written, for any other class.

    Args:
        batch: as read.
        known_labels: the labels of data/.
        same_as: {class of the batch: known class}; the key "" stands for every class that looks like the known one.
        new_classes: classes that the batch may bring; `*` for all.
    """
    known = classes_of(known_labels)
    strangers = sorted(classes_of(batch.table["label"]) - known)
    renames = _renames(strangers, known, same_as, new_classes)
    left = [name for name in strangers if name not in renames]
    unsaid = [name for name in left if ANY not in new_classes and name not in _plain(new_classes)]
    if unsaid:
        raise UserError(_who_are_they(batch, unsaid, known))
    _refuse_twins(left, known)
    table = batch.table.assign(label=[_renamed(label, renames) for label in batch.table["label"]])
    _refuse_first_of_several(table["label"], known_labels, new_classes)
    return replace(batch, table=table)


def parse_same_as(texts: Sequence[str]) -> dict[str, str]:
    """Read `--as THEIRS=OURS`, or `--as OURS` for every class that looks like it; UserError where it is neither."""
    found: dict[str, str] = {}
    for text in texts:
        theirs, mark, ours = text.rpartition("=")
        try:
            found[read_label(theirs)] = read_label(ours)
        except LabelError as error:
            raise UserError(f"--as {shown(text)}: {error}.") from None
        if not ours.strip() or (mark and not theirs.strip()):
            raise UserError(f"--as {shown(text)} names no class: write --as THEIRS=OURS.")
    return found


def _plain(names: Sequence[str]) -> set[str]:
    try:
        return {read_label(name) for name in names if name != ANY}
    except LabelError as error:
        raise UserError(f"--new-class {shown(' '.join(names))}: {error}.") from None


def _renames(
    strangers: Sequence[str], known: Collection[str], same_as: Mapping[str, str], new_classes: Sequence[str]
) -> dict[str, str]:
    allowed = {*known, *_plain(new_classes)}
    for ours in same_as.values():
        if ours not in allowed:
            raise UserError(f"--as {shown(ours)}: data/ has no such class, it has {_listed(known)}.")
    found = {theirs: ours for theirs, ours in same_as.items() if theirs}
    if missing := sorted(set(found) - set(strangers) - set(known)):
        raise UserError(
            f"--as {shown(missing[0])}: the batch has no such class, new to data/ are {_listed(strangers)}."
        )
    if "" in same_as:
        ours = same_as[""]
        for name in strangers:
            if name not in found and ours in (same_but_for_spelling(name, known), nearest_class(name, known)):
                found[name] = ours
    return found


def _who_are_they(batch: LabelledBatch, names: Sequence[str], known: Collection[str]) -> str:
    lines = []
    for name in names:
        same, near = same_but_for_spelling(name, known), nearest_class(name, known)
        count = sum(name in label_classes(label) for label in batch.table["label"])
        pictures = f"{count} picture{'' if count == 1 else 's'}"
        around, inside = find_wrapped([path for path in batch.table["path"] if path.startswith(f"{name}/")])
        if set(inside) & set(known):
            why = f"is a folder around {_listed(inside)}: move what {around} holds up into the batch's folder"
        elif same:
            why = f"is {shown(same)} but for case, spaces, hyphens or Unicode form: {_option('--as', name, same)}"
        elif near:
            why = f"may be a misspelt {shown(near)}: {_option('--as', name, near)}, or {_option('--new-class', name)}"
        else:
            why = f"is new: {_option('--new-class', name)} adds it, --as THEIRS=OURS takes it for a known one"
        lines.append(f"{shown(name)} ({pictures}) {why}")
    return (
        f"the batch has {'a class' if len(names) == 1 else f'{len(names)} classes'} that data/ (with {_listed(known)}) "
        f"does not have, and nothing was taken in: {'; '.join(lines)}."
    )


def _option(option: str, name: str, same: str = "") -> str:
    mark = "=" if name.startswith("-") else " "  # else it would pass for an option
    return f"{option}{mark}{shlex.quote(f'{name}={same}' if same else name)}"


def _listed(names: Collection[str]) -> str:
    listed = [shown(name, 40) for name in sorted(names)]
    return ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "") or "no class"


def _refuse_twins(new: Sequence[str], known: Collection[str]) -> None:
    """Refuse two classes that differ only in spelling: people would take them for one class or for a mistake."""
    for place, name in enumerate(new):
        twin = same_but_for_spelling(name, known)
        twin = twin or next((other for other in new[:place] if alike(other) == alike(name)), None)
        if twin:
            raise UserError(
                f"the batch's class {shown(name)} is {shown(twin)} but for case, spaces, hyphens or Unicode form, so "
                f"it can be no class beside it: {_option('--as', name, twin)}."
            )


def _refuse_first_of_several(labels: Collection[str], known: Collection[str], new_classes: Sequence[str]) -> None:
    """Refuse a picture with two labels: it would turn the whole task into one of several labels."""
    combined = [label for label in labels if SEVERAL in label]
    if not combined or not known or any(SEVERAL in label for label in known):
        return
    if ANY in new_classes or any(SEVERAL in name for name in new_classes):
        return
    raise UserError(
        f"the batch has pictures of several labels ({shown(combined[0])}), and every picture of data/ has one: give "
        f"one label each, or say that pictures may have several with {_option('--new-class', combined[0])}."
    )


def _renamed(label: str, renames: Mapping[str, str]) -> str:
    return read_label(SEVERAL.join(renames.get(name, name) for name in label_classes(label)))
