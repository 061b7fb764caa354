"""Which version answers: the registry's champion, whatever happens to the registry, the files and the workers."""

import io
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import Project, Running, until

from plumbline.registry import bundle
from serving.shelf import Shelf

pytestmark = pytest.mark.slow


def chunks(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_answers_are_those_of_the_network_that_was_trained(service, exported, known):
    """Keras from the version's own weights (see conftest), on the pixels that training reads."""
    expected = np.load(exported[0].parent / "keras.npy")
    parts = [service.predict(*some).json()["answers"] for some in chunks(list(known.values()), 8)]
    answers = [answer for part in parts for answer in part]
    served = [answer["softmax"]["without_helmet"] for answer in answers]
    assert np.abs(expected - served).max() < 1e-4
    assert np.mean([answer["label"] == path.split("/")[0] for answer, path in zip(answers, known, strict=True)]) > 0.9


def test_no_tensorflow_in_any_process(service):
    pids = [worker["pid"] for worker in service.ready()[1]["workers"]] + [service.process.pid]
    for pid in pids:
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "onnxruntime" in maps or pid == service.process.pid
        assert "tensorflow" not in maps
        assert "mlflow" not in maps


def test_a_promotion_and_a_rollback_are_followed_without_a_failed_request(tmp_path, registered, known):
    project = Project(tmp_path / "p", registered).champion(1)
    picture = known["with_helmet/0.png"]
    with project.serving("--workers", "2") as running:
        stop, seen, failed = threading.Event(), [], []

        def ask():
            own = Running(running.process, running.log)
            own.client = type(running.client)(base_url=running.url, timeout=30)
            while not stop.is_set():
                answer = own.predict(picture)
                if answer.status_code != 200:
                    failed.append(answer.text)
                    continue
                content = answer.json()
                label = content["answers"][0]["label"]
                seen.append((content["version"], int(answer.headers["plumbline-version"]), label))

        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask) for _ in range(3)]
            for version in (2, 1, 2):
                project.champion(version)
                running.wait_ready(version)
            stop.set()
            for one in asking:
                one.result()
        assert failed == []
        assert set(seen) == {(1, 1, "with_helmet"), (2, 2, "without_helmet")}


def test_without_a_champion_it_says_so_and_follows_when_one_comes(tmp_path, registered, known):
    project = Project(tmp_path / "p", None)
    with project.serving("--workers", "1", ready=False) as running:
        status, content = until(lambda: (found := running.ready())[1]["registry"].get("trouble") and found)
        assert status == 503
        assert "There is no registry" in content["detail"]
        answer = running.predict(known["with_helmet/0.png"])
        assert (answer.status_code, answer.json()["version"]) == (503, None)
        assert "There is no champion yet" in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"
        assert "NO CHAMPION YET" in running.client.get("/").text
        shutil.copytree(registered, project.root / "registry")
        until(lambda: "has no alias 'champion'" in running.ready()[1]["detail"])
        project.champion(2)
        running.wait_ready(2)


def test_a_registry_that_is_gone_leaves_the_last_good_champion_also_over_a_restart(tmp_path, registered, known):
    project = Project(tmp_path / "p", registered).champion(1)
    with project.serving("--workers", "1") as running:
        shutil.rmtree(project.root / "registry")
        until(lambda: "trouble" in running.ready()[1]["registry"])
        status, content = running.ready()
        assert status == 200
        assert "Version 1, the last good champion, goes on." in content["registry"]["trouble"]
    with project.serving("--workers", "1") as running:
        assert running.predict(known["with_helmet/0.png"]).json()["version"] == 1


def test_a_registry_that_is_garbage_is_said(tmp_path, registered, known):
    project = Project(tmp_path / "p", registered).champion(1)
    with project.serving("--workers", "1") as running:
        (project.root / "registry" / "mlflow.db").write_bytes(b"no database" * 1000)
        until(lambda: "can't be read" in running.ready()[1]["registry"].get("trouble", ""))
        assert running.predict(known["with_helmet/0.png"]).json()["version"] == 1


@pytest.mark.parametrize("name", [bundle.ONNX, "plumbline/serving.json", "plumbline/reference/embeddings.npy"])
def test_a_damaged_version_is_not_taken_up(tmp_path, registered, known, name):
    project = Project(tmp_path / "p", registered).champion(1)
    with (project.folder(2) / name).open("r+b") as file:
        file.truncate(200)
    with project.serving("--workers", "1") as running:
        project.champion(2)
        until(lambda: "was altered" in running.ready()[1]["registry"].get("trouble", ""))
        assert running.ready()[0] == 200
        assert running.predict(known["with_helmet/0.png"]).json()["version"] == 1
        project.champion(1)
        until(lambda: "trouble" not in running.ready()[1]["registry"])


def test_a_damaged_local_copy_is_fetched_again(tmp_path, registered, known):
    project = Project(tmp_path / "p", registered).champion(1)
    with project.serving("--workers", "1"):
        pass
    shelf = Shelf(project.root / "served")
    onnx = shelf.folder(shelf.roles().champion.digest) / bundle.ONNX
    onnx.write_bytes(b"torn")
    with project.serving("--workers", "1") as running:
        assert running.predict(known["with_helmet/0.png"]).json()["version"] == 1


def test_a_killed_worker_is_replaced_and_the_other_answers_meanwhile(service, known):
    pids = {worker["pid"] for worker in service.ready()[1]["workers"]}
    os.kill(min(pids), signal.SIGKILL)
    service.client = type(service.client)(base_url=service.url, timeout=30)
    until(lambda: len({worker.get("pid") for worker in service.ready()[1]["workers"]} - pids - {None}) == 1)
    service.wait_ready()
    assert service.predict(known["with_helmet/0.png"]).status_code == 200


def test_a_worker_that_hangs_is_not_ready(tmp_path, registered):
    project = Project(tmp_path / "p", registered).champion(1)
    with project.serving("--workers", "2") as running:
        pids = [worker["pid"] for worker in running.ready()[1]["workers"]]
        os.kill(pids[1], signal.SIGSTOP)
        try:
            status, content = 200, {}

            def not_ready():
                nonlocal status, content
                try:
                    status, content = running.ready()
                except Exception:  # the connection may have been the hanging worker's
                    running.client = type(running.client)(base_url=running.url, timeout=8)
                return status == 503

            until(not_ready)
            assert "1 of 2 workers give no answer" in content["detail"]
        finally:
            os.kill(pids[1], signal.SIGCONT)


def test_the_service_ends_with_its_supervisor(tmp_path, registered):
    project = Project(tmp_path / "p", registered).champion(1)
    with project.serving("--workers", "1") as running:
        pid = running.ready()[1]["workers"][0]["pid"]
        running.process.kill()
        until(lambda: gone(pid))


def test_pixels_are_prepared_as_training_reads_them(tmp_path, registered, service, project):
    """A large photograph: shrunk while it is decoded, in training and here alike."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams
    from plumbline.models.export import OnnxModel

    rgb = np.random.default_rng(3).integers(0, 256, (300, 400, 3), np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(rgb).save(tmp_path / "a" / "x.jpg", quality=90)
    model = OnnxModel(project.folder(1) / bundle.ONNX)
    pixels = next(iter(iter_rgb(DataParams(root=tmp_path), ["a/x.jpg"], (model.image_size,) * 2)))
    expected = model(pixels[None])[0][0]
    answer = service.predict((tmp_path / "a" / "x.jpg").read_bytes()).json()["answers"][0]
    assert np.abs(np.array(list(answer["softmax"].values())) - expected).max() < 1e-6


def test_a_version_that_wants_letterboxes_gets_them(tmp_path, exported):
    """How pictures are brought to the network's size travels in the ONNX file, and is not asked for twice."""
    import shutil

    import onnx

    from plumbline.imaging.decode import decode_resized
    from serving.model import open_version
    from serving.settings import Unsure
    from serving.shelf import Shelf

    source = tmp_path / "version"
    shutil.copytree(exported[0], source)
    model = onnx.load(str(source / bundle.ONNX))
    onnx.helper.set_model_props(model, {"fit": "letterbox"})
    onnx.save(model, str(source / bundle.ONNX))
    digest = bundle.seal(source)
    shelf = Shelf(tmp_path / "served")
    shelf.put(source, digest)
    served = open_version(shelf.folder(digest), 1, digest, 1, 2, Unsure())
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 80, 3), 250, np.uint8)).save(buffer, "PNG")
    prepared = served.prepare(buffer.getvalue(), 10_000)
    assert np.array_equal(prepared, decode_resized(buffer.getvalue(), (16, 16), 10_000, "letterbox"))
    assert prepared[0, 8].mean() < 200 < prepared[8, 8].mean()
