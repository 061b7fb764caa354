"""Pascal VOC XML: counted from 1 or from 0, and nothing in it is obeyed."""

import pytest
from labelled import edges, lay, listed

from plumbline.imaging.layouts.voc import has_voc, read_voc


def one_object(name="helmet", box=(5, 4, 12, 9)):
    left, top, right, bottom = box
    inner = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<object><name>{name}</name><difficult>0</difficult><bndbox>{inner}</bndbox></object>"


def voc(*objects, filename="a.jpg"):
    return (
        f"<annotation><folder>x</folder><filename>{filename}</filename><size><width>40</width><height>30</height>"
        f"<depth>3</depth></size>{''.join(objects)}</annotation>"
    )


def test_pixels_are_counted_from_one_unless_a_box_begins_at_zero(tmp_path):
    files = {"JPEGImages/a.jpg": None, "Annotations/a.xml": voc(one_object(box=(1, 1, 40, 30)))}
    (box,) = listed(lay(tmp_path / "one", files))[2]
    assert edges(box) == (0, 0, 40, 30)
    files["Annotations/a.xml"] = voc(one_object(box=(0, 0, 40, 30)), one_object("head", (5, 4, 12, 9)))
    _, other = listed(lay(tmp_path / "zero", files))[2]
    assert edges(other) == (5, 4, 12, 9)


def test_a_photograph_without_a_file_or_an_object_is_background(tmp_path):
    files = {"a.jpg": None, "a.xml": voc(one_object()), "b.jpg": None, "b.xml": voc(filename="b.jpg"), "c.jpg": None}
    rows, refused, _ = listed(lay(tmp_path, files))
    assert rows == {"a.jpg": "helmet", "b.jpg": "background", "c.jpg": "background"}
    assert refused == {}


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
READ = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB + voc(one_object("&b;")), "declares a document type or an entity"),
        (READ + voc(one_object("&a;")), "declares a document type or an entity"),
        ("<!DOCTYPE annotation>" + voc(one_object()), "declares a document type"),
        (voc(one_object())[:-5], "is no XML"),
    ],
)
def test_xml_that_is_broken_or_declares_anything_is_refused_with_its_photograph(tmp_path, text, said):
    files = {"a.jpg": None, "a.xml": text, "b.jpg": None, "b.xml": voc(one_object(), filename="b.jpg")}
    rows, refused, _ = listed(lay(tmp_path, files, layout="voc"))
    assert rows == {"b.jpg": "helmet"}
    assert said in refused["a.jpg"]


def test_a_document_type_is_found_in_every_encoding(tmp_path):
    params = lay(tmp_path, {"a.jpg": None, "b.jpg": None, "b.xml": voc(one_object(), filename="b.jpg")}, layout="voc")
    text = '<?xml version="1.0" encoding="utf-16"?>' + BOMB + voc(one_object("&b;"))
    (params.root / "a.xml").write_bytes(text.encode("utf-16"))
    assert "declares a document type or an entity" in listed(params)[1]["a.jpg"]


def test_objects_that_are_no_boxes_and_files_of_no_picture_are_named(tmp_path):
    bad = [one_object(""), "<object><name>head</name></object>", one_object(box=("x", 1, 2, 3))]
    files = {"a.jpg": None, "a.xml": voc(one_object(), *bad), "gone.xml": voc(one_object(), filename="gone.jpg")}
    rows, refused, boxes = listed(lay(tmp_path, files))
    assert rows == {"a.jpg": "helmet"}
    assert len(boxes) == 1
    assert "object 2 of a.xml: has no name" in refused["a.jpg#1"]
    assert "no bndbox of four numbers" in refused["a.jpg#2"]
    assert "no bndbox of four numbers" in refused["a.jpg#3"]
    assert "holds boxes of gone.jpg" in refused["gone.xml"]


def test_photographs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    files = {"s1/a.jpg": None, "s1/a.xml": voc(one_object()), "s2/a.jpg": None, "s2/a.xml": voc(one_object("head"))}
    assert listed(lay(tmp_path, files))[0] == {"s1/a.jpg": "helmet", "s2/a.jpg": "head"}
    files = {"x.jpg": None, "labels/y.xml": voc(one_object(), filename="x.jpg")}
    assert listed(lay(tmp_path / "called", files))[0] == {"x.jpg": "helmet"}


def test_two_files_for_one_photograph_are_refused(tmp_path):
    files = {"a.jpg": None, "a.xml": voc(one_object()), "more/a.xml": voc(one_object("head"))}
    rows, refused, _ = listed(lay(tmp_path, {**files, "b.jpg": None}))
    assert rows == {"b.jpg": "background"}
    assert "has two files of boxes, a.xml and more/a.xml" in refused["a.jpg"]


def test_other_xml_is_not_taken_for_boxes(tmp_path):
    params = lay(tmp_path, {"a.jpg": None, "pom.xml": "<project/>", "cvat.xml": "<annotations/>"})
    assert not has_voc(params, ["a.jpg", "pom.xml", "cvat.xml"])
    assert read_voc(params, ["a.jpg", "pom.xml"]).boxes == {"a.jpg": []}
