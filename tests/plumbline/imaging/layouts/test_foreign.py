"""Exports of other tools are called by their name."""

import json

import pytest
from PIL import Image

from plumbline.common.errors import UserError
from plumbline.imaging.collection import list_images
from plumbline.imaging.layouts.foreign import refuse_foreign
from plumbline.imaging.settings import DataParams

BOX = "0 0.5 0.5 0.2 0.2\n"
COCO = json.dumps({"info": {}, "images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []})
VOC = "<annotation><filename>a.jpg</filename><object><name>helmet</name></object></annotation>"
DATA_YAML = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['head', 'helmet']\n"
COCO_LATE = json.dumps(
    {"annotations": [{"id": n, "bbox": [0, 0, 1, 1]} for n in range(9000)], "images": [{"file_name": "a.jpg"}]}
)
LABEL_ME = json.dumps({"version": "5", "shapes": [], "imagePath": "a.jpg"})
LABEL_STUDIO = json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": []}])
CREATE_ML = json.dumps([{"image": "a.jpg", "annotations": [{"label": "x", "coordinates": {}}]}])

SETS = {
    "ultralytics": ({"data.yaml": DATA_YAML, "train/images/a.jpg": None, "train/labels/a.txt": BOX}, "Ultralytics"),
    "ultralytics without yaml": ({"images/train/a.jpg": None, "labels/train/a.txt": BOX}, "Ultralytics"),
    "other yaml": ({"ppe.yml": "path: .\nnames:\n  0: head\n", "images/a.jpg": None}, "Ultralytics"),
    "roboflow yolo": (
        {"data.yaml": DATA_YAML + "roboflow:\n  license: CC\n", "train/images/a.jpg": None, "train/labels/a.txt": BOX},
        "a Roboflow export for YOLO",
    ),
    "roboflow darknet": (
        {"train/_darknet.labels": "head\n", "train/a.jpg": None, "train/a.txt": BOX},
        "set data.layout: yolo and data.yolo.names: _darknet.labels",
    ),
    "roboflow coco": ({"train/_annotations.coco.json": COCO, "train/a.jpg": None}, "a Roboflow export in COCO JSON"),
    "roboflow classes": ({"train/_classes.csv": "filename,cat\na.jpg,1\n", "train/a.jpg": None}, "several labels"),
    "coco": ({"annotations/instances_train2017.json": COCO, "train2017/a.jpg": None}, "a COCO JSON set"),
    "coco beside": ({"result.json": COCO, "images/a.jpg": None}, "a COCO JSON set"),
    "voc": ({"JPEGImages/a.jpg": None, "Annotations/a.xml": VOC}, "a Pascal VOC set"),
    "voc beside": ({"train/a.jpg": None, "train/a.xml": VOC, "valid/b.jpg": None, "valid/b.xml": VOC}, "Pascal VOC"),
    "label studio yolo": (
        {"classes.txt": "head\n", "notes.json": "{}", "images/a.jpg": None, "labels/a.txt": BOX},
        "a YOLO export of Label Studio",
    ),
    "label studio": ({"project-1.json": LABEL_STUDIO, "a.jpg": None}, "plumbline intake"),
    "labelme": ({"pics/a.jpg": None, "pics/a.json": LABEL_ME}, "a LabelMe set"),
    "createml": ({"train/a.jpg": None, "train/_annotations.createml.json": CREATE_ML}, "a CreateML export"),
    "cvat": ({"annotations.xml": "<annotations><version>1.1</version></annotations>", "images/a.jpg": None}, "CVAT"),
    "coco, annotations first": ({"boxes.json": COCO_LATE, "images/a.jpg": None}, "a COCO JSON set"),
    "yaml in one line": ({"d.yaml": "{'names': [head], 'nc': 1}\n", "a/a.jpg": None}, "Ultralytics"),
    "img and labels": ({"img/a.jpg": None, "labels/a.txt": BOX}, "Ultralytics"),
    "label studio, deeper": ({"exports/today/p.json": LABEL_STUDIO, "a.jpg": None}, "plumbline intake"),
    "label studio table": ({"p.csv": "annotation_id,annotator,choice,image\n", "a/a.jpg": None}, "export it as JSON"),
    "label studio task": ({"17.json": json.dumps(json.loads(LABEL_STUDIO)[0]), "a/a.jpg": None}, "all of them as one"),
    "via table": (
        {"via.csv": "filename,region_count,region_shape_attributes\n", "a/a.jpg": None},
        "VGG Image Annotator",
    ),
    "boxes in a table": (
        {"train_labels.csv": "filename,width,class,xmin,ymin,xmax,ymax\n", "a/a.jpg": None},
        "boxes in a",
    ),
    "supervisely": ({"ds/ann/a.json": '{"objects": [{"classTitle": "x"}]}', "ds/img/a.jpg": None}, "Supervisely"),
    "labelbox": ({"export.ndjson": '{"data_row": {"id": 1}}', "a/a.jpg": None}, "Labelbox"),
    "datumaro": ({"annotations/default.json": '{"dm_format_version": "1.0"}', "images/a.jpg": None}, "Datumaro"),
    "masks": ({"images/a.jpg": None, "masks/a.png": None}, "their masks (images/ and masks/)"),
    "cityscapes": ({"leftImg8bit/u/a_leftImg8bit.png": None, "gtFine/u/a_gtFine_color.png": None}, "their masks"),
    "voc masks": ({"JPEGImages/a.jpg": None, "SegmentationClass/a.png": None}, "their masks"),
    "boxes and classes": ({"classes.txt": "head\n", "p/a.jpg": None, "p/a.txt": BOX}, "data.yolo.names: classes.txt"),
    "polygons alone": ({"p/a.jpg": None, "p/a.txt": "0 0.1 0.1 0.3 0.1 0.3 0.5\n"}, "put obj.names beside them"),
    "boxes alone": ({"p/a.jpg": None, "p/a.txt": BOX}, "put obj.names beside them"),
    "arrays": ({"x_train.npy": "x", "y_train.npy": "x"}, "call them images.npy and labels.csv"),
    "shards": ({"x.tfrecord-00000-of-00002": "x"}, "TFRecord"),
    "archive": ({"train.zip": "PK"}, "unpack them"),
    "parquet": ({"data/train-00000-of-00001.parquet": "PAR1"}, "Parquet"),
    "pickles": ({"cifar/data_batch_1": "x"}, "pickles, which are never opened"),
    "mnist": ({"train-images-idx3-ubyte.gz": "x"}, "MNIST"),
}


def lay(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.new("RGB", (40, 30)).save(path)
        else:
            path.write_text(text)
    return DataParams(root=root)


@pytest.mark.parametrize("name", SETS)
def test_an_export_is_called_by_its_name(tmp_path, name):
    files, said = SETS[name]
    with pytest.raises(UserError) as error:
        list_images(lay(tmp_path, files))
    assert said in str(error.value)
    assert "is not read yet" in str(error.value)


def test_a_roboflow_darknet_export_is_read_by_the_setting_that_is_named(tmp_path):
    params = lay(tmp_path, SETS["roboflow darknet"][0])
    yolo = params.yolo.model_copy(update={"names": "_darknet.labels"})
    images = list_images(params.model_copy(update={"layout": "yolo", "yolo": yolo})).images
    assert images["label"].tolist() == ["head"]


def test_class_folders_with_notes_beside_them_are_class_folders(tmp_path):
    files = {"cat/a.jpg": None, "dog/b.jpg": None, "README.dataset.txt": "x", "info.json": '{"images": 2}'}
    assert list_images(lay(tmp_path, {**files, "conda.yaml": "name: x\n"})).images["label"].tolist() == ["cat", "dog"]


def test_who_says_folders_gets_folders(tmp_path):
    params = lay(tmp_path, {"cat/a.jpg": None, "dog/b.jpg": None, "result.json": COCO})
    with pytest.raises(UserError):
        list_images(params)
    assert len(list_images(params.model_copy(update={"layout": "folders"})).images) == 2


def test_plain_pictures_are_no_export(tmp_path):
    files = {"cat/a.jpg": None, "notes.json": "{}", "cat/a.txt": "a note"}
    assert refuse_foreign(lay(tmp_path, files), list(files)) is None


def test_a_file_that_names_an_export_deep_below_is_somebody_elses(tmp_path):
    files = {"cat/a.jpg": None, "cat/x/y/z/data.yaml": DATA_YAML}
    assert refuse_foreign(lay(tmp_path, files), list(files)) is None
    with pytest.raises(UserError, match=r"an Ultralytics YOLO set \(cat/data\.yaml\)"):
        refuse_foreign(lay(tmp_path, {"cat/data.yaml": DATA_YAML}), ["cat/data.yaml"])
