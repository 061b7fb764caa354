"""Whole photographs with their boxes: which tool's they are, who is background, published splits, nothing lost."""

import json

import pytest
from labelled import BOX, edges, lay, listed

from plumbline.common.errors import UserError
from plumbline.imaging.collection import list_images
from plumbline.imaging.layouts.annotations import Pictures
from plumbline.imaging.layouts.photographs import READERS
from plumbline.imaging.layouts.which import find_layout
from plumbline.imaging.settings import DataParams

NAMES = "helmet\nhead\n"
YAML = "train: images/train\nval: images/val\nnc: 2\nnames: [helmet, head]\n"
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
    "categories": [{"id": 1, "name": "helmet"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 3, 8, 6]}],
}
VOC = (
    "<annotation><filename>a.jpg</filename><size><width>40</width><height>30</height></size><object><name>helmet</name>"
    "<bndbox><xmin>5</xmin><ymin>4</ymin><xmax>12</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
SETS = {
    "darknet": {"obj.names": NAMES, "a.jpg": None, "a.txt": "0 0.2 0.2 0.2 0.2\n"},
    "roboflow darknet": {"_darknet.labels": NAMES, "a.jpg": None, "a.txt": "0 0.2 0.2 0.2 0.2\n"},
    "ultralytics": {"data.yaml": YAML, "images/a.jpg": None, "labels/a.txt": "0 0.2 0.2 0.2 0.2\n"},
    "label studio": {"classes.txt": NAMES, "images/a.jpg": None, "labels/a.txt": "0 0.2 0.2 0.2 0.2\n"},
    "coco": {"result.json": json.dumps(COCO), "images/a.jpg": None},
    "voc": {"JPEGImages/a.jpg": None, "Annotations/a.xml": VOC},
    "voc beside": {"a.jpg": None, "a.xml": VOC},
}


@pytest.mark.parametrize("name", SETS)
def test_every_tool_says_the_same_of_the_same_box(tmp_path, name):
    rows, refused, (box,) = listed(lay(tmp_path, SETS[name]))
    assert list(rows.values()) == ["helmet"]
    assert refused == {}
    assert box.label == "helmet"
    assert box.path.endswith("a.jpg")
    wide, high = (1, 1) if box.size is None else box.size
    assert edges(box) == pytest.approx((0.1 * wide, 0.1 * high, 0.3 * wide, 0.3 * high))


def test_a_tool_may_be_named_where_two_are_there(tmp_path):
    files = {**SETS["darknet"], "result.json": json.dumps(COCO)}
    params = lay(tmp_path, files)
    with pytest.raises(
        UserError, match=r"boxes in \.txt files and boxes in COCO JSON: set data\.layout to yolo or coco"
    ):
        list_images(params)
    assert all(len(listed(params.model_copy(update={"layout": name}))[2]) == 1 for name in ("yolo", "coco"))


def test_what_has_no_boxes_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="holds pictures, but no boxes of them"):
        list_images(lay(tmp_path / "pictures", {"cat/a.jpg": None}))
    with pytest.raises(UserError, match="has 2 photographs, but not one box"):
        list_images(lay(tmp_path / "empty", {"obj.names": NAMES, "a.jpg": None, "b.jpg": None, "b.txt": ""}))
    with pytest.raises(UserError, match="a LabelMe set"):
        list_images(lay(tmp_path / "other", {"a.jpg": None, "a.json": '{"shapes": [], "imagePath": "a.jpg"}'}))
    with pytest.raises(UserError, match="holds no pictures"):
        list_images(lay(tmp_path / "none", {"obj.names": NAMES}))


def test_layouts_without_boxes_and_crops_of_other_tools_are_refused():
    for wrong in ({"task": "detect", "layout": "arrays"}, {"task": "crops", "layout": "coco"}):
        with pytest.raises(ValueError, match="layout"):
            DataParams.model_validate(wrong)
    assert set(READERS) == {"yolo", "coco", "voc"}
    assert find_layout(DataParams(task="detect")) == "yolo"


def test_photographs_without_boxes_are_background_and_that_is_said(tmp_path, capsys):
    files = {"obj.names": NAMES, "a.jpg": None, "a.txt": BOX, "b.jpg": None, "c.jpg": None, "c.txt": "\n"}
    rows, refused, boxes = listed(lay(tmp_path, files))
    assert rows == {"a.jpg": "helmet", "b.jpg": "background", "c.jpg": "background"}
    assert (refused, len(boxes)) == ({}, 1)
    said = capsys.readouterr().err
    assert "2 of 3 photographs have no box and are background (the first: b.jpg)" in said
    assert "no box is of head" in said


def test_a_photograph_without_a_usable_box_is_not_taken_for_background(tmp_path):
    files = {"obj.names": NAMES, "a.jpg": None, "a.txt": BOX + "7 0.5 0.5 0.1 0.1\n", "b.jpg": None, "b.txt": "x\n"}
    rows, refused, _ = listed(lay(tmp_path, files))
    assert rows == {"a.jpg": "helmet"}
    assert "its class 7 is none of the 2 of obj.names" in refused["a.jpg#1"]
    assert "line 1 of b.txt" in refused["b.jpg#0"]
    assert refused["b.jpg"] == "has one box, which can't be used: correct its boxes, or remove the photograph"


def test_boxes_of_no_picture_and_pictures_of_other_formats_are_named(tmp_path):
    files = {"obj.names": NAMES, "a.jpg": None, "a.txt": BOX, "b.txt": BOX, "c.gif": "GIF89a", "c.txt": BOX}
    files |= {"train/labels/d.txt": BOX, "notes.txt": "shot in March\n"}
    _, refused, _ = listed(lay(tmp_path, files))
    assert "there is no picture for it" in refused["b.txt"]
    assert "holds boxes of c.gif, which is not read" in refused["c.txt"]
    assert "is not named as a picture (.gif)" in refused["c.gif"]
    assert set(refused) == {"b.txt", "c.txt", "c.gif", "train/labels/d.txt"}


def test_a_photograph_with_two_files_of_boxes_is_refused(tmp_path):
    files = {"data.yaml": YAML, "images/a.jpg": None, "labels/a.txt": BOX, "images/a.txt": BOX}
    rows, refused, _ = listed(lay(tmp_path, {**files, "images/b.jpg": None, "labels/b.txt": BOX}))
    assert rows == {"images/b.jpg": "helmet"}
    assert "two files of boxes, images/a.txt and labels/a.txt" in refused["images/a.jpg"]


# -------------------------------------------------------------------------------------------------------- the classes


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"obj.names": NAMES, "classes.txt": "head\nhelmet\n"}, "disagree about class 0"),
        ({"obj.names": NAMES, "data.yaml": YAML.replace("[helmet, head]", "[hat, head]")}, "disagree about class 0"),
        ({"data.yaml": YAML, "labels/classes.txt": "head\nhelmet\n"}, "disagree about class"),
        ({"data.yaml": YAML.replace("nc: 2", "nc: 3")}, "says nc: 3 and names 2"),
        ({"data.yaml": YAML.replace("[helmet, head]", "[helmet, helmet]")}, "the class 'helmet' twice"),
        ({"data.yaml": YAML.replace("[helmet, head]", "{a: helmet}")}, "numbers a class 'a'"),
        ({"data.yaml": YAML + "kpt_shape: [17, 3]\n"}, r"set data\.yolo\.keypoints: \[17, 3\]"),
        ({}, "no file names the classes"),
        ({"obj.names": "background\n"}, "as photographs without a box are called here"),
        ({"obj.names": "hat;vest\n"}, "parts several labels"),
    ],
)
def test_classes_that_nobody_can_tell_are_one_sentence(tmp_path, files, said):
    with pytest.raises(UserError, match=said):
        list_images(lay(tmp_path, {"images/a.jpg": None, "labels/a.txt": BOX, **files}))


def test_of_several_lists_the_nearest_above_holds(tmp_path):
    files = {"s1/obj.names": NAMES, "s1/a.jpg": None, "s1/a.txt": BOX, "s2/obj.names": "vest\n", "s2/b.jpg": None}
    rows, _, _ = listed(lay(tmp_path, {**files, "s2/b.txt": BOX}))
    assert rows == {"s1/a.jpg": "helmet", "s2/b.jpg": "vest"}
    with pytest.raises(UserError, match=r"no file above c\.txt names its classes"):
        list_images(lay(tmp_path, {"c.jpg": None, "c.txt": BOX}))


def test_classes_may_be_renamed_numbered_with_gaps_and_lie_beside_their_boxes(tmp_path):
    numbered = YAML.replace("[helmet, head]", "\n  0: hard hat\n  7: head").replace("nc: 2\n", "nc: 8\n")
    files = {"data.yaml": numbered, "images/a.jpg": None, "labels/a.txt": "7 0.5 0.5 0.1 0.1\n0 0.2 0.2 0.1 0.1\n"}
    rows, _, boxes = listed(lay(tmp_path, files, yolo={"classes": {"hard hat": "helmet"}}))
    assert rows == {"images/a.jpg": "head;helmet"}
    assert [box.label for box in boxes] == ["head", "helmet"]


def test_polygons_and_keypoints_become_boxes(tmp_path):
    files = {"obj.names": NAMES, "a.jpg": None, "a.txt": "0 0.1 0.2 0.5 0.2 0.3 0.6\n"}
    (box,) = listed(lay(tmp_path / "polygon", files))[2]
    assert edges(box) == (0.1, 0.2, 0.5, 0.6)
    pose = {**files, "a.txt": "0 0.3 0.4 0.4 0.4 0.2 0.3 2\n"}
    (box,) = listed(lay(tmp_path / "pose", pose, yolo={"keypoints": [1, 3]}))[2]
    assert edges(box) == (0.1, 0.2, 0.5, 0.6)


# ---------------------------------------------------------------------------------------------------- published splits

CLASSES = "names: [helmet, head]\n"


def parts(*pairs):
    """Photographs and their boxes by pairs of folders."""
    files = {}
    for letter, (pictures, labels) in zip("abc", pairs, strict=False):
        files |= {f"{pictures}/{letter}.jpg": None, f"{labels}/{letter}.txt": BOX}
    return files


PARTS = {
    "folders": {**parts(*((f"images/{one}", f"labels/{one}") for one in ("train", "val", "test"))), "data.yaml": YAML},
    "roboflow": {
        **parts(*((f"{one}/images", f"{one}/labels") for one in ("train", "valid", "test"))),
        "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n" + CLASSES,
    },
    "other names": {
        **parts(*((f"images/{one}", f"labels/{one}") for one in ("p1", "p2", "p3"))),
        "data.yaml": "path: /home/me/set\ntrain: images/p1\nval: [images/p2]\ntest: images/p3\n" + CLASSES,
    },
    "lists": {
        **parts(("images", "labels"), ("images", "labels"), ("images", "labels")),
        "train.txt": "./images/a.jpg\n",
        "val.txt": "/x/images/b.jpg\n",
        "test.txt": "images/c.jpg\n",
        "data.yaml": "train: train.txt\nval: val.txt\ntest: test.txt\n" + CLASSES,
    },
    "darknet": {
        **parts(("p", "p"), ("p", "p")),
        "obj.names": NAMES,
        "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\n",
        "train.txt": "data/p/a.jpg\n",
        "valid.txt": "data/p/b.jpg\n",
    },
}


@pytest.mark.parametrize("name", PARTS)
def test_a_published_split_is_refused_kept_or_merged(tmp_path, name):
    params = lay(tmp_path, PARTS[name])
    with pytest.raises(UserError, match=r"is split already .*: set data\.published_split"):
        list_images(params)
    merged = list_images(params.model_copy(update={"published_split": "merge"}))
    assert "published_split" not in merged.images
    assert merged.refused == []
    kept = list_images(params.model_copy(update={"published_split": "keep"})).images
    sides = {path.rpartition("/")[2][0]: side for path, side in zip(kept["path"], kept["published_split"], strict=True)}
    wanted = {"a": "train", "b": "validation", "c": "test"}
    assert sides == {one: wanted[one] for one in sides}
    assert len(sides) == (2 if name == "darknet" else 3)


def test_one_part_or_the_same_photographs_for_each_is_no_split(tmp_path):
    for number, settings in enumerate(("train: images\nval: images\n", "train: images/train\n")):
        files = {**parts(("images/train", "labels/train")), "data.yaml": settings + CLASSES}
        assert len(list_images(lay(tmp_path / str(number), files)).images) == 1


def test_a_photograph_on_two_sides_or_on_none_can_not_be_kept(tmp_path):
    both = {**PARTS["lists"], "test.txt": "images/c.jpg\nimages/a.jpg\n"}
    with pytest.raises(UserError, match=r"a\.jpg is in test and in train of the published split"):
        list_images(lay(tmp_path / "both", both, published_split="keep"))
    stranger = {**PARTS["folders"], "images/more/d.jpg": None, "labels/more/d.txt": BOX}
    with pytest.raises(UserError, match=r"d\.jpg is in no part of the published split"):
        list_images(lay(tmp_path / "none", stranger, published_split="keep"))
    assert len(list_images(lay(tmp_path / "merged", stranger, published_split="merge")).images) == 4


def test_a_picture_is_found_by_what_other_disks_call_it():
    index = Pictures(["a/x.jpg", "b/x.jpg", "b/y.jpg", "train2017/z.jpg", "val2017/z.jpg"])
    assert index.find("C:\\set\\b\\x.jpg") == "b/x.jpg"
    assert index.find("/somewhere/y.jpg") == "b/y.jpg"
    assert index.find("x.jpg") is None
    assert index.find("z.jpg", ["instances", "val2017", "json"]) == "val2017/z.jpg"
    assert index.find("w.jpg") is None


def test_metadata_comes_along_and_its_labels_do_not(tmp_path):
    files = {"obj.names": NAMES, "a.jpg": None, "a.txt": BOX, "b.jpg": None}
    files["metadata.csv"] = "path,label,video\na.jpg,head,v1\nb.jpg,helmet,v1\n"
    images = list_images(lay(tmp_path, files)).images
    assert images["label"].tolist() == ["helmet", "background"]
    assert images["video"].tolist() == ["v1", "v1"]
