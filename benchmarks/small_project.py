"""A clone of this repository as it lies, every room in it, with a set of 60 drawn pictures and two small candidates.

Small enough to be trained in half a minute, from scratch and without a network; the gate's rules are off, so that there
is a champion. Pictures are noise, brighter above where the worker wears a helmet; a darker site has drifted.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from benchmarks.clones import HERE, call, clone_head
from plumbline.common.files import write_text

CLASSES = ("with_helmet", "without_helmet")
# of the gate; null switches a rule off
RULES = (
    "accuracy_floor",
    "recall_floor",
    "false_alarm_ceiling",
    "calibration_tolerance",
    "minimum_test_groups",
    "maximum_latency_ms",
    "slice_floor",
)
IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@localhost")


def picture(seed: int, label: int, dark: float = 1.0) -> bytes:
    """Return a JPEG of 64 x 48, the same for the same arguments."""
    random = np.random.default_rng(seed)
    cells = int(random.integers(4, 12))
    coarse = random.integers(30, 150, (cells, cells, 3)).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)).astype(float)
    pixels += random.normal(0, 5, pixels.shape)
    if label == 0:
        pixels[:24] += 70
    out = io.BytesIO()
    Image.fromarray(np.clip(dark * pixels, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def write_labelled(folder: Path, first: int, count: int) -> None:
    """Write `count` pictures into a folder per class."""
    for number in range(first, first + count):
        path = folder / CLASSES[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, number % 2))


def send(folder: Path, first: int, count: int, dark: float = 1.0) -> None:
    """Write `count` unlabelled pictures, as a site sends them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        (folder / f"{number:05d}.jpg").write_bytes(picture(number, number % 2, dark))


def make(root: Path, sites: dict[str, dict[str, str]], pictures: int = 60, **more: dict[str, Any]) -> None:
    """Make the project at `root`, a new folder, its data under DVC with a remote beside it, all committed.

    `sites` becomes that section of params.yaml, and prefect.yaml is written for it; `more` updates other sections.
    """
    clone_head(root)
    copy_changes(root)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    small = small_settings(params)
    for section, values in more.items():
        small[section].update(values)
    write_text(root / "params.yaml", yaml.safe_dump({**params, **small, "sites": sites}, sort_keys=False))
    for name in ("data.dvc", "incoming.dvc"):
        (root / name).unlink()
    write_labelled(root / "data", 0, pictures)
    remote = root.parent / f"{root.name}-remote"
    remote.mkdir()
    dvc = [sys.executable, "-m", "dvc"]
    call([*dvc, "remote", "add", "--quiet", "--default", "--force", "store", str(remote)], root)
    call([*dvc, "add", "--quiet", "data"], root)
    call([*dvc, "push", "--quiet"], root)
    call([sys.executable, "-m", "flows.sites"], root)
    call(["git", "add", "--all"], root)
    call(["git", *IDENTITY, "commit", "--quiet", "--message", "A small project"], root)


def small_settings(params: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the sections of params.yaml that make a run short, from those there are."""
    custom = {**params["candidates"]["custom_cnn"], "width": 0.25, "epochs": 2}
    return {
        "backbones": {
            "pixels": {"image_size": 32},
            "pixels_96": {**params["backbones"]["pixels_96"], "image_size": 32, "views": 2},
        },
        "candidates": {"simple_cnn": {"architecture": "simple_cnn", "backbone": "pixels"}, "custom_cnn": custom},
        "ensembles": {},
        "ablations": {},
        "compressed": {},
        "students": {},
        "group": {**params["group"], "embedding": "pixels"},
        "leakage": {**params["leakage"], "features": "pixels", "repeats": 2},
        "split": {**params["split"], "fractions": {"train": 0.5, "validation": 0.3, "test": 0.2}},
        "evaluate": {**params["evaluate"], "resamples": 200, "permutations": 100},
        "probe": {**params["probe"], "pictures": 10, "attention_pictures": 4},
        "promote": {**params["promote"], "minimum_unseen_groups": 1},
        "gate": {
            **params["gate"],
            **dict.fromkeys(RULES),
            "beat": [],
            "shortcut_auc": {},
            "probes": dict.fromkeys(params["gate"]["probes"]),
            "resamples": 200,
        },
        "drift": {
            **params["drift"],
            "minimum_images": 20,
            "minimum_groups": 10,
            "permutations": 1999,
            "horizon": 2,
            "label_first": 4,
        },
    }


def copy_changes(root: Path) -> None:
    """Bring a clone of HEAD to the state of this working tree: what is changed, new or gone and not ignored."""
    changed = ["git", "diff", "--name-only", "--no-renames", "-z", "HEAD"]
    new = ["git", "ls-files", "--others", "--exclude-standard", "-z"]
    for command in (changed, new):
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
        for name in filter(None, done.stdout.split("\0")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if (HERE / name).is_file():
                shutil.copy2(HERE / name, root / name)
            else:
                (root / name).unlink(missing_ok=True)
