"""The house's rules: imports run downwards, stages are leaves, and dvc.yaml names all the code that a stage runs."""

import ast
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import networkx
import pytest
import yaml

from plumbline.commands.deps import PIPELINES, module_of
from plumbline.common import artefacts
from plumbline.common.closure import LISTED, closure, code_digest, direct_imports, listing

TOP = Path(__file__).resolve().parents[1]
ROOMS = ("plumbline", "stages", "monitoring", "serving")


def stages(pipeline):
    """Each stage of a dvc.yaml with its module and its deps from the top, one entry for a group of `foreach`."""
    up = "../" * len(pipeline.parent.parts)
    for name, stage in yaml.safe_load((TOP / pipeline).read_text())["stages"].items():
        one = stage.get("do", stage)
        module = re.search(r"-m (\S+)(?: (\w+))?", one["cmd"])
        runs = f"stages.{module[2]}" if module[1] == "plumbline.common.warm" else module[1]
        of_code = (up, f"{artefacts.CODE}/")
        yield name, runs, [dep.removeprefix(up) for dep in one["deps"] if dep.startswith(of_code)]


STAGES = [(str(pipeline), *stage) for pipeline in PIPELINES for stage in stages(pipeline)]


def missing(module, deps, top=TOP):
    """The files that `module` runs and `deps` do not name: one by one, by their folder, or by the list of them all."""
    if f"{artefacts.CODE}/{module.removeprefix('stages.')}.txt" in deps:
        return []
    named = [Path(dep) for dep in deps if "$" not in dep]
    return sorted(
        path.as_posix() for path in closure(module, top) if not any(path == dep or dep in path.parents for dep in named)
    )


@pytest.mark.parametrize(
    ("pipeline", "name", "module", "deps"), STAGES, ids=[f"{pipeline}:{name}" for pipeline, name, _, _ in STAGES]
)
def test_a_stage_depends_on_all_the_code_that_it_runs(pipeline, name, module, deps):
    assert module == f"stages.{module_of(name)}"
    assert missing(module, deps) == [], f"{pipeline}: {name} runs this code and does not depend on it"


def test_a_stage_depends_on_no_code_that_is_not_there():
    for pipeline, name, _, deps in STAGES:
        for dep in deps:
            if "$" not in dep and dep.split("/")[0] in ROOMS:
                assert (TOP / dep).exists(), f"{pipeline}: {name} depends on {dep}"


def test_a_dependency_that_is_left_out_is_found():
    deps = next(deps for _, name, _, deps in STAGES if name == "weights")
    without = [dep for dep in deps if dep != "plumbline/imaging/decode.py"]
    assert len(without) == len(deps) - 1
    assert missing("stages.weights", without) == ["plumbline/imaging/decode.py"]
    deps = next(deps for _, name, _, deps in STAGES if name == "featurize")
    without = [dep for dep in deps if dep != "build/code/featurize.txt"]
    assert "plumbline/imaging/decode.py" in missing("stages.featurize", without)


def test_the_list_of_a_stages_code_changes_with_the_code_that_it_runs_and_with_no_other(project):
    before = listing("stages.draw", project)
    lines = [line.split("  ") for line in before.splitlines()]
    assert {Path(name) for _, name in lines} == closure("stages.draw", project)
    assert all(hashlib.sha256((project / name).read_bytes()).hexdigest() == digest for digest, name in lines)
    (project / "plumbline/types.py").write_text("OTHER = 1\n")
    assert listing("stages.draw", project) == before
    (project / "plumbline/page.css").write_text("body {}")
    assert listing("stages.draw", project) != before


def test_stages_with_many_items_depend_on_the_list_of_their_code():
    items = yaml.safe_load((TOP / "dvc.yaml").read_text())["stages"]
    assert set(LISTED) == {module_of(name) for name, stage in items.items() if "foreach" in stage}


@pytest.fixture
def project(tmp_path):
    """A module with an import in a function, one for type checkers alone, and a page with its style."""
    files = {
        "stages/__init__.py": "",
        "stages/draw.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import plumbline.types\n\n"
        "def main():\n    from plumbline import paper\n",
        "plumbline/__init__.py": "",
        "plumbline/paper.py": 'PAGE, STYLE = "page.html.j2", "page.css"\n',
        "plumbline/types.py": "",
        "plumbline/page.html.j2": '{% include "part.j2" %}',
        "plumbline/part.j2": "",
        "plumbline/page.css": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_closure_sees_imports_in_functions_templates_and_styles(project):
    found = {path.as_posix() for path in closure("stages.draw", project)}
    assert found == {
        "stages/draw.py",
        "plumbline/paper.py",
        "plumbline/page.html.j2",
        "plumbline/part.j2",
        "plumbline/page.css",
    }


def test_rows_of_other_code_are_not_taken_over():
    """What features depend on is the closure of what makes them: how a box is cut out of a photograph as well."""
    assert Path("plumbline/imaging/decode.py") in closure("plumbline.models.extraction")
    assert any(
        path.parent.name == "imaging" and "yolo" in (TOP / path).read_text() for path in closure("stages.featurize")
    )
    assert code_digest("plumbline.models.extraction") != code_digest("plumbline.imaging.manifest")


def test_packages_hold_nothing_but_a_docstring():
    """The closure leaves `__init__.py` out, so there must be nothing in it that could matter."""
    for room in ROOMS:
        for path in (TOP / room).rglob("__init__.py"):
            body = ast.parse(path.read_text()).body
            assert len(body) == 1, path
            assert isinstance(body[0], ast.Expr), path


def test_stages_are_those_of_dvc_yaml_and_nothing_else():
    files = {path.stem for path in (TOP / "stages").iterdir() if path.suffix == ".py"} - {"__init__"}
    assert files == {module_of(name) for _, name, _, _ in STAGES}
    assert not [path for path in (TOP / "stages").iterdir() if path.is_dir() and path.name != "__pycache__"]


def test_imports_run_downwards():
    """The contracts of import-linter in pyproject.toml."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_module_imports_itself_by_way_of_others():
    graph = networkx.DiGraph()
    for room in (*ROOMS, "flows"):
        for path in (TOP / room).rglob("*.py"):
            module = ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")
            graph.add_edges_from((path.relative_to(TOP), other) for other in direct_imports(module, TOP))
    assert list(networkx.simple_cycles(graph)) == []


WITHOUT_A_TEST_OF_ITS_OWN = {
    "plumbline.imaging.layouts.interface": "a protocol: mypy checks that every layout keeps it",
    "monitoring.result": "types of plain data: mypy checks who makes and reads it",
}
"""Modules that no test imports, each with the reason."""
ARCHITECTURES = "plumbline.models.architectures."
DETECTORS = "plumbline.models.detectors."


def modules():
    """Every module of this project's code."""
    for room in (*ROOMS, "flows"):
        for path in sorted((TOP / room).rglob("*.py")):
            if path.name != "__init__.py":
                yield ".".join(path.relative_to(TOP).with_suffix("").parts)


def imported_by_tests():
    """The modules that a file in tests/ imports, and architectures and detectors: a test builds all of them by name."""
    found = {name for name in modules() if name.startswith((ARCHITECTURES, DETECTORS))}
    for path in sorted((TOP / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_module_has_a_direct_test():
    tested = imported_by_tests()
    missing = [name for name in modules() if name not in tested and name not in WITHOUT_A_TEST_OF_ITS_OWN]
    assert missing == [], "no file in tests/ imports these: write a test that does, beside those of its room"


def test_no_reason_is_kept_for_a_module_that_is_tested_or_gone():
    reasons = set(WITHOUT_A_TEST_OF_ITS_OWN)
    assert reasons - set(modules()) == set()
    assert reasons & imported_by_tests() == set()


def in_git():
    """Every file that Git knows, and every folder that holds one."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True, check=True)
    files = [Path(name) for name in done.stdout.split("\0") if name]
    return {path.as_posix() for file in files for path in (file, *file.parents)}


def links(text):
    """The addresses in a page's links and pictures, in Markdown or HTML, that are not in a block of code."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(\s*<?([^)\s>]+)|^\[[^\]]+\]:\s*(\S+)|(?:href|src)=\"([^\"]+)", text, re.MULTILINE)
    return ["".join(one) for one in found]


def broken(page, text, known):
    """The links of `text` to a file beside it that is not in `known`."""
    for link in links(text):
        target = link.split("#")[0]
        if target and not re.match(r"[a-z]+:", target) and os.path.normpath(page.parent / target) not in known:
            yield f"{page}: {link}"


def pages():
    """What people read in the repository, with its text: Markdown, and the prose of notebooks."""
    for path in [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").rglob("*.md"))]:
        yield path.relative_to(TOP), path.read_text()
    for path in sorted((TOP / "docs").rglob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        yield path.relative_to(TOP), "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_links_lead_to_files_in_git():
    known = in_git()
    assert [link for page, text in pages() for link in broken(page, text, known)] == []


def test_a_link_that_leads_nowhere_is_found():
    text = (
        '[a](b.md) [c](../d.md#e) ![f](<g.png>) [h](https://i) [j](#k) <img src="l.png">\n[m]: n.md\n`[o](p.md)`\n'
        "```\n[q](r.md)\n```\n[s](../t)\n"
    )
    known = {"docs", "docs/b.md", "t"}
    assert list(broken(Path("docs/page.md"), text, known)) == [
        f"docs/page.md: {link}" for link in ("../d.md#e", "g.png", "l.png", "n.md")
    ]


def test_notebooks_are_kept_without_what_they_said():
    for path in (TOP / "docs").rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        for cell in notebook.cells:
            assert not re.fullmatch(r"[0-9a-f]{8}", cell.id), f"{path}: give the cell {cell.id} a name"
            if cell.cell_type == "code":
                assert (cell.outputs, cell.execution_count) == ([], None), f"{path}: clear the outputs of {cell.id}"


def test_no_two_files_of_tests_have_one_name():
    """Pytest imports them by their bare names: of two, one would not run."""
    names = [path.name for path in (TOP / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
