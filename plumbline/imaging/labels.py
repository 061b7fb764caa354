"""Class names: which are allowed, how several labels are written, and which names only look different.

A label comes from outside: a folder's name, a cell of metadata.csv, a choice in an annotation tool. It becomes the name
of a folder later, so every label is read with `read_label`, which refuses names that are not safe as one.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable

from plumbline.imaging.litter import is_litter

SEVERAL = ";"  # joins the labels of a picture that has several: helmet;vest
LONGEST = 120  # bytes in UTF-8; a folder's name may have 255, and some systems double them

# Joins letters in Persian, Hindi and emoji; anywhere else it is a difference that nobody sees.
_JOINERS = "\u200c\u200d"
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"  # letters and marks that print as nothing
_VARIANTS = "".join(map(chr, range(0xFE00, 0xFE10)))  # the same letter in another dress
_NOT_IN_NAMES = '<>:"|?*'
_WINDOWS = {
    *("con", "prn", "aux", "nul", "conin$", "conout$", "clock$"),
    *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789\u00b9\u00b2\u00b3"),
}
_FILES = re.compile(
    r"(metadata|labels)\.csv|(images|labels)\.npy|obj\.(names|data)|data\.ya?ml|.*\.dvc|dvc\.lock", re.I
)
# Cyrillic and Greek letters that print like Latin ones.
_LOOKALIKES = str.maketrans("аеорсухіјѕԁһοαρνικτυ", "aeopcyxijsdhoapviktu")


class LabelError(ValueError):
    """Why a text can't be a label; the message continues a sentence that begins with the label."""


def read_label(value: object) -> str:
    """Return a label as it is kept: classes in Unicode form NFC, sorted, each once, joined by `;`.

    `cat; dog`, `dog;cat` and `cat;dog;` are the same label; an empty text stays empty. Whole numbers become text.
    Raises LabelError where a class has a name that can't be a folder's, or the value is not text.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise LabelError("is no text: give the name of a class")
    if isinstance(value, float) and not value.is_integer():
        raise LabelError("is a number that is not whole: give the name of a class")
    text = value if isinstance(value, str) else str(int(value))
    parts = {part.strip() for part in re.split("[;\uff1b]", unicodedata.normalize("NFC", text))} - {""}
    for part in sorted(parts):
        if reason := name_fault(part):
            raise LabelError(reason if len(parts) == 1 else f"holds '{shown(part)}', which {reason}")
    return SEVERAL.join(sorted(parts))


def label_classes(label: object) -> tuple[str, ...]:
    """Return the classes of a label that `read_label` gave: `helmet;vest` has two, an empty one none."""
    return tuple(str(label).split(SEVERAL)) if label else ()


def classes_as_written(text: object) -> tuple[str, ...]:
    """Return the classes of a label as it was written; one that `read_label` refuses is a class of its own."""
    try:
        return label_classes(read_label(text))
    except LabelError:
        return (str(text),)


def classes_of(labels: Iterable[object]) -> set[str]:
    """Return every class that appears in these labels."""
    return {name for label in set(labels) for name in label_classes(label)}


def name_fault(name: str) -> str | None:
    """Return why `name` can't be a class's name, as words that follow it in a sentence; None where it can."""
    kinds = [unicodedata.category(letter) for letter in name]
    if not name.strip():
        return "is empty: give the name of a class"
    if "Cs" in kinds or "\ufffd" in name:
        return "holds a letter that is no valid Unicode: type it anew"
    if any(kind in ("Cc", "Zl", "Zp") for kind in kinds):
        return "holds a line break or control character: type it anew"
    unseen = (kind == "Cf" and letter not in _JOINERS for letter, kind in zip(name, kinds, strict=True))
    if any(unseen) or any(letter in _BLANKS for letter in name):
        return "holds an invisible character: type it anew"
    if "/" in name or "\\" in name:
        return "holds a slash, which would make it a path: write it without, such as not_applicable or without_helmet"
    if name != name.strip() or name[0] in ".~" or name[-1] == "." or name.strip(_JOINERS) != name:
        return "begins with a dot, space or ~, or ends with a dot or space: name the class without it"
    if found := [letter for letter in _NOT_IN_NAMES if letter in name]:
        return f"holds {found[0]}, which no folder's name may hold on every system: write it without"
    if name.split(".")[0].rstrip().casefold() in _WINDOWS:
        return "is a name that Windows keeps for a device: call the class something else"
    if is_litter(name) or _FILES.fullmatch(name):
        return "is the name of a file or folder with another meaning: call the class something else"
    if len(name.encode()) > LONGEST:
        return f"has {len(name.encode())} bytes, more than {LONGEST}: give it a shorter name"
    return None


def alike(name: str) -> str:
    """Return a form that is equal for class names that differ only in case, spaces, hyphens or Unicode form."""
    text = unicodedata.normalize("NFKC", name).casefold().translate(_LOOKALIKES)
    text = "".join(one for one in text if unicodedata.category(one) != "Cf" and one not in _VARIANTS)
    text = re.sub(r"[\s_\-\u2010-\u2015\u2212]+", "_", text.strip())
    # no_entry and noentry are the same word; 1_2 and 12 are different numbers, and -1 is not 1.
    return re.sub(r"(?<=\w)(?<!_)_(?=[^\W_])(?!(?<=\d_)\d)", "", text)


def same_but_for_spelling(name: str, known: Collection[str]) -> str | None:
    """Return the known class that differs from `name` only in case, spaces, hyphens or Unicode form; else None."""
    mine = alike(name)
    return next((other for other in sorted(known) if alike(other) == mine and other != name), None)


def nearest_class(name: str, known: Collection[str]) -> str | None:
    """Return the known class that `name` may be a misspelling of; None where none is near."""
    folded = {alike(other): other for other in sorted(known)}
    near = difflib.get_close_matches(alike(name), list(folded), 1, 0.8)
    return folded[near[0]] if near else None


def shown(text: object, longest: int = 80) -> str:
    """Return text from outside shortened to one line, with \\x and \\u escapes for what can't be printed."""
    words = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    words = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    return words if len(words) <= longest else words[: longest - 1] + "…"
