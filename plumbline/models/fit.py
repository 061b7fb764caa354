"""Does params.yaml fit the data? Everything in it that names a class, a column, a backbone, a candidate or a file.

Otherwise a wrong name would be found by the stage that reads it, perhaps after hours of training. The whole of
params.yaml is read as plain data here, before any stage validates its own section.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import ValidationError

from plumbline.imaging.labels import same_but_for_spelling, shown
from plumbline.models.candidates import Candidate, architecture_names
from plumbline.models.compressed import Compressed
from plumbline.models.networks import NETWORKS
from plumbline.models.weights import PIXELS

# Columns that params.yaml names as shipped; data need not have them.
OPTIONAL_COLUMNS = {
    "group.columns": ("photo", "video", "person"),
    "split.stratify": ("label", "site"),
    "group.camera_column": ("camera",),
}
DEFAULT_VIOLATION = "without_helmet"
DEFAULT_METADATA = "metadata.csv"
_WITHOUT = re.compile(r"(without|with_no|w_o|no|non|not|un|missing|lacking|kein|keine|ohne|sans|sin|senza|zonder)")


@dataclass(frozen=True)
class Misfit:
    """A setting that names nothing: its key in params.yaml, the fault, and the way out."""

    key: str
    wrong: str
    way_out: str


@dataclass(frozen=True)
class Facts:
    """What the data has: classes, and columns with metadata.csv's names (label among them)."""

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    root: Path = Path("data")


def find_misfits(params: Mapping[str, Any], facts: Facts | None) -> list[Misfit]:
    """Return every setting that names something missing; without `facts`, those that don't depend on the data."""
    detects = _get(params, "data.task") == "detect"  # whose candidates are detectors, with settings of their own
    found = [
        *_networks(params),
        *([] if detects else [*_candidates(params), *_compressed(params)]),
        *_embeddings(params),
        *_weights_files(params),
    ]
    if facts is not None:
        found = [*_classes(params, facts), *_columns(params, facts), *_files(params, facts), *found]
    return found


def as_sentence(misfits: Sequence[Misfit], facts: Facts | None) -> str:
    """All misfits in one message, each with the value to set."""
    lines = "; ".join(f"{one.key} {one.wrong}: {one.way_out}" for one in misfits)
    what = f"the data (classes: {_listed(facts.classes)})" if facts else "itself"
    help_ = f" `plumbline init {quote(str(facts.root))}` writes what can be told from the data." if facts else ""
    return f"params.yaml does not fit {what}: {lines}.{help_}"


def unused_backbones(params: Mapping[str, Any]) -> list[str]:
    """Return the entries of `backbones` that nothing in params.yaml uses: their features are computed all the same."""
    used = {PIXELS, *(_get(params, key) or "mobilenet_v2" for key in ("group.embedding", "leakage.features"))}
    for section in ("candidates", "students", "ablations"):
        used |= {str(entry.get("backbone")) for _, entry in _entries(params, section)}
    return [name for name, _ in _entries(params, "backbones") if name not in used]


def offered_violations(classes: Collection[str]) -> list[str]:
    """Classes whose name says that something is missing (`without_mask`, `no helmet`, `unmasked`), the surest first.

    Surest is the opposite of another class: without_mask beside with_mask. It is only a suggestion: a person decides
    which class must not be missed.
    """
    ranked = []
    for name in classes:
        words = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")
        begins = _WITHOUT.match(words)
        if not begins:
            continue
        rest = words[begins.end() :].strip("_")
        parted = words[begins.end() :].startswith("_")
        others = {re.sub(r"[^a-z0-9]+", "_", other.casefold()).strip("_") for other in classes if other != name}
        beside = any(other == rest or other.removeprefix("with").strip("_") == rest for other in others)
        # `normal` and `uniform` begin with no and un without negating anything.
        if rest and (beside or parted or begins.group(0) in ("without", "ohne", "missing")):
            ranked.append((not beside, not words.startswith("without"), name))
    return [name for *_, name in sorted(ranked)]


# ------------------------------------------------------------------------------------------- against the data's own


def _classes(params: Mapping[str, Any], facts: Facts) -> list[Misfit]:
    found = []
    known = facts.classes
    evaluate = params.get("evaluate")
    violation = evaluate.get("violation_class", DEFAULT_VIOLATION) if isinstance(evaluate, dict) else None
    if violation is not None and violation not in known:
        near = _other_spelling(str(violation), known)
        way_out = f"set {near}, or null where no class is one" if near else violation_offer(known)
        found.append(Misfit("evaluate.violation_class", f"is {shown(violation)}, which is no class here", way_out))
    listed = _get(params, "validate.classes") or ()
    for name in _texts(listed):
        if name not in known:
            near = _near(name, known)
            way_out = f"set {near}" if near else "take it out, or bring pictures of it"
            found.append(Misfit("validate.classes", f"lists {shown(name)}, of which there is no picture", way_out))
    if listed:
        for name in known:
            if name not in _texts(listed):
                way_out = "add it, or take its pictures out ([] takes every class there is)"
                found.append(Misfit("validate.classes", f"does not list {shown(name)}, which the data has", way_out))
    renamed = _get(params, "data.yolo.classes")
    for name, other in renamed.items() if isinstance(renamed, dict) else ():
        if other not in known:
            wrong = f"calls {shown(name)} {shown(other)}, but no box has that label"
            found.append(Misfit("data.yolo.classes", wrong, "correct the name on the left as obj.names has it"))
    return found


def violation_offer(classes: Collection[str]) -> str:
    """Return what to set evaluate.violation_class to, as the end of a sentence."""
    offers = offered_violations(classes)
    first = f"set {offers[0]} if that is the class that must not be missed, " if offers else "set "
    return f"{first}{'another of them, ' if offers else 'one of them, '}or null where no class is one"


def _columns(params: Mapping[str, Any], facts: Facts) -> list[Misfit]:
    found = []
    for key in ("group.columns", "split.stratify", "group.camera_column", "probe.head_columns"):
        value = _get(params, key)
        names = _texts(value if isinstance(value, list) else [value])
        for name in names:
            optional = name in OPTIONAL_COLUMNS.get(key, ())
            near = _other_spelling(name, facts.columns) if optional else _near(name, facts.columns)
            if name in facts.columns or (optional and (near is None or near in names)):
                continue
            listed = f"(columns: {_listed(facts.columns)})"
            way_out = f"set {near}" if near else f"name one of its columns {listed}, or take it out"
            found.append(Misfit(key, f"names {shown(name)}, which {_metadata_name(params)} does not have", way_out))
    seconds = _get(params, "group.captured_within_seconds")
    if isinstance(seconds, (int, float)) and seconds:
        wanted = [("captured_at", "the time of each picture"), (_camera(params), "the camera of each picture")]
        for name, what in wanted:
            if name not in facts.columns:
                wrong = f"is {seconds:g}, but {_metadata_name(params)} has no column {shown(name)}"
                found.append(Misfit("group.captured_within_seconds", wrong, f"give it {what}, or set 0"))
    return found


def _camera(params: Mapping[str, Any]) -> str:
    return str(_get(params, "group.camera_column") or "camera")


def _files(params: Mapping[str, Any], facts: Facts) -> list[Misfit]:
    name = _get(params, "data.metadata")
    if isinstance(name, str) and name != DEFAULT_METADATA and not (facts.root / name).is_file():
        return [Misfit("data.metadata", f"is {shown(name)}, which {facts.root}/ does not hold", "correct the name")]
    return []


# --------------------------------------------------------------------------------------------- against params.yaml


def _networks(params: Mapping[str, Any]) -> list[Misfit]:
    found = []
    for name, entry in _entries(params, "backbones"):
        for network in _networks_of(name, entry):
            if network not in (*NETWORKS, PIXELS):
                offer = _near(network, NETWORKS) or f"one of {_listed([PIXELS, *NETWORKS])}"
                found.append(
                    Misfit(f"backbones.{name}", f"is made of {shown(network)}, no network here", f"set {offer}")
                )
    return found


def _networks_of(name: str, entry: Mapping[str, Any]) -> list[str]:
    several = entry.get("networks")
    return _texts(several) if several else [str(entry.get("network") or name)]


def _candidates(params: Mapping[str, Any]) -> list[Misfit]:
    backbones = dict(_entries(params, "backbones"))
    if not backbones:
        return []
    found = []
    architectures = architecture_names()
    for section, name, entry in trained_entries(params):
        own = f"{section}.{name}"
        architecture = entry.get("architecture")
        if architecture is not None and architecture not in architectures:
            key, wrong = f"{own}.architecture", f"is {shown(architecture)}, which is none"
            found.append(Misfit(key, wrong, f"set {_near(str(architecture), architectures) or _listed(architectures)}"))
        else:
            found += _candidate_itself(own, entry)
        backbone = entry.get("backbone")
        if backbone is not None:
            found += _backbone(f"{own}.backbone", backbone, backbones)
        if backbone in backbones:
            there = _networks_of(backbone, backbones[backbone])
            for network in _texts(entry.get("networks") or ()):
                if network not in there:
                    key, wrong = f"{own}.networks", f"takes {shown(network)} of backbone {backbone}"
                    found.append(Misfit(key, wrong, f"set some of {_listed(there)}"))
    found += _teachers(params)
    for name, entry in _entries(params, "ablations"):
        if name not in dict(_entries(params, "candidates")):
            offer = _near(name, dict(_entries(params, "candidates"))) or "a candidate"
            found.append(Misfit(f"ablations.{name}", "is named after no candidate", f"call it {offer}"))
        if entry.get("backbone") is not None:
            found += _backbone(f"ablations.{name}.backbone", entry["backbone"], backbones)
    if PIXELS not in backbones and "evaluate" in params:
        way_out = "add `pixels: {image_size: 64}`"
        found.append(Misfit("backbones", f"has no entry {PIXELS}, which `evaluate` looks at", way_out))
    return found


def trained_entries(params: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Section, name and entry of everything that is trained."""
    sections = ("candidates", "students")
    return [(section, name, entry) for section in sections for name, entry in _entries(params, section)]


def _teachers(params: Mapping[str, Any]) -> list[Misfit]:
    candidates, found = dict(_entries(params, "candidates")), []
    for name, entry in candidates.items():
        if entry.get("teacher") is not None:
            wrong = "is for entries of `students`"
            found.append(Misfit(f"candidates.{name}.teacher", wrong, f"move the entry {name} to that section"))
    for name, entry in _entries(params, "students"):
        if name in candidates:
            found.append(Misfit(f"students.{name}", "has the name of a candidate", f"call it {name}_student"))
        teacher = entry.get("teacher")
        if teacher not in candidates:
            wrong = "is missing" if teacher is None else f"names {shown(teacher)}, which is no entry of candidates"
            way_out = f"set {_near(str(teacher), candidates) or f'one of {_listed(candidates)}'}"
            found.append(Misfit(f"students.{name}.teacher", wrong, way_out))
    return found


def _compressed(params: Mapping[str, Any]) -> list[Misfit]:
    candidates = {name: entry for _, name, entry in trained_entries(params)}
    taken = {**candidates, **dict(_entries(params, "ensembles"))}
    found = []
    for name, entry in _entries(params, "compressed") if candidates else ():
        key, of = f"compressed.{name}", entry.get("of")
        try:
            Compressed.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join([key, *map(str, first["loc"])])
            found.append(Misfit(where, f"can't be used ({shown(first['msg'])})", "correct it"))
            continue
        if name in taken:
            found.append(Misfit(key, "has the name of another candidate", f"call it {name}_{entry.get('how', 'int8')}"))
        if of not in candidates:
            way_out = f"set {_near(str(of), candidates) or f'one of {_listed(candidates)}'}, or take the entry out"
            found.append(Misfit(f"{key}.of", f"names {shown(of)}, which is no entry of candidates", way_out))
        elif entry.get("backbone") != (under := candidates[of].get("backbone")):
            wrong = f"is {shown(entry.get('backbone'))}, but {of} stands on {shown(under)}"
            found.append(Misfit(f"{key}.backbone", wrong, f"set {under}"))
    return found


def _embeddings(params: Mapping[str, Any]) -> list[Misfit]:
    backbones = dict(_entries(params, "backbones"))
    found = []
    for key in ("group.embedding", "leakage.features"):
        if backbones and _get(params, key) is not None:
            found += _backbone(key, _get(params, key), backbones)
    return found


def _candidate_itself(key: str, entry: dict[str, Any]) -> list[Misfit]:
    """What training would refuse in an entry, the first fault only; a folder of unlabelled pictures that is none."""
    try:
        start = Candidate.model_validate(entry).start
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([key, *map(str, first["loc"])])
        return [Misfit(where, f"can't be used ({shown(first['msg'])})", "correct it")]
    folder = start.unlabelled if start else None
    if folder is None or Path(folder).is_dir():
        return []
    return [Misfit(f"{key}.start.unlabelled", f"names {shown(folder)}, which is no folder", "correct it, or set null")]


def _backbone(key: str, name: Any, backbones: Collection[str]) -> list[Misfit]:
    if name in backbones:
        return []
    offer = _near(str(name), backbones) or f"one of {_listed(backbones)}"
    return [Misfit(key, f"names {shown(name)}, which is no entry of backbones", f"set {offer}, or add the entry")]


def _weights_files(params: Mapping[str, Any]) -> list[Misfit]:
    found = []
    for name, entry in _entries(params, "backbones"):
        weights = entry.get("weights", "random")
        if isinstance(weights, str) and weights not in ("auto", "imagenet", "random") and not Path(weights).is_file():
            way_out = "correct the path, or set auto, imagenet or random"
            found.append(Misfit(f"backbones.{name}.weights", f"names {shown(weights)}, which is no file", way_out))
    return found


# ------------------------------------------------------------------------------------------------------ plain data


def _get(params: Mapping[str, Any], key: str) -> Any:
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _entries(params: Mapping[str, Any], section: str) -> list[tuple[str, dict[str, Any]]]:
    value = params.get(section)
    if not isinstance(value, Mapping):
        return []
    return [(str(name), entry if isinstance(entry, dict) else {}) for name, entry in value.items()]


def _texts(values: Any) -> list[str]:
    return [str(value) for value in values if value is not None] if isinstance(values, (list, tuple)) else []


def _near(name: str, known: Collection[str]) -> str | None:
    """The name that `name` may be a misspelling of, None where nothing is near."""
    other = _other_spelling(name, known)
    return other or next(iter(difflib.get_close_matches(name, sorted(known), 1, 0.75)), None)


def _other_spelling(name: str, known: Collection[str]) -> str | None:
    """The known name that is clearly meant: `photo` for `Photos` or `photo_id`."""
    kin = {f"{name}s", name.rstrip("s"), f"{name}_id", f"{name}id"} - {name}
    found = next((other for other in sorted(known) if other.casefold() in kin), None)
    return same_but_for_spelling(name, known) or found


def _listed(names: Collection[str]) -> str:
    listed = [shown(name, 40) for name in names]
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "") or "none"


def _metadata_name(params: Mapping[str, Any]) -> str:
    return str(_get(params, "data.metadata") or DEFAULT_METADATA)
