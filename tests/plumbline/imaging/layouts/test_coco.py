"""COCO JSON: every annotation is a box or is named, whatever a tool left out."""

import json

import pytest
from labelled import edges, lay, listed

from plumbline.common.errors import UserError
from plumbline.imaging.collection import list_images
from plumbline.imaging.layouts.coco import coco_files, read_coco


def coco(images=("a.jpg",), annotations=(), categories=((1, "helmet"), (3, "head")), size=(40, 30)):
    width, height = size
    return json.dumps(
        {
            "info": {},
            "images": [
                {"id": n, "file_name": name, "width": width, "height": height} for n, name in enumerate(images, 1)
            ],
            "categories": [{"id": n, "name": name, "supercategory": "ppe"} for n, name in categories],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [4, 3, 8, 6], **one} for one in annotations],
        }
    )


def test_boxes_polygons_and_empty_photographs(tmp_path):
    annotations = [
        {},
        {"category_id": 3, "bbox": None, "segmentation": [[10, 10, 20, 10, 20, 25], [5, 12, 8, 12, 8, 14]]},
    ]
    files = {"labels.json": coco(("a.jpg", "b.jpg"), annotations), "images/a.jpg": None, "images/b.jpg": None}
    rows, refused, boxes = listed(lay(tmp_path, files))
    assert rows == {"images/a.jpg": "head;helmet", "images/b.jpg": "background"}
    assert refused == {}
    assert [edges(box) for box in boxes] == [(4, 3, 12, 9), (5, 10, 20, 25)]
    assert boxes[0].size == (40, 30)


@pytest.mark.parametrize(
    ("annotation", "named", "said"),
    [
        ({"category_id": 2}, "a.jpg#1", "its category 2 is none of the file's"),
        ({"bbox": [1, 2, 3]}, "a.jpg#1", "no `bbox` of four numbers"),
        ({"bbox": ["1", 2, 3, 4]}, "a.jpg#1", "no `bbox` of four numbers"),
        ({"bbox": None, "segmentation": {"counts": "abc", "size": [3, 4]}}, "a.jpg#1", "no polygon"),
        ({"iscrowd": 1}, "a.jpg#1", "a crowd"),
        ({"image_id": 9}, "c.json#1", "is of image 9, which the file does not list"),
    ],
)
def test_an_annotation_that_is_no_box_is_named_and_the_others_go_on(tmp_path, annotation, named, said):
    rows, refused, boxes = listed(lay(tmp_path, {"c.json": coco(annotations=[{}, annotation]), "a.jpg": None}))
    assert rows == {"a.jpg": "helmet"}
    assert len(boxes) == 1
    assert said in refused[named]


def test_pictures_that_the_file_does_not_know_and_the_reverse_are_named(tmp_path):
    files = {"c.json": coco(("a.jpg", "gone.jpg"), [{}, {"image_id": 2}]), "a.jpg": None, "new.jpg": None}
    rows, refused, _ = listed(lay(tmp_path, files))
    assert rows == {"a.jpg": "helmet"}
    assert "is listed in c.json, and there is no such picture" in refused["gone.jpg"]
    assert "is not listed under `images` of c.json" in refused["new.jpg"]


def test_a_file_for_each_part_says_who_is_train_and_test(tmp_path):
    files = {
        "annotations/instances_train2017.json": coco(annotations=[{}]),
        "annotations/instances_val2017.json": coco(annotations=[{"category_id": 3}]),
        "train2017/a.jpg": None,
        "val2017/a.jpg": None,
    }
    params = lay(tmp_path, files, published_split="keep")
    images = list_images(params).images
    assert dict(zip(images["path"], images["label"], strict=True)) == {
        "train2017/a.jpg": "helmet",
        "val2017/a.jpg": "head",
    }
    assert images["published_split"].tolist() == ["train", "validation"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (coco()[:-1], "is no JSON"),
        (coco().replace('"annotations"', '"anotations"'), "no list of objects under `annotations`"),
        (coco(categories=((1, "helmet"), (1, "head"))), "calls category 1 both 'helmet' and 'head'"),
        (coco(images=("a.jpg", "a.jpg")), r"lists a\.jpg twice"),
        ('{"images": [{"id": 1}], "categories": [], "annotations": []}', "an image without `file_name`"),
        (coco(categories=((1, ""),)), "a category without `id` or `name`"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        list_images(lay(tmp_path, {"c.json": text, "a.jpg": None}))


def test_a_photograph_in_two_files_is_refused(tmp_path):
    files = {"instances.json": coco(annotations=[{}]), "person_keypoints.json": coco(annotations=[{}]), "a.jpg": None}
    with pytest.raises(UserError, match=r"lists a\.jpg in instances\.json as well"):
        list_images(lay(tmp_path, files))


def test_other_json_is_not_taken_for_boxes(tmp_path):
    params = lay(tmp_path, {"c.json": coco(annotations=[{}]), "notes.json": '{"images": 3}', "a.jpg": None})
    files = ["a.jpg", "c.json", "notes.json"]
    assert coco_files(params, files) == ["c.json"]
    assert list(read_coco(params, files).boxes) == ["a.jpg"]
