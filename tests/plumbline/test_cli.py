"""`plumbline`: what is there, that it hands over, and that exit codes come back."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def plumbline(folder, *arguments, **environment):
    """The command as installed where it is, else as a module."""
    script = Path(sys.executable).with_name("plumbline")
    command = [str(script)] if script.is_file() else [sys.executable, "-m", "plumbline.cli"]
    path = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100", "TERM": "dumb", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_help_is_a_table_of_contents(tmp_path):
    code, out, _ = plumbline(tmp_path, "--help")
    assert code == 0
    listed = {line.split()[0] for line in out.split("Commands:")[1].splitlines() if line.strip()}
    assert listed >= {"audit", "tune", "history", "rollback", "drift", "intake", "mend", "summary", "flows"}
    assert {"serve", "training", "monitor"} <= set(plumbline(tmp_path, "flows", "--help")[1].split())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["audit", "here", "there"], 2, "here is not a folder"),
        (["summary"], 1, "leaderboard.json"),
        (["rollback"], 2, "--reason"),
        (["mend"], 1, "is no DVC project"),
        (["no-such-thing"], 2, "No such command"),
    ],
)
def test_a_mistake_is_one_sentence_and_the_exit_code_of_the_command(arguments, code, says, tmp_path):
    found, out, err = plumbline(tmp_path, *arguments)
    assert (found, says in out + err) == (code, True), out + err
    assert "Traceback" not in err


def test_history_of_a_project_without_a_registry(tmp_path):
    (tmp_path / "params.yaml").write_text((TOP / "params.yaml").read_text())
    code, out, err = plumbline(tmp_path, "history")
    assert (code, err) == (0, "")
    assert out.startswith("Nothing yet")


def test_shell_completion(tmp_path):
    words = {"_PLUMBLINE_COMPLETE": "complete_bash", "COMP_WORDS": "plumbline ro", "COMP_CWORD": "1"}
    script = Path(sys.executable).with_name("plumbline")
    if not script.is_file():
        pytest.skip("completion belongs to the installed command: make env")
    assert plumbline(tmp_path, **words)[1].split() == ["rollback"]


def test_the_version_is_the_one_of_the_code_that_runs(tmp_path):
    code, out, err = plumbline(tmp_path, "--version")
    wanted = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (code, out, err) == (0, f"plumbline {wanted}\n", "")
