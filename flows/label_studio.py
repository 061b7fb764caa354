"""A Label Studio export (JSON or JSON-MIN) laid out as a batch folder: pictures and metadata.csv.

Nothing in an export is trusted: labels go through imaging.labels, pictures are taken from the folder given (or a web
or object store), and their names are made here.
"""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from flows.batch import METADATA, Refusal
from plumbline.common.errors import UserError, causes, one_line
from plumbline.common.files import write_table
from plumbline.imaging.decode import SUFFIXES, DecodeError, picture_suffix
from plumbline.imaging.labels import LabelError, read_label, shown
from plumbline.imaging.metadata import meaning
from plumbline.imaging.pictures import RESERVED

# Where a picture may be downloaded from. Others (a local path in disguise, a chain of protocols) are refused.
BLOCK, MOST_BYTES = 1 << 20, 256_000_000  # of a download: an export may name anything, and the disk is finite
REMOTE = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
# What Label Studio itself writes beside a task's data and its answers in JSON-MIN.
_OWN = {
    *("id", "inner_id", "annotator", "annotation_id", "completed_by", "created_at", "updated_at", "lead_time"),
    *("agreement", "history", "comments", "was_cancelled", "ground_truth", "meta", "project", "predictions"),
}
LONGEST_FIELD = 100_000  # letters; Python's reader of tables takes 131,072
_LABEL_TAGS = ("choice", "label", "class")


class _Unusable(Exception):
    """Why a task of an export can't be used; the message ends a sentence that begins with the task's number."""


@dataclass
class _Task:
    """One picture of an export: `choices` by tag, a set of answers each, and its other data fields."""

    name: str
    source: str
    choices: dict[str, list[list[Any]]] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    regions: bool = False


def read_label_studio(export: Path, images: Path, into: Path, tag: str | None = None) -> list[Refusal]:
    """Lay the pictures of a Label Studio export out in `into` as a batch folder; return what could not be used.

    Args:
        export: JSON or JSON-MIN, one choice a picture; other data fields become metadata columns.
        images: the folder that uploaded or local files of the tasks are in. Tasks may name URLs (s3://, https://).
        into: an empty folder.
        tag: the name of the choices that are the label, where an export has several.

    Raises UserError where it is no such export, or where it does not say which of its choices is the label.
    """
    import pandas as pd

    refused: list[Refusal] = []
    tasks = []
    for number, raw in enumerate(_tasks(export), 1):
        name = f"task {shown(raw.get('id', number), 40)}"
        try:
            _check_text(raw)
            tasks.append(_read_task(name, raw))
        except _Unusable as error:
            refused.append(Refusal(name, str(error)))
    tag = _label_tag(tasks, tag, export)
    rows: list[dict[str, str]] = []
    taken: set[str] = set()
    pictures = _by_picture(tasks)
    doubtful = _claimed_twice([same[0].source for same in pictures], images)
    for same in pictures:
        try:
            label = _agreed(same, tag)
            columns = _columns(same, tag)
            if other := doubtful.get(same[0].source):
                raise _Unusable(
                    f"names {shown(same[0].source)}, and the only file of that name is {shown(other)}'s as well: lay "
                    "the files out in the folders that the tasks name"
                )
            target = _fetch(same[0].source, images, into, taken)
        except _Unusable as error:
            refused.append(Refusal(same[0].name, str(error)))
            continue
        rows.append({"path": target.name, "label": label, **columns})
    if rows:
        write_table(into / METADATA[0], pd.DataFrame(rows))
    return refused


# --------------------------------------------------------------------------------------------------- reading tasks


def _tasks(export: Path) -> list[dict[str, Any]]:
    try:
        tasks = json.loads(export.read_bytes())  # from bytes json detects UTF-8, UTF-16 and a byte order mark
    except FileNotFoundError:
        raise UserError(f"{export} is missing: give the path of Label Studio's JSON export.") from None
    except OSError as error:
        raise UserError(f"{export} can't be read ({error.strerror}): give the path of the JSON export.") from None
    except (ValueError, RecursionError) as error:
        said = one_line(error)[:120]
        raise UserError(f"{export} is not valid JSON ({said}): export it again from Label Studio as JSON.") from None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{export} is no list of tasks: export it from Label Studio as JSON or JSON-MIN.")
    return tasks


def _check_text(raw: dict[str, Any]) -> None:
    try:
        json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _Unusable("holds a letter that is no valid Unicode: correct it, and export it again") from None


def _read_task(name: str, raw: dict[str, Any]) -> _Task:
    answers = raw.get("annotations", raw.get("completions"))
    if answers is None and not isinstance(raw.get("data"), dict):
        return _read_min(name, raw)
    data = raw["data"] if isinstance(raw.get("data"), dict) else raw
    key = _image_key(data)
    task = _Task(name, str(data[key]), fields={other: value for other, value in data.items() if other != key})
    for answer in answers if isinstance(answers, list) else []:
        if isinstance(answer, dict) and not answer.get("was_cancelled") and not answer.get("skipped"):
            for found, choices in _answers(answer.get("result"), task).items():
                task.choices.setdefault(found, []).append(choices)
    return task


def _answers(result: Any, task: _Task) -> dict[str, list[Any]]:
    """Return the choices of one annotation by the name of their tag."""
    parts = [part for part in result if isinstance(part, dict)] if isinstance(result, list) else []
    boxes = {part.get("id") for part in parts if part.get("type") not in ("choices", None)} - {None}
    found: dict[str, list[Any]] = {}
    for part in parts:
        value = part.get("value")
        if not isinstance(value, dict) or "choices" not in value:
            continue
        if "width" in value or "points" in value or part.get("id") in boxes:
            task.regions = True
            continue
        choices = value["choices"]
        tag = part.get("from_name")
        found.setdefault(str(tag or "choice"), []).extend(choices if isinstance(choices, list) else [choices])
    return found


def _read_min(name: str, raw: dict[str, Any]) -> _Task:
    """Read a record of JSON-MIN: the answers of one annotation, in one object with the data fields."""
    key = _image_key({other: value for other, value in raw.items() if other not in _OWN})
    task = _Task(name, str(raw[key]))
    tags = _min_tags(raw, key)
    for other, value in raw.items():
        if other in tags and raw.get("was_cancelled"):
            continue
        if other in tags:
            inner = value.get("choices") if isinstance(value, dict) else value
            task.choices[other] = [inner if isinstance(inner, list) else [inner]] if inner not in (None, "") else []
        elif other != key and other not in _OWN:
            task.fields[other] = value
    return task


def _min_tags(raw: dict[str, Any], image: str) -> list[str]:
    """Which fields of a JSON-MIN record are answers: those called label, those with choices, else the last text field.

    Label Studio writes the data, then `id`, then the answers, then `annotator`.
    """
    named = [key for key in raw if key.casefold() in _LABEL_TAGS]
    chosen = [key for key, value in raw.items() if isinstance(value, dict) and "choices" in value]
    if named or chosen:
        return list(dict.fromkeys([*named, *chosen]))
    keys = list(raw)
    first = keys.index("id") + 1 if "id" in raw else 0
    last = next((place for place, key in enumerate(keys) if place >= first and key in _OWN - {"id"}), len(keys))
    return [key for key in keys[first:last] if key != image and _is_answer(raw[key])]


def _is_answer(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _image_key(data: dict[str, Any]) -> str:
    """The data field that names the picture: `image`, or the only one that looks like a picture's path."""
    if isinstance(data.get("image"), str) and data["image"].strip():
        return "image"
    names = [key for key, value in data.items() if isinstance(value, str) and _looks_like_picture(value)]
    if len(names) != 1:
        raise _Unusable(
            "names no picture"
            if not names
            else f"names pictures in {shown(', '.join(sorted(names)))}: call the one that is labelled image"
        )
    return names[0]


def _looks_like_picture(text: str) -> bool:
    return any(PurePosixPath(name).suffix.lower() in SUFFIXES for name in _file_names(text)[:3])


# ---------------------------------------------------------------------------------------------- what the label is


def _label_tag(tasks: list[_Task], wanted: str | None, export: Path) -> str:
    """Return the tag whose choices are the label: the one asked for, else the only one, else the one in _LABEL_TAGS."""
    tags = sorted({tag for task in tasks for tag in task.choices})
    if wanted is not None:
        if wanted not in tags:
            raise UserError(f"{export} has no choices called {wanted}: it has {', '.join(tags) or 'none'}.")
        return wanted
    if len(tags) > 1:
        called = [tag for tag in tags if tag.casefold() in _LABEL_TAGS]
        if len(called) != 1:
            names = ", ".join(shown(tag) for tag in tags)
            raise UserError(
                f"{export} has choices of several names ({names}): say which is the label, such as --label-tag "
                f"{shown(tags[0])}."
            )
        return called[0]
    return tags[0] if tags else "choice"


def _by_picture(tasks: list[_Task]) -> list[list[_Task]]:
    """Put tasks of one picture together: JSON-MIN has a record for each annotator, and a picture may come in twice."""
    found: dict[str, list[_Task]] = {}
    for task in tasks:
        found.setdefault(task.source, []).append(task)
    return list(found.values())


def _agreed(same: list[_Task], tag: str) -> str:
    """The label that all annotations of a picture agree on; several choices of one annotation are joined by `;`."""
    found = {_joined(choices) for task in same for choices in task.choices.get(tag, [])} - {""}
    if len(found) > 1:
        named = " and ".join(shown(label) for label in sorted(found))
        raise _Unusable(f"has annotations that disagree: {named}")
    if not found:
        if any(task.regions for task in same):
            raise _Unusable("has choices for boxes, none for the whole picture: label whole pictures for intake")
        raise _Unusable("has no label: it was skipped, only predicted, or annotated with something other than choices")
    return found.pop()


def _joined(choices: list[Any]) -> str:
    """The label of one annotation; every choice must be one class, not a `;` list or a path in a tree."""
    labels = []
    for choice in choices:
        if choice is None:
            continue
        if isinstance(choice, (list, dict)):
            raise _Unusable(f"has nested choices ({shown(json.dumps(choice))}): intake takes a flat list of choices")
        try:
            labels.append(read_label(choice))
        except LabelError as error:
            raise _Unusable(f"has the label {shown(repr(choice))}, which {error}") from None
    return read_label(";".join(labels))


def _columns(same: list[_Task], tag: str) -> dict[str, str]:
    """The other data fields, and the choices of other tags, as columns; the first task that fills one decides."""
    found: dict[str, str] = {}
    seen: dict[str, str] = {}
    for task in same:
        others = {
            key: ";".join(str(one) for one in choices[0])
            for key, choices in task.choices.items()
            if key != tag and choices
        }
        for key, value in {**task.fields, **others}.items():
            text = ("true" if value else "false") if isinstance(value, bool) else value
            if isinstance(text, (str, int, float)) and str(text).strip():
                if len(str(text)) > LONGEST_FIELD:
                    raise _Unusable(
                        f"has {len(str(text)):,} letters in data field {shown(key, 40)}, and a cell of metadata.csv "
                        f"may have {LONGEST_FIELD:,}: export it without"
                    )
                column = seen.setdefault(meaning(_column(key)), _column(key))
                found.setdefault(column, str(text))
    return found


def _column(key: str) -> str:
    """A data field's name as a column, with `task_` in front where the name has another meaning in metadata.csv."""
    name = re.sub(r"[^\w .-]+", "_", key)[:60].strip() or "field"
    is_taken = name.startswith("_") or name.casefold() in RESERVED or meaning(name) in ("path", "label")
    return f"task_{name.lstrip('_')}" if is_taken else name


# ------------------------------------------------------------------------------------------------ finding pictures


def _file_names(source: str) -> list[str]:
    """The names that a task's picture may have below the folder of pictures, the likeliest first.

    /data/local-files/?d=FILE and /data/upload/PROJECT/FILE name FILE. Writers differ in what they escape (`a+0.jpg`
    may be `a 0.jpg`, `50%.jpg` itself), so both readings are tried.
    """
    parts = urlsplit(source if not _is_drive(source) else source[2:])
    if parts.path.rstrip("/").endswith("/data/local-files"):
        query = parts.query + (f"#{parts.fragment}" if parts.fragment else "")
        raw = next((one[2:] for one in query.split("&") if one.startswith("d=")), "")
        names = [unquote(raw), parse_qs(parts.query).get("d", [""])[0], raw]
    else:
        whole = source.partition("://")[2].partition("/")[2] if "://" in source else source
        below = [text.partition("/data/upload/")[2] or text for text in (parts.path, whole)]
        names = [unquote(below[0]), below[0], below[1], unquote(below[1])]
    names += [name.replace("\\", "/") for name in names if "\\" in name]
    names += [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in names]
    return [name for name in dict.fromkeys(names) if name.strip("/")]


def _is_drive(source: str) -> bool:
    return re.match(r"[A-Za-z]:[\\/]", source) is not None


def _scheme(source: str) -> str:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(?=//|:|[^/])", source)
    return found.group(1).lower() if found and not _is_drive(source) else ""


def _fetch(source: str, images: Path, into: Path, taken: set[str]) -> Path:
    """Copy or download a picture into `into` under a new name; _Unusable where that fails."""
    scheme = _scheme(source)
    local = _local_candidates(source, images)
    found = next((path for path in local if path.is_file()), None)
    remote = scheme in REMOTE and "::" not in source and not _on_label_studio(source)
    if found is None and not remote:
        if scheme and scheme not in ("file", *REMOTE):
            raise _Unusable(f"names {shown(source)}, which is no file and no URL that begins with {', '.join(REMOTE)}")
        raise _Unusable(
            f"names {shown(source, 200)}, which is not in {images}: give the folder with its file as --images"
        )
    temporary = into / ".fetching"
    try:
        if remote:
            _download(source, temporary)
        else:
            assert found is not None
            shutil.copyfile(found, temporary)
        name = _free_name(_picture_name(source, temporary), taken)
        return temporary.rename(into / name)
    finally:
        temporary.unlink(missing_ok=True)


def _claimed_twice(sources: list[str], images: Path) -> dict[str, str]:
    """Of the sources that a file fits by its last name alone, those that share it: {source: the other}.

    siteA/1.jpg and siteB/1.jpg are two pictures, and a lone 1.jpg is one of them, or neither.
    """
    claims: dict[Path, list[str]] = {}
    for source in sources:
        path = next((path for path in _local_candidates(source, images) if path.is_file()), None)
        if path is not None:
            claims.setdefault(path, []).append(source)
    names = {
        source: [name.lstrip("/") for name in _file_names(source)] for claimed in claims.values() for source in claimed
    }
    found = {}
    for path, claimed in claims.items():
        for source in claimed:
            other = next((one for one in claimed if names[one][0] != names[source][0]), None)
            if other is not None and path.relative_to(images).as_posix() not in names[source]:
                found[source] = other
    return found


def _on_label_studio(source: str) -> bool:
    """Whether this is an upload or local file of a Label Studio server, whose address does not matter."""
    path = urlsplit(source).path
    return "/data/upload/" in path or path.rstrip("/").endswith("/data/local-files")


def _local_candidates(source: str, images: Path) -> Iterator[Path]:
    """Files below `images` that a task may mean; uploads lie under their project's number, or flat where exported."""
    inside = images.resolve()
    if _scheme(source) in REMOTE and not _on_label_studio(source):
        return
    for name in _file_names(source):
        for below in (name.lstrip("/"), PurePosixPath(name).name):
            if "\0" in below or not below:
                continue
            path = images / below
            try:
                if path.resolve().is_relative_to(inside):
                    yield path
            except (OSError, RuntimeError, ValueError):
                continue


def _picture_name(source: str, file: Path) -> str:
    """A plain name for a picture, with the suffix of what it is where its own says nothing."""
    last = PurePosixPath((_file_names(source) or ["picture"])[0].replace("\\", "/")).name
    name = PurePosixPath(last)
    suffix = name.suffix.lower()
    if suffix not in SUFFIXES:
        try:
            suffix = picture_suffix(file.read_bytes())
        except DecodeError as error:
            raise _Unusable(f"names {shown(source)}, which {error.reason}") from None
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name.stem).strip("._-")
    return f"{stem[:100] or 'picture'}{suffix}"


def _free_name(name: str, taken: set[str]) -> str:
    """The name, with a number in front where it (in any case) is taken."""
    number, free = 2, name
    while free.casefold() in taken:
        free, number = f"{number}-{name}", number + 1
    taken.add(free.casefold())
    return free


def _status(error: Exception) -> int | None:
    """What a server answered, None where it did not; 408 and 429 ask to come again, as 503 does."""
    told = (getattr(one, "status", None) for one in causes(error))
    found = next((status for status in told if isinstance(status, int)), None)
    return 503 if found in (408, 429) else found


def _lost_line(error: Exception) -> bool:
    """Whether a server was not reached: fsspec calls the file missing then, and the cause by its name."""
    names = [base.__name__ for one in causes(error) for base in type(one).__mro__]
    return any(word in name for name in names for word in ("Connection", "Timeout"))


def _download(url: str, target: Path) -> None:
    import fsspec

    try:
        # Not expanded: a[1].png is a name, no pattern that a1.png fits.
        with fsspec.open(url, "rb", expand=False) as remote, target.open("wb") as local:
            while block := remote.read(BLOCK):
                local.write(block)
                if local.tell() > MOST_BYTES:
                    raise _Unusable(f"names {shown(url)}, which has more than {MOST_BYTES:,} bytes")
    except _Unusable:
        raise
    except Exception as error:  # each store raises its own; a network failure must not lose pictures
        lasting = isinstance(error, (FileNotFoundError, PermissionError, ImportError, ValueError))
        if (status := _status(error)) in range(400, 500) or (lasting and status is None and not _lost_line(error)):
            raise _Unusable(f"names {shown(url)}, which can't be read: {shown(one_line(error))}") from None
        raise UserError(
            f"{shown(url)} can't be downloaded ({shown(one_line(error))}): nothing was taken in, try again later."
        ) from None
