import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from plumbline.common.errors import UserError
from plumbline.imaging import hashing, manifest
from plumbline.imaging.decode import decode_small_grey
from plumbline.imaging.manifest import IngestParams, ingest
from plumbline.imaging.measures import pixels_sha256
from plumbline.imaging.reading import load_rgb
from plumbline.imaging.settings import DataParams
from stages import ingest as stage

TOP = Path(__file__).parents[2]


def draw(path: Path, seed: int, size=(160, 120), **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, **options)


@pytest.fixture
def data(tmp_path):
    for number, label in enumerate(["cat", "dog"] * 3):
        draw(tmp_path / "data" / label / f"{number}.jpg", number)
    (tmp_path / "data" / "metadata.csv").write_text("path,photo\ncat/0.jpg,p0\ndog/1.jpg,p1\n")
    return DataParams(root=tmp_path / "data")


def run_ingest(params, **options):
    return ingest(params, IngestParams(**options))


def test_a_row_holds_what_other_tools_say_of_the_file(data):
    found = run_ingest(data)
    row = found.manifest.set_index("path").loc["dog/1.jpg"]
    file = data.root / "dog" / "1.jpg"
    with Image.open(file) as image:
        assert row["phash"] == int(str(imagehash.phash(image)), 16)
        assert (row["width"], row["height"]) == image.size
        assert row["pixels_sha256"] == hashlib.sha256(b"120x160x3" + image.tobytes()).hexdigest()
    assert row["id"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert row["bytes"] == file.stat().st_size
    assert row["format"] == "JPEG"
    assert row["label"] == "dog"
    assert row["photo"] == "p1"


def test_a_damaged_file_that_can_be_shown_is_kept_with_its_decoders_warning(data):
    draw(data.root / "cat" / "damaged.jpg", 50, size=(320, 240), quality=95)
    whole = (data.root / "cat" / "damaged.jpg").read_bytes()
    for start in range(900, len(whole) - 200, 97):
        damaged = whole[:start] + b"overwritten " * 12 + whole[start + 144 :]
        (data.root / "cat" / "damaged.jpg").write_bytes(damaged)
        found = run_ingest(data)
        if "decoder_warning" in found.manifest:
            break
    table = found.manifest.set_index("path")
    assert table.loc["cat/damaged.jpg", "decoder_warning"].startswith(("Corrupt JPEG data", "Premature end"))
    assert table["decoder_warning"].notna().sum() == 1
    assert found.quarantine.empty


def test_columns_are_the_contracts_then_the_metadata(data):
    manifest = run_ingest(data).manifest
    contract = "path id pixels_sha256 label width height bytes format phash brightness contrast sharpness colourfulness"
    assert " ".join(manifest.columns) == f"{contract} photo"
    assert manifest["phash"].dtype == np.uint64
    assert manifest["photo"].isna().sum() == 4


def test_row_i_of_each_array_is_row_i_of_the_manifest(data):
    draw(data.root / "cat" / "big.jpg", 50, (1280, 960))
    found = run_ingest(data)
    assert found.fingerprints.shape == (7, 2, 37)
    assert found.thumbnails.shape == (7, 81, 96)  # grey, and the colours below it
    for row, path in enumerate(found.manifest["path"]):
        grey = decode_small_grey((data.root / path).read_bytes())
        distance = int(found.fingerprints[row, 0, 0] ^ manifest.fingerprint(grey)[0, 0]).bit_count()
        assert distance <= 2
        assert np.abs(found.thumbnails[row][:72].astype(int) - hashing.thumbnail(grey)).mean() < 2


def test_the_same_pixels_in_another_file_share_the_pixel_hash_not_the_id(data):
    draw(data.root / "cat" / "a.png", 9)
    draw(data.root / "cat" / "b.bmp", 9)
    rows = run_ingest(data).manifest.set_index("path")
    assert rows.loc["cat/a.png", "pixels_sha256"] == rows.loc["cat/b.bmp", "pixels_sha256"]
    assert rows.loc["cat/a.png", "id"] != rows.loc["cat/b.bmp", "id"]


def test_the_pixel_hash_knows_the_shape():
    pixels = np.arange(2 * 6 * 3, dtype=np.uint8)
    assert pixels_sha256(pixels.reshape(2, 6, 3)) != pixels_sha256(pixels.reshape(6, 2, 3))


def test_a_turned_picture_is_measured_upright(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(data.root / "cat" / "turned.png", 3, (160, 120), exif=exif)
    row = run_ingest(data).manifest.set_index("path").loc["cat/turned.png"]
    assert (row["width"], row["height"]) == (120, 160)
    with Image.open(data.root / "cat" / "turned.png") as image:
        assert row["phash"] == int(str(imagehash.phash(ImageOps.exif_transpose(image))), 16)


def spoil(root: Path) -> dict[str, str]:
    """Put every kind of bad file beside the good ones; what each reason has to say."""
    folder = root / "cat"
    whole = (folder / "0.jpg").read_bytes()
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(whole[:-400])
    (folder / "page.png").write_text("<html>not found</html>")
    Image.new("1", (9000, 9000)).save(folder / "bomb.png")
    reel = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    reel[0].save(folder / "moving.webp", save_all=True, append_images=reel[1:])
    Image.new("RGB", (5, 5)).save(folder / "dot.png")
    (folder / "out.jpg").symlink_to("/etc/hostname")
    (folder / "line\nbreak.jpg").write_bytes(whole)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg")).write_bytes(whole)
    (folder / "Twin.jpg").write_bytes(whole)
    (folder / "twin.jpg").write_bytes(whole)
    return {
        "cat/zero.jpg": "is empty",
        "cat/cut.jpg": "truncated",
        "cat/page.png": "web page",
        "cat/bomb.png": "data.max_pixels",
        "cat/moving.webp": "animated",
        "cat/dot.png": "ingest.min_side",
        "cat/out.jpg": "out of the folder",
        "cat/line\\nbreak.jpg": "line break",
        "cat/\\udcff.jpg": "UTF-8",
        "cat/Twin.jpg": "only in case",
        "cat/twin.jpg": "only in case",
    }


def test_every_bad_file_is_quarantined_by_name_and_the_rest_goes_on(data):
    expected = spoil(data.root)
    found = run_ingest(data)
    assert len(found.manifest) == 6
    quarantine = found.quarantine.set_index("path")
    assert sorted(quarantine.index) == sorted(expected)
    for path, words in expected.items():
        assert words in quarantine.loc[path, "reason"]
        assert quarantine.loc[path, "label"] == "cat"


def test_a_photograph_that_cannot_be_read_takes_its_boxes_along(tmp_path):
    draw(tmp_path / "p1.jpg", 1)
    (tmp_path / "p1.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.001 0.001\n")
    (tmp_path / "p2.jpg").write_bytes(b"nothing")
    (tmp_path / "p2.txt").write_text("0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "obj.names").write_text("helmet\nhead\n")
    found = run_ingest(DataParams(root=tmp_path))
    assert found.manifest["path"].tolist() == ["p1.jpg#0"]
    assert found.quarantine["path"].tolist() == ["p1.jpg#1", "p2.jpg"]
    file = (tmp_path / "p1.jpg").read_bytes()
    text = f"{hashlib.sha256(file).hexdigest()} 0 0.5 0.5 0.5 0.5"
    assert found.manifest["id"][0] == hashlib.sha256(text.encode()).hexdigest()


def test_array_rows_are_named_by_their_bytes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    (tmp_path / "labels.csv").write_text("0\n1\n" * 20)
    params = DataParams(root=tmp_path)
    found = run_ingest(params)
    assert found.manifest["path"].tolist() == [f"images.npy#{number}" for number in range(40)]
    assert found.manifest["id"][7] == hashlib.sha256(pixels[7].tobytes()).hexdigest()
    assert found.manifest["pixels_sha256"][7] == pixels_sha256(load_rgb(params, "images.npy#7"))


def test_threads_and_processes_find_the_same(data, monkeypatch):
    spoil(data.root)
    threads = run_ingest(data)
    monkeypatch.setattr(manifest, "PACK", 2)
    monkeypatch.setattr(manifest, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(manifest, "cores", lambda: 2)
    processes = run_ingest(data)
    pd.testing.assert_frame_equal(threads.manifest, processes.manifest)
    pd.testing.assert_frame_equal(threads.quarantine, processes.quarantine)
    assert np.array_equal(threads.fingerprints, processes.fingerprints)
    assert np.array_equal(threads.thumbnails, processes.thumbnails)


# ------------------------------------------------------------------------------------------------------- the command


def command(folder: Path, **options) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.ingest"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def project(data, tmp_path):
    (tmp_path / "params.yaml").write_text("data: {root: data}\ningest: {min_side: 8}\n")
    return tmp_path


def test_the_same_data_gives_the_same_bytes(project, monkeypatch):
    spoil(project / "data")
    monkeypatch.chdir(project)
    contents = []
    for _ in range(2):
        stage.main()
        contents.append({path.name: path.read_bytes() for path in (project / "build").iterdir()})
    assert set(contents[0]) == {"manifest.parquet", "quarantine.csv", "fingerprints.npy", "thumbnails.npy"}
    assert contents[0] == contents[1]


def test_nothing_usable_is_one_sentence_and_the_reasons_are_written(project, monkeypatch):
    monkeypatch.chdir(project)
    (project / "data" / "metadata.csv").unlink()
    for path in (project / "data").rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 6 files .*cat/0\.jpg is empty.*quarantine\.csv"):
        stage.main()
    assert len(pd.read_csv(project / "build" / "quarantine.csv")) == 6


def test_no_data_ends_the_command_with_one_line_and_exit_code_one(project):
    for path in sorted((project / "data").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    ended = command(project)
    _, said = ended.communicate(timeout=60)
    assert ended.returncode == 1
    assert said.startswith("error: data/ is empty: run `dvc pull`")
    assert len(said.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_killed_run_leaves_no_result_and_no_process(project):
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 200, 200, 3), dtype=np.uint8)
    shutil.rmtree(project / "data")
    (project / "data").mkdir()
    np.save(project / "data" / "images.npy", pixels)
    (project / "data" / "labels.csv").write_text("0\n1\n" * 1500)
    running = command(project, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(members(running.pid)) < 3:  # itself and its workers
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.02)
    time.sleep(1)
    assert running.poll() is None
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    while left := members(running.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert list(project.glob("build/[!.]*")) == []


def members(session: int) -> list[str]:
    """Processes of a session that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(rest[2]) == session and state != "Z":
            found.append(folder.name)
    return found


@pytest.mark.parametrize("limit", [10, 2_000])
def test_a_full_disk_is_one_sentence_that_names_the_file_and_what_was_there_stays(data, tmp_path, limit):
    """The kernel lets no file grow beyond `limit` bytes, as on a full disk; the stage is started as DVC starts it."""
    import resource

    (tmp_path / "params.yaml").write_text("data: {}\ningest: {}\n")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "manifest.parquet").write_text("of the last run")
    # `make coverage` could not write in there, either, and would say so on the same stderr.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "stages.ingest"],
        cwd=tmp_path,
        env={**env, "PYTHONPATH": str(TOP)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if not line.startswith("ingest:") and "rows of" not in line]
    assert done.returncode == 1
    assert [line for line in told if line.strip()][-1].startswith("error: build/")
    assert "can't be written (" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "build" / "manifest.parquet").read_text() == "of the last run"
    assert not [path for path in (tmp_path / "build").iterdir() if path.name.startswith(".")]


# ------------------------------------------------------------------------------------------------- whole photographs


@pytest.fixture
def scenes(tmp_path):
    for number, lines in enumerate(("0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.1 0.1\n", "0 0.5 0.5 0.2 0.2\n", "")):
        draw(tmp_path / "data" / f"{number}.jpg", number)
        (tmp_path / "data" / f"{number}.txt").write_text(lines)
    (tmp_path / "data" / "obj.names").write_text("helmet\nhead\n")
    return DataParams(root=tmp_path / "data", task="detect")


def test_whole_photographs_have_a_row_each_and_their_boxes_another_table(scenes):
    draw(scenes.root / "empty.jpg", 9)
    found = run_ingest(scenes)
    assert found.manifest["path"].tolist() == ["0.jpg", "1.jpg", "2.jpg", "empty.jpg"]
    assert found.manifest["label"].tolist() == ["head;helmet", "helmet", "background", "background"]
    assert found.manifest["box_count"].tolist() == [2, 1, 0, 0]
    assert found.boxes.values.tolist()[0] == ["0.jpg", "helmet", 0.375, 0.25, 0.625, 0.75]
    assert found.boxes["path"].tolist() == ["0.jpg", "0.jpg", "1.jpg"]
    assert load_rgb(scenes, "0.jpg").shape == (120, 160, 3)


def test_a_photograph_that_loses_its_last_box_or_its_pixels_is_quarantined_with_the_rows_of_the_arrays(scenes):
    (scenes.root / "1.txt").write_text("0 0.5 0.5 0.001 0.001\n")
    (scenes.root / "0.jpg").write_bytes(b"no picture")
    (scenes.root / "2.txt").write_text("1 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n")
    found = run_ingest(scenes)
    assert found.manifest["path"].tolist() == ["2.jpg"]
    assert found.boxes["label"].tolist() == ["head"]
    reasons = dict(zip(found.quarantine["path"], found.quarantine["reason"], strict=True))
    assert set(reasons) == {"0.jpg", "1.jpg", "1.jpg#0", "2.jpg#1"}
    assert "less than a pixel of this 160 x 120" in reasons["1.jpg#0"]
    assert "is there twice" in reasons["2.jpg#1"]
    alone = run_ingest(DataParams(root=scenes.root, task="detect"))
    assert np.array_equal(found.fingerprints, alone.fingerprints)
    assert len(found.fingerprints) == len(found.thumbnails) == 1
    assert found.fingerprints[0, 0, 0] != 0


def test_boxes_lie_on_the_upright_photograph(scenes):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(scenes.root / "0.jpg", 0, exif=exif)  # stored 160 x 120, upright 120 x 160
    for path in scenes.root.glob("*.txt"):
        path.unlink()
    (scenes.root / "obj.names").unlink()
    one = {"id": 1, "file_name": "0.jpg", "width": 160, "height": 120}
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 16, 12]}]
    coco = {"images": [one], "categories": [{"id": 1, "name": "helmet"}], "annotations": boxes}
    (scenes.root / "boxes.json").write_text(json.dumps(coco))
    for name in ("1.jpg", "2.jpg"):
        (scenes.root / name).unlink()
    assert run_ingest(scenes).boxes[["left", "top", "right", "bottom"]].values.tolist() == [[0.9, 0.0, 1.0, 0.1]]


def test_five_hundred_boxes_in_a_photograph_of_twelve_megapixels(scenes):
    draw(scenes.root / "0.jpg", 0, size=(4000, 3000))
    lines = [f"0 {(n % 25 + 0.5) / 25:.6f} {(n // 25 + 0.5) / 20:.6f} 0.02 0.02" for n in range(499)]
    (scenes.root / "0.txt").write_text("\n".join([*lines, "1 0.5 0.5 0.00025 0.000334"]))
    found = run_ingest(scenes)
    assert found.manifest["box_count"].tolist() == [500, 1, 0]
    assert found.manifest["label"].tolist()[0] == "head;helmet"
    assert found.quarantine.empty


@pytest.mark.parametrize(
    ("task", "outs", "fits"), [("crops", True, False), ("detect", False, False), ("detect", True, True)]
)
def test_ingest_writes_boxes_where_its_pipeline_declares_them_and_nowhere_else(scenes, monkeypatch, task, outs, fits):
    project = scenes.root.parent
    monkeypatch.chdir(project)
    declared = "[build/manifest.parquet, build/boxes.parquet]" if outs else "[build/manifest.parquet]"
    (project / "dvc.yaml").write_text(f"stages: {{ingest: {{cmd: x, outs: {declared}}}}}\n")
    (project / "params.yaml").write_text(f"data: {{task: {task}}}\ningest: {{}}\n")
    if fits:
        stage.main()
    else:
        with pytest.raises(UserError, match=f"data.task is {task}, which is for the other pipeline"):
            stage.main()
    assert (project / "build" / "boxes.parquet").exists() == fits
