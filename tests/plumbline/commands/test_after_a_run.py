"""What a person is told after a run: what to commit, and how to see the plots without a network."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from plumbline.commands import plots, summary
from plumbline.common.errors import UserError


def git(root, *arguments):
    names = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", *names, *arguments], cwd=root, check=True, capture_output=True)


def test_what_belongs_in_git_is_named_until_it_is_there(tmp_path):
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "params.yaml").write_text("a: 1\n")
    (tmp_path / "memberships").mkdir()
    (tmp_path / "memberships" / "seed-0.csv").write_text("id\n")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    (tmp_path / "notes.txt").write_text("mine\n")
    assert summary.to_commit(tmp_path) == ["dvc.lock", "memberships", "params.yaml"], "before the first commit, too"
    git(tmp_path, "add", "params.yaml")
    git(tmp_path, "commit", "-qm", "start")
    assert summary.to_commit(tmp_path) == ["dvc.lock", "memberships"]
    git(tmp_path, "add", "dvc.lock", "memberships")
    assert summary.to_commit(tmp_path) == ["dvc.lock", "memberships"], "staged is not committed"
    git(tmp_path, "commit", "-qm", "run")
    assert summary.to_commit(tmp_path) == []
    (tmp_path / "memberships" / "seed-1.csv").write_text("id\n")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    assert summary.to_commit(tmp_path) == ["dvc.lock", "memberships"]


def test_in_a_subfolder_of_a_repository_and_without_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert summary.to_commit(tmp_path) == []
    git(tmp_path, "init", "-q")
    inside = tmp_path / "project"
    inside.mkdir()
    (inside / "dvc.lock").write_text("")
    (tmp_path / "params.yaml").write_text("not the project's\n")
    assert summary.to_commit(inside) == ["dvc.lock"]


def test_after_the_detection_pipeline_photographs_and_boxes_stand_in_place_of_candidates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "leakage.html").write_text("x")
    boxes = pd.DataFrame({"path": ["a", "a", "b"], "label": ["helmet", "head", "helmet"]})
    boxes.to_parquet("build/boxes.parquet")
    splits = pd.DataFrame({"path": ["a", "b", "c"], "group": ["g", "g", "h"], "split": ["train", "train", "test"]})
    splits.to_parquet("build/splits.parquet")
    summary.main()
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(
        "3 photographs in 2 groups, 3 boxes train: 2 photographs, 1 head, 2 helmet test: 1 photographs, no box"
    )
    assert "leakage.html" in said


def test_the_page_for_plots_carries_its_script_and_loads_nothing():
    from dvc_render.html import HTML

    drawn = HTML(plots.page("window.vegaEmbed = '</script>'")).embed()
    assert "window.vegaEmbed = '<\\/script>'" in drawn
    assert drawn.count("<script") == drawn.count("</script>") == 1
    assert "http" not in drawn


def test_without_the_package_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"pip install vl-convert-python .* reports/leaderboard\.html shows the same"):
        plots.main()
    assert list(tmp_path.iterdir()) == []
