"""What may be a class, one parser for several, and names that only look different."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.imaging.labels import (
    LabelError,
    alike,
    classes_as_written,
    label_classes,
    nearest_class,
    read_label,
    same_but_for_spelling,
    shown,
)
from plumbline.imaging.litter import is_litter


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("cat", "cat"),
        (" cat ", "cat"),
        ("cat; dog", "cat;dog"),
        ("dog;cat", "cat;dog"),
        ("cat;", "cat"),
        (";;cat;cat ;", "cat"),
        ("cat\uff1bdog", "cat;dog"),
        (";", ""),
        ("", ""),
        ("cafe\u0301", "caf\u00e9"),
        ("no helmet", "no helmet"),
        ("-1", "-1"),
        (3, "3"),
        (0.0, "0"),
        ("\u4e0d\u6234\u5934\u76d4", "\u4e0d\u6234\u5934\u76d4"),
        ("controller", "controller"),
    ],
)
def test_a_label_has_one_form(text, label):
    assert read_label(text) == label
    assert read_label(label) == label


UNSAFE = [
    *("../outside", "/etc/x", "N/A", "w/o helmet", "a\\b", "C:\\x", "C:", "..", ".", ".unsure", "cat.", "~", "~root"),
    *("con", "CON", "nul.txt", "com1", "a\nb", "a\tb", "a\0b", "a\x7fb", "a\u2028b", "a\u202eb", "a\u200bb", "\ufeffa"),
    *("a\u3164b", "\u2800", "\u115f", "no\u034fhelmet", "\u17b4"),
    *("x" * 255, "\u00e4" * 100, "\ud800", "a\ufffdb", "what?", "a*b", "a|b", "a:b", "<b>", 'a"b'),
    *("com\u00b9", "CONIN$", "conout$"),
    *("Thumbs.db", "__MACOSX", "metadata.csv", "labels.csv", "images.npy", "obj.names", "cat;../dog"),
    *(True, None, 1.5, float("nan"), ["a"], {"a": 1}),
]


@pytest.mark.parametrize("value", UNSAFE, ids=repr)
def test_what_can_be_no_folder_everywhere_is_no_label(value):
    with pytest.raises(LabelError):
        read_label(value)


@given(st.text(max_size=40))
def test_whatever_the_text_a_label_stays_inside_its_folder(text):
    try:
        label = read_label(text)
    except LabelError:
        return
    for name in label_classes(label):
        assert "/" not in name
        assert name.strip(". ") == name.rstrip(" .").lstrip(" .")
        assert name.splitlines() == [name]
        assert not is_litter(name)
        assert len(name.encode()) <= 120
    assert read_label(label) == label
    assert ";".join(label_classes(label)) == label


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("With-Helmet", "with_helmet", True),
        ("with helmet", "WithHelmet", True),
        ("with\u00a0helmet", "with_helmet", True),
        ("cafe\u0301", "Caf\u00e9", True),
        ("w\u0456th_helmet", "with_helmet", True),
        ("\uff57ith_helmet", "with_helmet", True),
        ("stra\u00dfe", "STRASSE", True),
        ("\u2764\ufe0f", "\u2764", True),
        ("1-2", "12", False),
        ("-1", "1", False),
        ("A-", "A+", False),
        ("cafe", "caf\u00e9", False),
        ("with_helmet", "without_helmet", False),
    ],
)
def test_classes_that_only_look_different(one, other, same):
    assert (alike(one) == alike(other)) == same
    assert same_but_for_spelling(one, [other]) == (other if same else None)


def test_a_typo_has_a_neighbour_and_a_new_class_none():
    known = ["with_helmet", "without_helmet"]
    assert nearest_class("with_helmt", known) == "with_helmet"
    assert nearest_class("vest", known) is None


def test_a_label_that_is_refused_is_still_told_as_written():
    assert classes_as_written("../x") == ("../x",)
    assert classes_as_written("dog; cat") == ("cat", "dog")


def test_what_is_shown_is_one_printable_line():
    assert shown("a\nb\u202e\ud800") == "a\\nb\\u202e\\ud800"
    assert len(shown("x" * 500)) == 80


@pytest.mark.parametrize(
    "name", ["__MACOSX", "@eaDir", "Thumbs.db", "DESKTOP.INI", ".DS_Store", "._a.jpg", "$RECYCLE.BIN", "Icon\r", "~$a"]
)
def test_litter(name):
    assert is_litter(name)
    assert not is_litter("a" + name + "a")
