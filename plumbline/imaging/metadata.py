"""metadata.csv: what is known of pictures, read in the same way for data/, a batch and a site's folder.

People write such tables with spreadsheets, on other systems and from other folders. Where a row can mean only one
picture it is matched, with a note; where it can mean two nothing is guessed: it matches none, and a note says so.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from plumbline.common.errors import UserError
from plumbline.imaging.decode import LFS_POINTER
from plumbline.imaging.labels import shown as printable
from plumbline.imaging.litter import is_litter

if TYPE_CHECKING:
    import pandas as pd

Values = dict[str, str | None]
Parts = tuple[str, ...]

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Other names of the columns that the project uses (case, spaces and dashes never matter).
_KNOWN = ("path", "label", "photo", "video", "person", "camera", "site", "captured_at")
_SPELLINGS = {
    **{name.replace("_", ""): name for name in _KNOWN},
    **dict.fromkeys(("filename", "filepath", "imagepath", "imgpath", "relativepath", "relpath"), "path"),
    **{f"{name}id": name for name in ("photo", "video", "person", "camera", "site")},
}
# Names that may mean such a column or something else: they are mentioned, not renamed.
_LOOKALIKES = {
    **dict.fromkeys(("file", "files", "image", "images", "imagename", "img", "name", "picture", "url", "key"), "path"),
    **dict.fromkeys(("fname", "imagefile", "imageid", "id", "uri", "src", "filenames", "paths"), "path"),
    **dict.fromkeys(("labels", "class", "classes", "classname", "category", "target", "tag"), "label"),
    **dict.fromkeys(("timestamp", "datetime", "date", "time", "takenat", "datetaken", "capturetime"), "captured_at"),
}
_AROUND_CELLS = " \t\r\n\v\f\xa0\ufeff"
_NO_PATH = "(row {}, without a path)"
_OTHER_FORMATS = (".tsv", ".tab", ".txt", ".xls", ".xlsx", ".ods", ".json", ".jsonl", ".parquet")


# What people and programs write for "unknown". Taken as a value, it would tie unrelated pictures together.
BLANK_WORDS = (
    *("nan", "none", "null", "nil", "na", "n/a", "n.a.", "n.a", "#n/a", "<na>", "nat", "undefined", "undef", "void"),
    *("unknown", "unk", "unnamed", "unspecified", "not known", "not available", "not applicable", "missing", "tbd"),
    *("-", "--", "---", "–", "—", "_", ".", "..", "...", "?", "*", "(none)", "(unknown)", "(blank)"),
    *("not given", "not set", "not specified", "not recorded", "not assigned", "unassigned", "unset", "empty", "tba"),
    *("n.d.", "k.a.", "unbekannt", "inconnu", "desconocido", "sconosciuto", "onbekend", "anonymous"),
    *("неизвестно", "不明", "未知"),
    *("#ref!", "#value!", "#name?", "#div/0!", "#null!", "\\n"),  # of spreadsheets and databases
)

# What programs write where a label is missing. (`none`, `null` and `unknown` may be classes.)
_NO_LABELS = ("nan", "na", "#n/a", "#ref!", "#value!", "#name?")

# Dates that exist, 1800 to 2199: months of 31 and 30 days, February, and its 29th in leap years.
_YEAR = r"(?:18|19|20|21)\d\d"
_LEAP = r"(?:(?:18|19|20|21)(?:0[48]|[2468][048]|[13579][26])|2000)"
_DAY = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|"
    rf"02-(?:0[1-9]|1\d|2[0-8]))|{_LEAP}-02-29)"
)
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?"
ISO_TIME = rf"^{_DAY}(?:[T ]{_CLOCK}(?:Z|[+-](?:0\d|1[0-4]):?[0-5]\d)?)?$"


@dataclass(frozen=True)
class Metadata:
    """A table as {path as the file has it: {column: text, None where blank}}; `notes` say what is unusual about it."""

    rows: dict[str, Values]
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns besides path and label."""
        return list(dict.fromkeys(name for values in self.rows.values() for name in values if name != "label"))


@dataclass(frozen=True)
class Matches:
    """Which row belongs to which picture: `of` maps a name to the row's path, `unmatched` a row's path to the reason.

    `otherwise` holds (row's path, name) where the two are not written alike.
    """

    of: dict[str, str]
    unmatched: dict[str, str]
    otherwise: list[tuple[str, str]] = field(default_factory=list)


# --------------------------------------------------------------------------------------------------------- reading


def find_table(names: Iterable[str], wanted: str) -> tuple[str | None, list[str]]:
    """Return which of a folder's file names is the table `wanted`, None where none is, and notes.

    Case is ignored. A table in another format (.xlsx), or called nearly so (`meta_data.csv`, `metadata (1).csv`), is
    mentioned in the notes, not read.
    """
    there = sorted(names)
    if wanted in there:
        return wanted, []
    there = [name for name in there if not is_litter(name)]
    same = [name for name in there if name.casefold() == wanted.casefold()]
    if len(same) == 1:
        return same[0], [f"{same[0]} is read as {wanted}"]
    if same:
        return None, [f"neither {' nor '.join(same)} is read: keep one of them, as {wanted}"]
    stem = _letters(PurePosixPath(wanted).name)
    nearly = [name for name in there if _letters(name) in (stem, f"{stem}copy", f"copyof{stem}")]
    return None, [
        f"{printable(name)} is not read: save it as CSV, as {wanted}"
        for name in nearly
        if PurePosixPath(name).suffix.casefold() in (".csv", *_OTHER_FORMATS)
    ]


def unread_tables(files: Iterable[str], wanted: str) -> list[str]:
    """Return sentences on files at the top that are called as tables of labels, and are not the table `wanted`."""
    return [
        f"{printable(name)} is not read: put what it says of pictures into {wanted}, with the columns path and label."
        for name in sorted(files)
        if "/" not in name
        and name.casefold() != wanted.casefold()
        and PurePosixPath(name).suffix.casefold() in (".csv", *_OTHER_FORMATS)
        and (
            re.fullmatch(r".*(labels?|annotations?|targets?|groundtruth)", _letters(name))
            or (_letters(name) in ("train", "test", "val", "valid") and not name.casefold().endswith(".txt"))
        )
    ]


def _letters(name: str) -> str:
    """The letters of a file's name before its first dot: those of `Meta_Data (1).csv.txt` are metadata."""
    return re.sub(r"[^a-z]+", "", name.split(".")[0].casefold())


def read_table(folder: Path, wanted: str, reserved: Collection[str]) -> Metadata | None:
    """Return the table `wanted` of a folder, None where there is none; UserError where it is no table."""
    name, notes = find_table((entry.name for entry in folder.iterdir()) if folder.is_dir() else (), wanted)
    path = folder / (name or wanted)
    if name is None and not path.is_file():  # `wanted` may lie in another folder
        return Metadata({}, tuple(notes)) if notes else None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): put that right.") from None
    table = parse_table(content, str(path), reserved)
    return Metadata(table.rows, (*notes, *table.notes))


def parse_table(content: bytes, shown: str, reserved: Collection[str]) -> Metadata:
    """Return the table that a file holds; `shown` is how messages name it, `reserved` the columns it can't bring.

    Raises UserError where it is no table, has no `path`, or says two things of one path.
    """
    text = table_text(content, shown)
    mark = _separator(text, shown)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UserError(f"{shown} is no CSV file ({error}): save it again as one.") from None
    numbered = [
        (number, [cell.strip(_AROUND_CELLS) for cell in line])
        for number, line in enumerate(lines, 1)
        if _holds_text(line)
    ]
    if not numbered:
        raise UserError(f"{shown} is empty: give it the columns path and what is known of each picture, or remove it.")
    notes = [] if mark == "," else [f"{shown} is separated by {SEPARATORS[mark]}"]
    if len(numbered) == 1:
        notes.append(f"{shown} has a header and not one row")
    numbered = _without_index(numbered)
    header, own_notes = _named_columns(_without_blank_columns(numbered), shown)
    for name in header:
        if (name in reserved and name not in ("path", "label")) or name.startswith("_"):
            raise UserError(f"{shown} has a column {name!r}, a name that ingest uses itself: rename it.")
    rows: dict[str, Values] = {}
    for number, line in numbered[1:]:
        cells = line[: len(header)] if not _holds_text(line[len(header) :]) else line
        if len(cells) != len(header):
            raise UserError(f"{shown}, row {number}: {len(cells)} values under {len(header)} column names, correct it.")
        values: Values = {name: cell or None for name, cell in zip(header, cells, strict=True)}
        if _plain_word(values.get("label") or "") in _NO_LABELS:
            values["label"] = None
        path = values.pop("path")
        key = str(PurePosixPath(path)) if path else _NO_PATH.format(number)
        if rows.setdefault(key, values) != values:
            raise UserError(f"{shown} has two rows for {key} that differ: keep one of them.")
    return Metadata(rows, (*notes, *own_notes))


def written_path(key: str) -> str:
    """The path in the row called `key`; empty where the row has none."""
    return "" if re.fullmatch(re.escape(_NO_PATH).replace(r"\{\}", r"\d+"), key) else key


def _holds_text(cells: list[str]) -> bool:
    return any(cell.strip() for cell in cells)


def table_text(content: bytes, shown: str) -> str:
    """Return the text of a table in any Unicode encoding; UserError, in which it is called `shown`, for other bytes."""
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UserError(f"{shown} is a spreadsheet or an archive, not a text file: save it as CSV in UTF-8.")
    if content.startswith(LFS_POINTER):
        raise UserError(f"{shown} is a Git LFS pointer, not the file itself: run `git lfs pull`.")
    if content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"<", b"{", b"["):
        raise UserError(f"{shown} is a web page, XML or JSON, not a table: save it as CSV in UTF-8.")
    try:
        text = content.decode(_encoding(content)).lstrip("\ufeff")  # a mark that was converted is there twice
        text = text.rstrip("\x1a\0")  # how DOS ended a file
        return re.sub(r'\A"?sep=."?\r?\n', "", text)  # what Excel writes and reads before the table
    except UnicodeDecodeError as error:
        raise UserError(f"{shown} is no CSV file in UTF-8 ({error}): save it again as one.") from None


def _encoding(content: bytes) -> str:
    """UTF-8, unless a byte order mark or the zeros between the letters say otherwise."""
    if content.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    head = content[:4]  # of a column's name or a number; what comes later may be in any script
    if len(head) > 3 and head[0] and not any(head[1::2]):
        return "utf-16-le"
    return "utf-16-be" if len(head) > 3 and head[1] and not any(head[0::2]) else "utf-8-sig"


def _separator(text: str, shown: str) -> str:
    """The separator that gives the first line a column for the path; UserError where none does."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    headers = {mark: next(csv.reader([first], delimiter=mark), []) for mark in SEPARATORS}
    for mark, header in headers.items():
        if any(_SPELLINGS.get(_folded(name)) == "path" for name in header):
            return mark
    header = [name.strip() for name in max(headers.values(), key=len)]
    if not first:
        return ","
    likely = [name for name in header if _LOOKALIKES.get(_folded(name)) == "path"]
    way_out = f"rename `{likely[0]}` if it holds" if likely else "rename the one that holds"
    raise UserError(f"{shown} has no column `path` but {', '.join(header)}: {way_out} the pictures' paths.")


def _without_index(numbered: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """The table without the nameless first column in which pandas numbers the rows."""
    rows = [line[0] for _, line in numbered[1:] if line]
    if numbered[0][1][0] not in ("", "Unnamed: 0") or rows != [str(number) for number in range(len(rows))]:
        return numbered
    return [(number, line[1:]) for number, line in numbered]


def _without_blank_columns(numbered: list[tuple[int, list[str]]]) -> list[str]:
    """The header without the empty unnamed columns that spreadsheets leave at its end."""
    header = list(numbered[0][1])
    while (
        header
        and not header[-1]
        and not any(len(line) >= len(header) and line[len(header) - 1] for _, line in numbered)
    ):
        header.pop()
    return header


def _named_columns(header: list[str], shown: str) -> tuple[list[str], list[str]]:
    """Return the columns under the project's names, and notes on those that were renamed."""
    named, notes = list(header), []
    for known in _KNOWN:
        if known in header:
            continue
        meant = [name for name in header if _SPELLINGS.get(_folded(name)) == known]
        if len(meant) > 1:
            raise UserError(
                f"{shown} has the columns {' and '.join(meant)}, and only one can be `{known}`: rename one."
            )
        if meant:
            named[header.index(meant[0])] = known
            notes.append(f"{shown}: the column `{meant[0]}` is read as `{known}`")
            continue
        likely = [name for name in header if _LOOKALIKES.get(_folded(name)) == known]
        if likely:
            notes.append(f"{shown}: no column `{known}`, but `{likely[0]}`: rename it if that is what it holds")
    repeated = next((name for place, name in enumerate(named) if not name or name in named[:place]), None)
    if repeated is not None:
        raise UserError(f"{shown} has a column name twice, or without a name ({repeated!r}): rename it.")
    return named, notes


def meaning(name: str) -> str:
    """Return the column that a name means or may mean (`file_name`: path), else the name without case and spaces."""
    folded = _folded(name)
    return _SPELLINGS.get(folded) or _LOOKALIKES.get(folded) or folded


def _folded(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", unicodedata.normalize("NFKC", name).casefold())


# -------------------------------------------------------------------------------------------------------- matching


def match(table: Metadata, names: Iterable[str], own: Collection[str] = (), others: Collection[str] = ()) -> Matches:
    """Match rows to pictures; `names` are the pictures' POSIX paths below the folder.

    A row's path fits as it is; else with `\\` for `/`, in another case or Unicode form; else with more or fewer
    leading folders than the picture's path. A row that fits two pictures, and a picture that two rows
    fit equally well and differently, stay unmatched.

    Args:
        own: names of the folder itself, which may lead a path.
        others: names of folders whose pictures these are not.
    """
    known = _Names(names)
    mine, foreign = {_plain(name) for name in own}, {_plain(name) for name in others}
    unmatched: dict[str, str] = {}
    claims: dict[str, list[tuple[int, str]]] = {}
    for key in table.rows:
        level, name, why = _place(key, known, mine, foreign)
        if name is None:
            unmatched[key] = why
        else:
            claims.setdefault(name, []).append((level, key))
    of = {}
    for name, claimed in claims.items():
        best = min(level for level, _ in claimed)
        first = [key for level, key in claimed if level == best]
        if all(table.rows[key] == table.rows[first[0]] for key in first):
            of[name] = first[0]
            late = [key for _, key in claimed if table.rows[key] != table.rows[first[0]]]
            unmatched |= dict.fromkeys(late, f"{name} has another row, that says something else")
        else:
            unmatched |= {key: f"other rows fit {name} as well, and differ" for _, key in claimed}
    otherwise = [(key, name) for name, key in of.items() if key != name]
    return Matches(of, {key: unmatched[key] for key in table.rows if key in unmatched}, otherwise)


class _Names:
    """Pictures' names by their normalised parts, and by the endings of these."""

    def __init__(self, names: Iterable[str]) -> None:
        self.exact = set(names)
        self.whole: dict[Parts, list[str]] = {}
        for name in sorted(self.exact):
            self.whole.setdefault(_parts(name), []).append(name)
        self._ends: dict[Parts, list[str]] | None = None

    def ending(self, parts: Parts) -> list[str]:
        """The names that end in `parts`, with one or more folders before them."""
        if self._ends is None:
            self._ends = {}
            for own, names in self.whole.items():
                for cut in range(1, len(own)):
                    self._ends.setdefault(own[cut:], []).extend(names)
        return self._ends.get(parts, [])


def _place(key: str, known: _Names, mine: Collection[str], foreign: Collection[str]) -> tuple[int, str | None, str]:
    """Return how well a row's path fits (0 is best) and which name, or None and why it fits none."""
    if key in known.exact:
        return 0, key, ""
    parts = _parts(key)
    if not parts or ".." in parts:
        return 0, None, "there is no such file"
    for written in dict.fromkeys((parts, _parts(unquote(key)))):  # as they are first, then as in an address
        for level, found in _fitting(written, known, mine, foreign):
            if len(found) == 1:
                return level, found[0], ""
            if found:
                return 0, None, f"it fits {found[0]} and {found[1]} alike"
    return 0, None, "there is no such file"


def _fitting(
    parts: Parts, known: _Names, mine: Collection[str], foreign: Collection[str]
) -> Iterator[tuple[int, list[str]]]:
    yield 1, known.whole.get(parts, [])
    last = max((place for place, part in enumerate(parts[:-1]) if part in mine), default=None)
    if last is not None:
        yield 2, known.whole.get(parts[last + 1 :], [])
    for cut in range(1, len(parts)):
        if parts[cut - 1] in foreign:
            return
        yield 3, known.whole.get(parts[cut:], [])
    yield 4, known.ending(parts)
    if last is not None:
        yield 5, known.ending(parts[last + 1 :])


def _parts(path: str) -> Parts:
    plain = _plain(path).strip("\"' ")
    return tuple(part for part in plain.replace("\\", "/").split("/") if part not in ("", "."))


def _plain(text: str) -> str:
    """Without case, Unicode form and marks that nobody sees, as Windows puts them around a path that is copied."""
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def said(shown: str, table: Metadata, found: Matches) -> list[str]:
    """Return sentences on everything unusual about a table and its matching."""
    lines = [f"{note}." for note in table.notes]
    if found.otherwise:
        row, name = found.otherwise[0]
        lines.append(
            f"{len(found.otherwise)} of {len(table.rows)} rows of {shown} write their path in another way "
            f"({printable(row)} is taken for {name})."
        )
    times = {row: values.get("captured_at") for row, values in table.rows.items()}
    if wrong := [row for row, time in times.items() if time and not re.match(ISO_TIME, time)]:
        lines.append(
            f"{len(wrong)} of {len(table.rows)} rows of {shown} have a captured_at that is no time in ISO 8601 (the "
            f"first: {printable(times[wrong[0]])} of {printable(wrong[0])}): write it as 2026-03-31T14:05:00."
        )
    if found.unmatched:
        row, why = next(iter(found.unmatched.items()))
        lines.append(
            f"{len(found.unmatched)} of {len(table.rows)} rows of {shown} match no picture (the first: "
            f"{printable(row)}: {why}): correct their paths, or remove them."
        )
    return lines


# ------------------------------------------------------------------------------------------------- blank words


def grouping_values(table: pd.DataFrame, column: str, blank_words: Sequence[str] = BLANK_WORDS) -> pd.Series[str]:
    """Return (N,) the values of a grouping column as text, "" where blank or a word for "unknown"."""
    text = table[column].fillna("").astype(str)
    words = {"", *map(_plain_word, blank_words)}
    blank = {value for value in text.unique() if _plain_word(value) in words}
    return text.where(~text.isin(blank), "")


def _plain_word(text: str) -> str:
    """A word without case, form, marks around it and unseen letters; a run of one mark (`???`, `– –`) as that mark."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join("-" if unicodedata.category(one) == "Pd" or one == "\u2212" else one for one in text)
        text = "".join(one for one in text if unicodedata.category(one) != "Cf")
    text = " ".join(text.casefold().split())
    text = re.sub(r"^(\W|_)(?: ?\1)+$", r"\1", text.replace(" / ", "/"))
    return text.strip("\"'`<>[](){} ").rstrip(" .?!:") or text
