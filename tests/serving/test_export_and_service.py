"""The champion exported by `plumbline export` answers as the service does by TensorFlow Serving's REST API."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image
from running import Project

from benchmarks.tiny_project import pictures, splits_table

pytestmark = pytest.mark.slow

# In a process of its own, as in conftest.py: TensorFlow is not loaded where serving is tested.
ANSWER = """
import json, sys
import numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
asked = tf.constant(np.load(sys.argv[2]), tf.float32)
found = {name: signature(pixels=asked) for name, signature in loaded.signatures.items()}
print(json.dumps({name: {key: value.numpy().tolist() for key, value in one.items()} for name, one in found.items()}))
"""


def test_the_champions_saved_model_answers_as_the_service(tmp_path, registered):
    project = Project(tmp_path / "p", registered).champion(1)
    table = splits_table(60)
    for path, picture in zip(table["path"], pictures(list(table["path"])), strict=True):
        (project.root / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(project.root / "data" / path)
    params = project.root / "params.yaml"
    params.write_text(yaml.safe_dump({**yaml.safe_load(params.read_text()), "data": {"root": "data"}, "promote": {}}))
    command = [sys.executable, "-m", "plumbline.cli", "export", "--format", "saved-model"]
    done = subprocess.run(command, cwd=project.root, env=project.environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    folder = project.root / "build/exports/plumbline/1"
    assert done.stdout.startswith("build/exports/plumbline/1: version 1 of plumbline as saved-model; the same class on")
    pixels = np.stack(list(pictures(["with_helmet/0.png", "without_helmet/1.png", "with_helmet/2.png"])))
    np.save(tmp_path / "pixels.npy", pixels)
    answer = [sys.executable, "-c", ANSWER, str(folder), str(tmp_path / "pixels.npy")]
    exported = json.loads(subprocess.run(answer, capture_output=True, text=True, check=True).stdout)
    with project.serving("--workers", "1") as service:
        for signature in ("serving_default", "embedding", "all"):
            asked = {"signature_name": signature, "inputs": {"pixels": pixels.tolist()}}
            for address in ("/v1/models/plumbline:predict", "/v1/models/plumbline/versions/1:predict"):
                found = service.client.post(address, json=asked).json()["outputs"]
                named = found if signature == "all" else {next(iter(exported[signature])): found}
                assert set(named) == set(exported[signature])
                for name, values in named.items():
                    np.testing.assert_allclose(values, exported[signature][name], atol=1e-4)
    again = subprocess.run(command, cwd=project.root, env=project.environment, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == (
        "error: build/exports/plumbline/1 exists already and is left as it is: remove it, or name another folder with "
        "--to.\n"
    )
