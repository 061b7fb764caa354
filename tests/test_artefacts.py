"""Paths under build/ and reports/: written once, the same in dvc.yaml, of types that exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

from plumbline.commands.deps import PIPELINES, module_of
from plumbline.common import artefacts
from plumbline.common.files import Artefact

TOP = Path(__file__).resolve().parents[1]
SOURCE = TOP / "plumbline/common/artefacts.py"
ALL = {name: value for name, value in vars(artefacts).items() if isinstance(value, Artefact)}
TOPS = (artefacts.BUILD, artefacts.REPORTS)
WHOLE = {name: one for name, one in ALL.items() if Path(one.name).parts[0] in map(str, TOPS)}


def outs():
    """(path, stage) of everything under build/ and reports/ that a pipeline says is written."""
    pipelines = [yaml.safe_load((TOP / file).read_text())["stages"] for file in PIPELINES]
    for stage, item in (pair for pipeline in pipelines for pair in pipeline.items()):
        one = item.get("do", item)
        for kind in ("outs", "metrics", "plots"):
            for out in one.get(kind, []):
                path = out if isinstance(out, str) else next(iter(out))
                if Path(path).parts[0] in map(str, TOPS):
                    yield re.sub(r"/\$\{key\}.*", "", path), module_of(stage)


def test_every_out_of_dvc_yaml_is_an_artefact_of_the_stage_that_writes_it():
    known = {(one.name, by) for one in WHOLE.values() for by in (one.by, one.also_by) if by}
    assert set(outs()) == {(path, by) for path, by in known if not by.startswith("plumbline ")}


def test_no_path_is_there_twice():
    for some in (WHOLE, {name: one for name, one in ALL.items() if name not in WHOLE}):
        assert len({one.name for one in some.values()}) == len(some)


@pytest.mark.parametrize("name", ALL)
def test_types_that_are_named_exist(name):
    for dotted in re.findall(r"plumbline(?:\.\w+)+", ALL[name].holds):
        module, _, kind = dotted.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), kind), type), dotted


def test_parts_that_are_named_exist():
    for one in ALL.values():
        for part in re.findall(r"\b[A-Z][A-Z_]{4,}\b(?![./])", one.holds):
            assert part in ALL or part in ("CLASS", "WINDOW", "CANDIDATE"), (one, part)


def test_the_module_holds_nothing_but_paths():
    """The closures of the stages leave it out: what is more than a path that dvc.yaml names must not be in it."""
    for node in ast.parse(SOURCE.read_text()).body:
        if isinstance(node, ast.Assign):
            assert isinstance(node.value, ast.Call)
            assert isinstance(node.value.func, ast.Name)
            assert node.value.func.id in ("Artefact", "Path")
            assert all(isinstance(argument, ast.Constant) for argument in node.value.args)
            assert not node.value.keywords
        else:
            assert isinstance(node, ast.ImportFrom | ast.Expr)
            assert not isinstance(node, ast.Expr) or isinstance(node.value, ast.Constant)


def test_no_other_module_writes_such_a_path():
    names = {one.name for one in ALL.values() if "." in one.name} | {"build", "reports"}
    found = []
    rooms = ("plumbline", "stages", "monitoring", "serving", "flows")
    for path in sorted(path for room in rooms for path in (TOP / room).rglob("*.py")):
        if path == SOURCE:
            continue
        for text in texts(ast.parse(path.read_text())):
            if text in names or re.search(r"\b(build|reports)/\w", text):
                found.append(f"{path.relative_to(TOP)}: {text}")
    # What stands under the same name elsewhere: a version's folder in the registry, a site's state.
    assert [line for line in found if not line.startswith(ELSEWHERE)] == []


ELSEWHERE = (
    "plumbline/registry/folder.py: model.json",
    "plumbline/registry/folder.py: predictions.parquet",
)


def texts(tree):
    """Every string constant that is no docstring, parts of f-strings too."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_an_artefact_serves_as_a_path(tmp_path):
    one = artefacts.EVALUATION
    assert tmp_path / one == tmp_path / "build" / "evaluation.json"
    assert one.inside(tmp_path) == tmp_path / "evaluation.json"
    assert Path("build/candidates/x/model.json") == artefacts.CANDIDATES / "x" / artefacts.MODEL
    assert f"{one}" == "build/evaluation.json"
