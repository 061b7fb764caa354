"""dvc.yaml's code dependencies are rewritten from the imports, and nothing else of the file is."""

from pathlib import Path

import pytest

from plumbline.commands import deps
from plumbline.common.errors import UserError

TOP = Path(__file__).resolve().parents[3]
YAML = """\
# a note

stages:
  draw: # another
    cmd: python -m stages.draw
    deps:
      - build/splits.parquet
      - plumbline/old.py
    outs:
      - build/drawing

  other:
    cmd: true
    deps: [data]

plots:
  - build/plots
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    files = {
        "stages/__init__.py": "",
        "stages/draw.py": "from plumbline.common import paper\n\ndef main():\n    from plumbline.models import pen\n",
        "plumbline/__init__.py": "",
        "plumbline/common/__init__.py": "",
        "plumbline/common/paper.py": "",
        "plumbline/models/__init__.py": "",
        "plumbline/models/pen.py": "",
        "dvc.yaml": YAML,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_is_replaced_and_the_rest_stays(project):
    assert deps.with_code_deps(YAML, project) == YAML.replace(
        "      - plumbline/old.py\n",
        "      - plumbline/common\n      - plumbline/models\n      - stages/draw.py\n",
    )


def test_a_dear_stage_names_single_files(project, monkeypatch):
    monkeypatch.setattr(deps, "DEAR", {"draw"})
    assert "      - plumbline/models/pen.py\n" in deps.with_code_deps(YAML, project)
    monkeypatch.setattr(deps, "DEAR", set())
    monkeypatch.setattr(deps, "EARLY", {"draw"})
    found = deps.with_code_deps(YAML, project)
    assert "      - plumbline/common\n      - plumbline/models/pen.py\n" in found


def test_code_that_is_chosen_by_name_comes_last(project, monkeypatch):
    monkeypatch.setattr(deps, "CHOSEN", {"draw": ["plumbline/models/${item.pen}.py"]})
    assert "      - stages/draw.py\n      - plumbline/models/${item.pen}.py\n" in deps.with_code_deps(YAML, project)


def test_the_command_writes_once(project, capsys):
    deps.main()
    written = (project / "dvc.yaml").read_text()
    assert written == deps.with_code_deps(YAML, project)
    assert "see `git diff dvc.yaml`" in capsys.readouterr().err
    deps.main()
    assert (project / "dvc.yaml").read_text() == written
    assert "every stage names the code that it runs" in capsys.readouterr().err


def test_what_cannot_be_rewritten_is_a_sentence(project, monkeypatch):
    with pytest.raises(UserError, match="stage draw has no line `deps:`"):
        deps.with_code_deps(YAML.replace("    deps:\n      - build", "    deps: [x]\n      - build"), project)
    (project / "dvc.yaml").unlink()
    with pytest.raises(UserError, match=r"dvc\.yaml is missing: run this in the project's top folder"):
        deps.main()


def test_a_pipeline_in_a_folder_names_code_above_it(project):
    text = YAML.replace("- plumbline/old.py", "- ../plumbline/old.py")
    written = deps.with_code_deps(text, project, Path("detection/dvc.yaml"))
    assert "      - build/splits.parquet\n      - ../plumbline/common\n      - ../plumbline/models\n" in written
    assert "old.py" not in written


@pytest.mark.parametrize("file", deps.PIPELINES, ids=str)
def test_this_projects_own_files_are_up_to_date(file):
    text = (TOP / file).read_text()
    assert deps.with_code_deps(text, TOP, file) == text, "run `make deps`"
