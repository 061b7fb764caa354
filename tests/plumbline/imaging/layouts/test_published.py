"""Folders called train and test are no classes."""

import pytest
from PIL import Image

from plumbline.common.errors import UserError
from plumbline.imaging.collection import list_images
from plumbline.imaging.layouts.published import find_split, find_wrapped, photograph, side_of
from plumbline.imaging.settings import DataParams


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (9, 9, 9)).save(path)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *[(name, "train") for name in ("train", "Training", "TRAIN", "train_set", "seg_train", "TrainSet")],
        *[(name, "train") for name in ("train2017", "Train Images", "trainset", "images_train", "trainval", "train_1")],
        *[(name, "validation") for name in ("val", "Valid", "validation", "DEV", "val_set", "dev-set", "val2014")],
        *[(name, "test") for name in ("test", "Testing", "test_set", "seg_test", "TestSet", "test images", "eval")],
        *[(name, "train") for name in ("TRAIN_SET", "train_images", "Trainset", "train-jpg", "imagesTr", "x_train")],
        *[
            (name, "test")
            for name in ("testing_data", "holdout", "hold-out", "HoldOut", "evalset", "imagesTs", "tests")
        ],
        *[(name, "train") for name in ("traning", "Trainning set", "xtrain", "train_hq", "train_augmented", "labeled")],
        *[
            (name, "train")
            for name in ("bounding_box_train", "trainphotos", "mini_train", "Entra\u00eenement", "训练集")
        ],
        *[(name, "validation") for name in ("vaildation", "validaton", "vld", "minival", "validação", "验证集")],
        *[
            (name, "test")
            for name in ("testdev", "evaluate", "evalution", "Testdaten", "prueba", "测试集", "テストデータ")
        ],
        *[(name, None) for name in ("trailing", "raining", "texting", "evolution", "猫", "évolution", "boxing")],
        *[(name, "none") for name in ("unlabeled", "unlabelled", "seg_pred", "extra", "train_test")],
        *[(name, None) for name in ("cat", "train_station", "contest", "tested", "device", "trainer", "1")],
        *[(name, None) for name in ("with_helmet", "data", "images", "value", "retrained", "test_results", "")],
    ],
)
def test_which_side_a_folder_is(name, side):
    assert side_of(name) == side


@pytest.mark.parametrize(
    ("tops", "is_split"),
    [
        ({"Training", "Testing"}, True),
        ({"train"}, True),
        ({"train", "test", "cat"}, True),
        ({"train_set", "unlabeled"}, True),
        ({"labeled", "unlabeled"}, True),
        ({"train", "vaildation", "test"}, True),
        ({"cifar_train", "cifar_test"}, True),
        ({"asl_alphabet_train", "asl_alphabet_val"}, True),
        ({"train_station", "test_tube"}, False),
        ({"training_shoes", "running_shoes"}, False),
        ({"cat_train", "cat_test", "dog_train", "dog_test"}, False),
        ({"train", "bus", "car"}, False),
        ({"test", "control"}, False),
        ({"extra"}, False),
        ({"labeled"}, False),
        (set(), False),
    ],
)
def test_when_folders_are_a_split(tops, is_split):
    assert bool(find_split(tops)) == is_split


@pytest.fixture
def published(tmp_path):
    for side in ("Training", "Testing"):
        for label in ("cat", "dog"):
            draw(tmp_path / side / label / f"{side}{label}.png")
    return DataParams(root=tmp_path)


@pytest.mark.parametrize("metadata", [None, "path,photo\nTraining/cat/Trainingcat.png,p1\n"])
def test_a_published_split_is_refused_with_the_way_out(published, metadata):
    if metadata:
        (published.root / "metadata.csv").write_text(metadata)
    with pytest.raises(UserError, match=r"Testing, Training.*no classes.*data\.published_split to merge.*to keep"):
        list_images(published)


def test_merged_its_class_folders_are_the_classes(published):
    images = list_images(published.model_copy(update={"published_split": "merge"})).images
    assert dict(zip(images["path"], images["label"], strict=True)) == {
        "Testing/cat/Testingcat.png": "cat",
        "Testing/dog/Testingdog.png": "dog",
        "Training/cat/Trainingcat.png": "cat",
        "Training/dog/Trainingdog.png": "dog",
    }
    assert "published_split" not in images


def test_kept_every_picture_says_its_side(published):
    draw(published.root / "unlabeled" / "u.png")
    draw(published.root / "extra" / "cat" / "e.png")
    found = list_images(published.model_copy(update={"published_split": "keep"}))
    sides = dict(zip(found.images["path"], found.images["published_split"], strict=True))
    assert sides["Testing/cat/Testingcat.png"] == "test"
    assert sides["Training/dog/Trainingdog.png"] == "train"
    assert sides["extra/cat/e.png"] == "train"
    assert [(one.path, one.kind) for one in found.refused] == [("unlabeled/u.png", "label")]


def test_a_folder_around_the_split_is_named(tmp_path):
    for side in ("train", "test"):
        draw(tmp_path / "archive" / side / "cat" / "0.png")
    with pytest.raises(UserError, match=r"one folder, archive/, with a split in it \(test, train\): move"):
        list_images(DataParams(root=tmp_path))


def test_sides_that_name_their_set_as_well(tmp_path):
    for side in ("signs_train", "signs_test"):
        draw(tmp_path / side / side / "stop" / "0.png")
        draw(tmp_path / side / side / "yield" / "0.png")
    with pytest.raises(UserError, match="split already"):
        list_images(DataParams(root=tmp_path))
    found = list_images(DataParams(root=tmp_path, published_split="keep")).images.set_index("path")
    assert sorted(found["label"]) == ["stop", "stop", "yield", "yield"]
    assert found.loc["signs_test/signs_test/stop/0.png", "published_split"] == "test"


def test_a_side_that_lies_in_itself_as_archives_have_it(tmp_path):
    for side in ("seg_train", "seg_test"):
        draw(tmp_path / side / side / "forest" / "0.png")
        draw(tmp_path / side / side / "sea" / "deep" / "0.png")
    draw(tmp_path / "seg_pred" / "seg_pred" / "0.png")
    found = list_images(DataParams(root=tmp_path, published_split="merge"))
    assert sorted(found.images["label"]) == ["forest", "forest", "sea", "sea"]
    assert [one.path for one in found.refused] == ["seg_pred/seg_pred/0.png"]


def test_a_split_inside_every_class_is_one_too(tmp_path):
    for label in ("cat", "dog"):
        for side in ("train", "test"):
            draw(tmp_path / label / side / "0.png")
    params = DataParams(root=tmp_path)
    with pytest.raises(UserError, match=r"class folders .* are split already \(test, train in each\)"):
        list_images(params)
    kept = list_images(params.model_copy(update={"published_split": "keep"})).images
    assert kept["label"].tolist() == ["cat", "cat", "dog", "dog"]
    assert kept["published_split"].tolist() == ["test", "train", "test", "train"]
    draw(tmp_path / "cat" / "1.png")
    assert len(list_images(params).images) == 5


def test_flat_sides_take_their_labels_from_the_metadata(tmp_path):
    for side in ("train", "test"):
        for number in range(2):
            draw(tmp_path / side / f"{side}{number}.png")
    (tmp_path / "metadata.csv").write_text("path,label\ntrain/train0.png,cat\ntest/test1.png,dog\n")
    found = list_images(DataParams(root=tmp_path, published_split="merge"))
    assert found.images["label"].tolist() == ["dog", "cat"]
    assert {one.kind for one in found.refused} == {"label"}


def test_a_folder_around_folders_around_the_split_is_named(tmp_path):
    for side in ("train", "test"):
        draw(tmp_path / "a" / "b" / side / "cat" / "0.png")
    with pytest.raises(UserError, match=r"one folder, a/b/, with a split in it \(test, train\): move what a/b/ holds"):
        list_images(DataParams(root=tmp_path))


def test_a_folder_that_only_says_what_is_in_it_is_no_class(tmp_path):
    for side in ("train", "test"):
        for label in ("cat", "dog"):
            draw(tmp_path / side / "images" / label / "0.png")
    found = list_images(DataParams(root=tmp_path, published_split="merge"))
    assert set(found.images["label"]) == {"cat", "dog"}


@pytest.mark.parametrize("how", ["merge", "keep"])
def test_a_folder_beside_the_split_is_one_of_its_classes_or_refused(published, how):
    params = published.model_copy(update={"published_split": how})
    draw(published.root / "cat" / "more.png")
    assert set(list_images(params).images["label"]) == {"cat", "dog"}
    draw(published.root / "query" / "0.png")
    with pytest.raises(UserError, match=r"holds query/ beside the published split \(Testing, Training\)"):
        list_images(params)


def test_pictures_beside_folders_in_the_only_class(tmp_path):
    for name in ("cat/a.png", "cat/deep/b.png", "cat/deep/er/c.png"):
        draw(tmp_path / name)
    assert set(list_images(DataParams(root=tmp_path)).images["label"]) == {"cat"}


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["photos/cat/a.jpg", "photos/dog/b.jpg"], ("photos/", ["cat", "dog"])),
        (["a/b/cat/a.jpg", "a/b/dog/x/b.jpg"], ("a/b/", ["cat", "dog"])),
        (["cat/a.jpg", "cat/monday/b.jpg", "cat/tuesday/b.jpg"], ("", [])),
        (["cat/gate/a.jpg", "cat/gate/b.jpg"], ("", [])),
        (["cat/a.jpg", "dog/b.jpg"], ("", [])),
        (["a.jpg", "photos/cat/a.jpg", "photos/dog/a.jpg"], ("", [])),
        ([], ("", [])),
    ],
)
def test_a_folder_around_class_folders(paths, found):
    assert find_wrapped(paths) == found


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("train/cat/a_jpg.rf.0123456789abcdef0123456789abcdef.jpg", "cat/a_jpg"),
        ("valid/cat/a_jpg.rf.AbCdEfGhIjKlMnOpQrSt.jpg", "cat/a_jpg"),
        ("cat/a_jpg.rf.0123456789abcdef_jpg.rf.fedcba9876543210.jpg", "cat/a_jpg"),
        ("cat/a.rf.jpg", "cat/a.rf"),
        ("a.rf.0123456789abcdef.b.jpg", "a.rf.0123456789abcdef.b"),
    ],
)
def test_what_photograph_a_picture_is_of(path, name):
    assert photograph(path) == name


def test_folds_are_no_classes(tmp_path):
    for fold in ("fold1", "fold_2", "Fold 3"):
        for label in ("cat", "dog"):
            draw(tmp_path / fold / label / "0.png")
    with pytest.raises(UserError, match=r"are folds \(Fold 3, fold1, fold_2\), and these are no classes"):
        list_images(DataParams(root=tmp_path))


@pytest.mark.parametrize("how", ["refuse", "merge"])
def test_class_and_side_in_one_name_are_no_classes(tmp_path, how):
    for name in ("cat_train", "cat_test", "dog_train", "dog_test"):
        draw(tmp_path / name / "0.png")
    with pytest.raises(UserError, match=r"name class and side of a split in one .*train/cat, train/dog"):
        list_images(DataParams(root=tmp_path, published_split=how))


def test_classes_that_sound_like_sides_are_left_alone(tmp_path):
    for name in ("training_shoes", "running_shoes", "test_tube", "part 1", "part 2"):
        draw(tmp_path / name / "0.png")
    assert len(set(list_images(DataParams(root=tmp_path)).images["label"])) == 5


def test_the_command_that_is_offered_can_be_typed_as_it_stands(tmp_path):
    for side in ("train (1)", "test (1)"):
        draw(tmp_path / "my data" / side / "cat" / "0.png")
    with pytest.raises(UserError) as error:
        list_images(DataParams(root=tmp_path / "my data"))
    assert f"`plumbline audit '{tmp_path}/my data/test (1)' '{tmp_path}/my data/train (1)'`" in str(error.value)
    assert f"`plumbline init '{tmp_path}/my data' --published-split merge`" in str(error.value)


SITES = {
    "sites": ("site_a", "site_b"),
    "dates": ("2024-01", "2024-02"),
    "numbered": ("gate1", "gate2"),
}


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
def test_sites_that_hold_the_classes_are_no_classes(tmp_path, sites):
    for site in sites:
        for label in ("cat", "dog"):
            draw(tmp_path / site / label / "deeper" / "0.png")
    params = DataParams(root=tmp_path)
    with pytest.raises(
        UserError, match=r"hold the same folders each \(cat, dog\), as sites do and classes don't"
    ) as error:
        list_images(params)
    assert "a column `site` of metadata.csv" in str(error.value)
    assert "\n" not in str(error.value)
    asked = list_images(params.model_copy(update={"layout": "folders"}))
    assert set(asked.images["label"]) == set(sites), "where the settings say that the folders are the classes"


@pytest.mark.parametrize("label", ["no_helmet", "without helmet", "NoHelmet", "not-worn"])
def test_towns_that_hold_what_is_there_and_what_is_not_are_no_classes(tmp_path, label):
    for name in (f"berlin/{label}/0.png", "berlin/helmet/0.png", f"paris/{label}/0.png", "paris/helmet/0.png"):
        draw(tmp_path / name)
    with pytest.raises(UserError, match=r"\(berlin, paris\) hold the same folders each"):
        list_images(DataParams(root=tmp_path))


def test_sites_inside_the_sides_of_a_split_are_no_classes(tmp_path):
    for side in ("train", "test"):
        for place in ("site_a/cat", "site_a/dog", "site_b/cat", "site_b/dog"):
            draw(tmp_path / side / place / "0.png")
    with pytest.raises(UserError, match=r"\(site_a, site_b\) hold the same folders each \(cat, dog\)"):
        list_images(DataParams(root=tmp_path, published_split="merge"))


@pytest.mark.parametrize(
    "names",
    [
        ("cat/site_a/0.png", "cat/site_b/0.png", "dog/site_a/0.png", "dog/site_b/0.png"),
        ("cat/gate 1/0.png", "cat/gate 2/0.png", "dog/gate 1/0.png", "dog/gate 2/0.png"),
        ("cat/2024-01-01/0.png", "cat/2024-01-02/0.png", "dog/2024-01-01/0.png", "dog/2024-01-02/0.png"),
        ("cat/1/0.png", "cat/2/0.png", "dog/1/0.png", "dog/2/0.png"),
        ("cat/indoor/0.png", "cat/outdoor/0.png", "dog/indoor/0.png", "dog/outdoor/0.png"),
        ("no_helmet/rom/0.png", "no_helmet/ulm/0.png", "helmet/rom/0.png", "helmet/ulm/0.png"),
        ("notes/a/0.png", "notes/nobody/0.png", "letters/a/0.png", "letters/nobody/0.png"),
        ("site_a/cat/0.png", "site_a/dog/0.png", "site_b/cat/0.png"),
        ("site_a/cat/0.png", "site_a/dog/0.png", "site_b/cat/0.png", "site_b/dog/0.png", "site_b/0.png"),
        ("cat/images/0.png", "dog/images/0.png"),
    ],
)
def test_folders_below_the_classes_that_may_be_sites_or_nothing_are_left_alone(tmp_path, names):
    for name in names:
        draw(tmp_path / name)
    assert set(list_images(DataParams(root=tmp_path)).images["label"]) == {name.split("/")[0] for name in names}


@pytest.mark.parametrize("name", ["images", "JPEGImages", "rgb", "inputs", "leftImg8bit", "photo"])
def test_a_folder_that_only_holds_pictures_is_one_by_any_of_its_names(tmp_path, name):
    for side in ("train", "test"):
        for label in ("cat", "dog"):
            draw(tmp_path / side / name / label / "0.png")
    found = list_images(DataParams(root=tmp_path, published_split="merge"))
    assert set(found.images["label"]) == {"cat", "dog"}
