"""CONTRIBUTING.md's recipes, followed to the letter in a copy of the project with a small data set."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from samples.draw import write_sample

TOP = Path(__file__).resolve().parents[1]
RECIPES = ("Add a candidate", "Add a stage", "Add a room")
STEP = re.compile(r"Write `(?P<write>[^`]+)`|In `(?P<edit>[^`]+)`,\s+after the line `(?P<after>[^`]+)`|Run[:;]")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The files that Git tracks, a sample of 45 pictures, one backbone and one candidate."""
    top = tmp_path_factory.mktemp("contributing") / "project"
    tracked = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    compiled = [path.relative_to(TOP).as_posix() for path in TOP.glob("plumbline/**/__pycache__/*.nb?")]  # by Numba
    for name in filter(None, [*tracked, *compiled]):
        if (TOP / name).is_file() and not name.startswith("samples/remote"):
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, top / name)
    write_sample(top, seed=3, labelled=45, incoming=3)
    text = (top / "params.yaml").read_text()
    params = yaml.safe_load(text)
    params["backbones"] = {"pixels": {"image_size": 32}}
    params["group"]["embedding"] = params["leakage"]["features"] = "pixels"
    params["validate"] |= {"min_groups": 2, "max_quarantined": 0.5}
    params["candidates"] = {}
    written = yaml.safe_dump(params, sort_keys=False).replace("candidates: {}\n", "candidates:\n" + ENTRY)
    (top / "params.yaml").write_text(written)
    run(top, "git init -q && git add -A && git commit -q -m start")
    return top


ENTRY = "  lenet5: {architecture: lenet5, backbone: pixels, epochs: 2}\n"


def run(top, command):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(top),
        "PLUMBLINE_OFFLINE": "1",
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        **{f"GIT_{who}_{what}": "t@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(
        ["sh", "-e", "-c", command], cwd=top, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def steps(recipe):
    """(instruction, block) pairs of one recipe: the last instruction before each block says what to do with it."""
    text = (TOP / "CONTRIBUTING.md").read_text()
    section = text.split(f"\n## {recipe}\n")[1].split("\n## ")[0]
    before = 0
    for block in re.finditer(r"```\w+\n(.*?)```", section, re.DOTALL):
        *_, instruction = STEP.finditer(section, before, block.start())
        yield instruction, block[1]
        before = block.end()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_works_as_it_stands(recipe, project):
    outputs = []
    for instruction, block in steps(recipe):
        if instruction["write"]:
            path = project / instruction["write"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block)
        elif instruction["edit"]:
            path = project / instruction["edit"]
            lines = path.read_text().splitlines(keepends=True)
            lines.insert(lines.index(instruction["after"] + "\n") + 1, block)
            path.write_text("".join(lines))
        else:
            outputs.append(run(project, block))
    assert outputs, "a recipe ends in commands"
    expected = {
        "Add a candidate": "build/candidates/three_convs/model.json",
        "Add a stage": '"with_helmet":',
        "Add a room": " passed",
    }
    assert expected[recipe] in "".join(outputs)
