import json
import re
from datetime import date, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plumbline.common.errors import UserError
from plumbline.imaging.metadata import ISO_TIME
from plumbline.imaging.validation import (
    ValidateParams,
    count_classes,
    find_problem,
    find_warnings,
    manifest_expectations,
    tied_by_columns,
    validate,
    what_groups_are,
)
from stages import validate as stage

GROUPING = ("photo", "video")


def manifest_of(labels, **columns) -> pd.DataFrame:
    count = len(labels)
    return pd.DataFrame(
        {
            "path": [f"{label}/{number}.jpg" for number, label in enumerate(labels)],
            "id": [f"{number:064x}" for number in range(count)],
            "pixels_sha256": [f"{number:064x}" for number in range(count)],
            "label": labels,
            "width": np.full(count, 200, np.int32),
            "height": np.full(count, 200, np.int32),
            "bytes": np.full(count, 9000, np.int64),
            "format": "JPEG",
            "phash": np.arange(count, dtype=np.uint64),
            "brightness": 0.5,
            "contrast": 0.2,
            "sharpness": 100.0,
            "colourfulness": 30.0,
            **columns,
        }
    )


def quarantine_of(*rows) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["path", "reason", "kind", "label"], dtype=object)


def sentence(manifest, quarantine=None, **params) -> str | None:
    quarantine = quarantine_of() if quarantine is None else quarantine
    settled = ValidateParams(**{"min_groups": 2, **params})
    return find_problem(manifest, quarantine, count_classes(manifest, quarantine, GROUPING, settled), settled)


GOOD = ["cat", "dog"] * 10


def test_good_data_has_no_problem():
    assert sentence(manifest_of(GOOD)) is None


def test_a_metadata_row_without_a_file_stops_the_run_by_name():
    said = sentence(manifest_of(GOOD), quarantine_of(("cat/gone.jpg", "no such file", "missing", "")))
    assert said == (
        "1 metadata row without a file (first: cat/gone.jpg): correct the path, bring the file back or remove the row."
    )


def test_too_much_quarantine_stops_the_run_and_exactly_the_share_does_not():
    one = quarantine_of(("cat/bad.jpg", "is empty (0 bytes)", "unreadable", "cat"))
    assert sentence(manifest_of(GOOD[:19]), one, max_quarantined=0.05) is None
    said = sentence(manifest_of(GOOD[:18]), one, max_quarantined=0.05)
    assert "1 of 19 pictures are quarantined (5.3%, at most 5.0%" in said
    assert "cat/bad.jpg is empty" in said


def test_rows_without_a_file_and_empty_folders_are_no_quarantined_pictures():
    rows = [(f"cat/{number}.jpg", "no such file", "missing", "") for number in range(9)]
    assert "metadata row" in sentence(manifest_of(GOOD), quarantine_of(*rows), max_quarantined=0.0)


@pytest.mark.parametrize(
    ("quarantine", "params"),
    [
        (quarantine_of(("horse/", "holds no pictures", "empty", "horse")), {}),
        (quarantine_of(("horse/1.jpg", "is empty", "unreadable", "horse")), {}),
        (None, {"classes": ["cat", "dog", "horse"]}),
    ],
)
def test_a_class_without_a_usable_picture_stops_the_run_by_name(quarantine, params):
    assert sentence(manifest_of(GOOD), quarantine, **params).startswith("class horse has no usable picture")


def test_one_class_is_not_enough():
    assert sentence(manifest_of(["cat"] * 20)).startswith("the data has only the class cat")


def test_the_folders_in_the_only_class_may_be_the_classes():
    manifest = manifest_of(["photos"] * 20)
    manifest["path"] = [f"photos/{('cat', 'dog')[number % 2]}/{number}.jpg" for number in range(20)]
    assert sentence(manifest).startswith("data/ holds one folder, photos/, and its pictures lie in folders of it (cat,")
    manifest["label"] = "vest"  # by metadata.csv
    assert sentence(manifest).startswith("the data has only the class vest")


def test_too_few_groups_stop_the_run_though_there_are_pictures_enough():
    photos = ["same" if label == "cat" else f"p{number}" for number, label in enumerate(GOOD)]
    said = sentence(manifest_of(GOOD, photo=photos), min_groups=5)
    assert said.startswith("class cat has 1 group of pictures, fewer than the 5 of validate.min_groups")
    assert sentence(manifest_of(GOOD), min_groups=5) is None


def test_several_labels_count_for_each_class():
    manifest = manifest_of(["helmet", "helmet;vest", "vest"])
    counts = count_classes(manifest, quarantine_of(), GROUPING, ValidateParams()).set_index("class")
    assert counts["pictures"].to_dict() == {"helmet": 2, "vest": 2}


def test_groups_hang_together_through_several_columns():
    manifest = manifest_of(["cat"] * 5, photo=["a", "a", "b", None, None], video=[None, "v", "v", None, None])
    assert len(set(tied_by_columns(manifest, GROUPING))) == 3
    words = manifest.assign(photo="unknown", person=None)
    assert len(set(tied_by_columns(words, ("photo", "person")))) == len(words), "a word for nothing ties nothing"
    assert len(set(tied_by_columns(words, ("photo", "person"), blank_words=()))) == 1
    assert len(set(tied_by_columns(manifest, ("photo",)))) == 4
    assert len(set(tied_by_columns(manifest, ()))) == 5


KEYS = st.one_of(st.none(), st.sampled_from("abcd"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=12))
def test_ties_are_what_merging_one_by_one_gives(rows):
    manifest = manifest_of(["cat"] * len(rows), photo=[a for a, _ in rows], video=[b for _, b in rows])
    group = list(range(len(rows)))
    for i, one in enumerate(rows):
        for j, other in enumerate(rows[:i]):
            if any(a is not None and a == b for a, b in zip(one, other, strict=True)):
                group = [group[j] if g == group[i] else g for g in group]
    tied = tied_by_columns(manifest, GROUPING).tolist()
    assert len(set(zip(tied, group, strict=True))) == len(set(tied)) == len(set(group))


@pytest.mark.parametrize(
    ("second", "classes", "said"),
    [
        ("With-Helmet", (), "the classes With-Helmet and with_helmet differ only in case"),
        ("w\u0456th_helmet", (), "differ only in case"),
        ("With-Helmet", ("With-Helmet", "with_helmet"), None),
        ("without_helmet", (), None),
    ],
)
def test_two_spellings_of_one_class_stop_the_run_unless_both_are_meant(second, classes, said):
    found = sentence(manifest_of(["with_helmet", second] * 10), classes=classes)
    assert found is None if said is None else said in found


def test_a_class_whose_pictures_were_all_refused_says_why():
    refused = quarantine_of(("a|b/0.png", "its label 'a|b' holds |", "label", "a|b"))
    said = sentence(manifest_of(GOOD), refused)
    assert said.startswith("class a|b has no usable picture (first: a|b/0.png its label 'a|b' holds |)")


@given(st.datetimes(min_value=datetime(1800, 1, 1), max_value=datetime(2199, 12, 31)))
def test_every_time_there_is_is_a_time(moment):
    for text in (moment.isoformat(), moment.date().isoformat(), moment.isoformat(" ", "minutes") + "+02:00"):
        assert re.match(ISO_TIME, text), text


@given(year=st.integers(1800, 2199), month=st.integers(0, 99), day=st.integers(0, 99))
def test_a_day_is_a_day_where_the_calendar_has_it(year, month, day):
    try:
        exists = bool(date(year, month, day))
    except ValueError:
        exists = False
    assert bool(re.match(ISO_TIME, f"{year}-{month:02}-{day:02}")) == exists


@pytest.mark.parametrize(
    "text",
    [
        *("2026-13-45T99:99:99", "2026-02-30", "2100-02-29", "2026-03-31T24:00:00", "2026-03-31T12:60", "2026-3-1"),
        *("0000-01-01", "2026-03-31T12:00:61", "2026-03-31T12:00+25:00", "31.3.2026", "2026:03:31 14:05:00", "T12:00"),
    ],
)
def test_what_is_no_time_is_none(text):
    assert not re.match(ISO_TIME, text)


# ------------------------------------------------------------------------------- through Great Expectations (3 s each)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """One run over a manifest with everything wrong that a manifest can have."""
    manifest = manifest_of(GOOD, photo=[f"p{n}" for n in range(19)] + [None], captured_at="2026-03-31T14:05:00Z")
    manifest.loc[1, "path"] = manifest.loc[0, "path"]
    manifest.loc[2, "id"] = "12ab"
    manifest.loc[3, "label"] = "horse"
    manifest.loc[4, "width"] = 7
    manifest.loc[5, "brightness"] = 0.001
    manifest.loc[6, "contrast"] = 0.0
    manifest.loc[7, "captured_at"] = "31.3.2026"
    manifest.loc[8, "captured_at"] = None
    manifest.loc[9, "label"] = "cat;dog"
    docs = tmp_path_factory.mktemp("docs")
    quarantine = quarantine_of(("cat/<b>bad</b>.jpg", "is empty (0 bytes)", "unreadable", "cat"))
    params = ValidateParams(min_groups=2, classes=("cat", "dog"))
    return manifest, validate(manifest, quarantine, GROUPING, params, docs), docs


def outcome(found, kind, column):
    (one,) = [
        o for o in found.outcomes if o.expectation.kind.endswith(kind) and o.expectation.bounds.get("column") == column
    ]
    return one


@pytest.mark.parametrize(
    ("kind", "column", "rows", "severity"),
    [
        ("be_unique", "path", [0, 1], "critical"),
        ("match_regex", "id", [2], "critical"),
        ("match_regex", "pixels_sha256", [], "critical"),
        ("in_set", "label", [3], "critical"),
        ("be_between", "width", [4], "warning"),
        ("be_between", "height", [], "warning"),
        ("be_between", "brightness", [5], "warning"),
        ("be_between", "contrast", [6], "warning"),
        ("match_regex", "captured_at", [7], "critical"),
        ("not_be_null", "photo", [19], "warning"),
    ],
)
def test_each_failing_row_names_its_file(spoilt, kind, column, rows, severity):
    manifest, found, _ = spoilt
    one = outcome(found, kind, column)
    assert list(one.failing) == sorted(manifest["path"][rows])
    assert one.success == (not rows)
    assert one.expectation.severity == severity


def test_a_broken_manifest_is_one_sentence_with_the_first_file(spoilt):
    _, found, _ = spoilt
    assert found.problem == "Each picture has one row: not so for 2 rows (first: cat/0.jpg)."


def test_warnings_name_their_first_file(spoilt):
    _, found, _ = spoilt
    assert any("brightness" in said and "dog/5.jpg" in said for said in found.warnings)
    assert any("No file is quarantined" in said for said in found.warnings)


def test_great_expectations_pages_name_the_files(spoilt):
    _, _, docs = spoilt
    (page,) = docs.glob("validations/manifest/**/*.html")
    text = page.read_text()
    for path in ("cat/2.jpg", "dog/3.jpg", "dog/5.jpg", "dog/19.jpg"):
        assert path in text


def test_pictures_that_metadata_does_not_know_are_a_warning():
    manifest = manifest_of(GOOD, photo=["p"] * 19 + [None], site=["s"] * 18 + [None, None])
    assert find_warnings(manifest, []) == ["1 picture without metadata (first: dog/19.jpg)."]
    assert find_warnings(manifest_of(GOOD), []) == []


def test_only_the_grouping_columns_there_are_are_expected_to_be_filled():
    columns = {one.bounds.get("column") for one in manifest_expectations(manifest_of(GOOD), GROUPING, ValidateParams())}
    assert "photo" not in columns
    assert "captured_at" not in columns


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "build").mkdir()
    (tmp_path / "params.yaml").write_text("validate: {min_groups: 2}\ngroup: {}\n")
    manifest_of(GOOD).to_parquet(tmp_path / "build" / "manifest.parquet", index=False)
    quarantine_of().to_csv(tmp_path / "build" / "quarantine.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_report_is_the_same_bytes_twice_and_its_pages_need_no_network(project):
    reports = []
    for _ in range(2):
        stage.main()
        reports.append((project / "build" / "validation.json").read_bytes())
    assert reports[0] == reports[1]
    assert json.loads(reports[0])["success"] is True
    pages = list((project / "reports" / "validation").rglob("*.html"))
    assert len(pages) == 7  # our index, and a page of results and one of expectations for each of three tables
    for page in pages:
        text = page.read_text()
        assert not re.search(r"(src|href)=\"(https?:)?//", text.replace('href="https://docs.', ""))
        for link in re.findall(r'<(?:link|script|a)[^>]*(?:href|src)="([^"#:]+)"', text):
            assert (page.parent / link).exists(), (page, link)


def test_a_run_that_stops_writes_its_report_first(project):
    quarantine = quarantine_of(("cat/<i>gone</i>.jpg", "no such file", "missing", ""))
    quarantine.to_csv(project / "build" / "quarantine.csv", index=False)
    with pytest.raises(UserError, match=r"1 metadata row without a file.*reports/validation/index\.html$"):
        stage.main()
    report = json.loads((project / "build" / "validation.json").read_text())
    assert report["success"] is False
    (failing,) = [one for one in report["expectations"] if one["says"] == "Each row of metadata.csv has its file"]
    assert failing["failing"] == ["cat/<i>gone</i>.jpg"]
    index = (project / "reports" / "validation" / "index.html").read_text()
    assert "The run stops here" in index
    assert "cat/&lt;i&gt;gone&lt;/i&gt;.jpg" in index


def test_what_later_stages_would_refuse_is_said_before_any_training_all_of_it(project):
    (project / "params.yaml").write_text(
        "validate: {min_groups: 2}\ngroup: {}\nevaluate: {violation_class: dgo, costs: 3}\n"
        "gate: {beat: [majority], alpha: 0.1}\nensembles: {vote: {kind: loud}}\npromote: {onnx_tolerence: 1}\n"
    )
    with pytest.raises(UserError) as told:
        stage.main()
    for words in (
        "evaluate.violation_class is dgo",
        "evaluate.costs: Input should be",
        "gate.beat: Value error, 'majority' is none of those that `evaluate` measures: majority class, 16x16 pixels",
        "ensembles.vote.kind: Input should be",
        "promote.onnx_tolerence: Extra inputs are not permitted",
    ):
        assert words in str(told.value), told.value


def test_a_set_that_can_never_hold_the_gates_test_groups_is_told_before_training(project, capsys):
    stage.main()
    assert "gate.minimum_test_groups asks for 40: the gate will not promote" in capsys.readouterr().err
    assert stage.too_few_to_test(range(267), {}) is None, "15% of 267 groups are 40.05"
    assert stage.too_few_to_test(range(260), {}).startswith("the test part can hold 39 independent groups at most")
    assert stage.too_few_to_test(range(20), {"gate": {"minimum_test_groups": None}}) is None


def test_ties_of_more_rows_than_a_byte_counts_hold():
    """100 pictures of 50 photographs: pandas numbers the photographs in 8 bits."""
    manifest = pd.DataFrame({"photo": [f"p{n // 2}" for n in range(100)], "person": [None] * 98 + ["ann", "ann"]})
    tied = tied_by_columns(manifest, ["photo", "video", "person"])
    assert len(set(tied)) == 50
    assert tied[0] == tied[1] != tied[2]


# ------------------------------------------------------------------------------------------------- whole photographs


def photographs_of(labels) -> pd.DataFrame:
    """A manifest of whole photographs, a path each, with the number of their boxes."""
    manifest = manifest_of(labels)
    manifest["path"] = [f"{number}.jpg" for number in range(len(labels))]
    counts = [0 if label == "background" else len(label.split(";")) for label in labels]
    manifest.insert(list(manifest.columns).index("colourfulness") + 1, "box_count", counts)
    return manifest


def boxes_of(manifest) -> pd.DataFrame:
    rows = [
        (path, name, 0.1 + 0.3 * n, 0.1, 0.3 + 0.3 * n, 0.4)
        for path, label in zip(manifest["path"], manifest["label"], strict=True)
        for n, name in enumerate(label.split(";"))
        if name != "background"
    ]
    return pd.DataFrame(rows, columns=["path", "label", "left", "top", "right", "bottom"])


def of_boxes(manifest, quarantine=None, **params) -> str | None:
    quarantine = quarantine_of() if quarantine is None else quarantine
    settled, boxes = ValidateParams(**{"min_groups": 2, **params}), boxes_of(manifest)
    classes = count_classes(manifest, quarantine, GROUPING, settled, boxes=boxes)
    return find_problem(manifest, quarantine, classes, settled, boxes)


def test_classes_of_photographs_are_those_of_their_boxes():
    manifest = photographs_of(["helmet", "head;helmet", "background", "helmet"])
    classes = count_classes(manifest, quarantine_of(), (), ValidateParams(), boxes=boxes_of(manifest))
    assert classes.to_dict("list") == {
        "class": ["head", "helmet"],
        "pictures": [1, 3],
        "groups": [1, 3],
        "boxes": [1, 3],
    }


def test_one_class_is_enough_to_detect_and_background_needs_no_groups():
    assert of_boxes(photographs_of(["helmet"] * 9 + ["background"])) is None
    assert of_boxes(photographs_of(["helmet"] * 9), classes=("helmet", "head")) == (
        "class head has no usable box: mark some, or take it out of validate.classes."
    )
    assert "class head has 1 group of pictures" in of_boxes(photographs_of(["helmet"] * 9 + ["head"]))


def test_photographs_without_one_usable_box_are_one_sentence(tmp_path):
    manifest, broken = (
        photographs_of(["background"] * 30),
        quarantine_of(("a.jpg#0", "reaches outside", "box", "helmet")),
    )
    said = "no photograph has a box that can be used (the first: a.jpg#0 reaches outside)"
    assert of_boxes(manifest, broken).startswith(said)
    found = validate(manifest, broken, GROUPING, ValidateParams(), tmp_path, boxes=boxes_of(manifest))
    assert found.problem.startswith(said)


def test_quarantined_boxes_are_counted_among_boxes():
    manifest = photographs_of(["head;helmet"] * 20)
    one = ("1.jpg#3", "reaches outside", "box", "helmet")
    assert of_boxes(manifest, quarantine_of(one, one)) is None
    said = of_boxes(manifest, quarantine_of(one, one, one))
    assert said.startswith(
        "3 of 43 boxes are quarantined (7.0%, at most 5.0% by validate.max_quarantined; first: 1.jpg#3"
    )
    photograph = ("99.jpg", "is empty", "unreadable", "")
    assert "2 of 22 pictures are quarantined" in of_boxes(manifest, quarantine_of(photograph, photograph))


def test_a_run_on_photographs_checks_boxes_and_shows_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("build", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "params.yaml").write_text(
        "data: {task: detect}\ngroup: {}\n"
        "validate: {min_groups: 2, classes: [head, helmet], boxes: {max_border: 0.05}}\n"
        "detectors: {a: {}}\ncandidates: {a: {architecture: none of the crops'}}\ngate: {another: key}\n"
    )
    manifest = photographs_of(["head;helmet", "helmet"] * 10 + ["background"])
    boxes = boxes_of(manifest)
    boxes.loc[5, "right"] = boxes.loc[5, "left"] + 0.01  # two pixels wide
    boxes.loc[6:8, "left"] = 0.0
    manifest.to_parquet("build/manifest.parquet", index=False)
    boxes.to_parquet("build/boxes.parquet", index=False)
    quarantine_of().to_csv("build/quarantine.csv", index=False)
    for path in manifest["path"]:
        Image.new("RGB", (200, 200), (90, 120, 150)).save(tmp_path / "data" / path)
    stage.main()
    report = json.loads((tmp_path / "build" / "validation.json").read_text())
    assert report["success"] is True
    assert report["counts"] == {"pictures": 21, "quarantined": 0, "boxes": 30, "background": 1}
    thin = boxes["path"][5]
    failing = {one["column"]: one["failing"] for one in report["expectations"] if not one["success"]}
    assert failing == {
        "side": [f"{thin}, box 1 (helmet)"],
        "aspect": [f"{thin}, box 1 (helmet)"],
        "at_border": [],
    }
    share = "5% of the boxes at most touch their photograph's edge (validate.boxes.max_border): it is 0.1."
    assert share in report["warnings"]
    index = (tmp_path / "reports" / "validation" / "index.html").read_text()
    figures = re.findall(r"<figcaption class=\"path\">(\S+) ?<", index)
    assert len(figures) == 12
    assert figures[0] == thin
    assert len(re.findall(r"<rect class=\"b[12]\"", index)) >= 12
    assert re.findall(r"https?:", index) == []


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (["photo", "person"], "by columns only here: pictures of one photo or person are a group"),
        (["video"], "by columns only here: pictures of one video are a group"),
        ([], "Every picture counts as a group here"),
    ],
)
def test_what_a_group_is_before_copies_are_looked_for(columns, says):
    table = pd.DataFrame({"path": ["a"], **{name: ["x"] for name in columns}})
    said = what_groups_are(table, ["photo", "video", "person"])
    assert says in said
    assert said.endswith(
        "Near-duplicates are joined later, by `group`: what the leakage certificate counts may be fewer."
    )
