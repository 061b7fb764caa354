"""A DVC command in a flow: how it ends, what it is watched for, and what stops it."""

import pytest
from prefect import flow

from flows.children import guarded
from flows.command import run_dvc
from flows.outcomes import StageFailed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


def within_a_flow(root, *command, watch=None):
    """What `run_dvc` returns or raises inside a Prefect run."""

    @flow(name="command", persist_result=False)
    def once():
        with guarded() as children:
            state = run_dvc("ingest", list(command), root, children, watch)
        return state.name, state.message

    return once()


def test_a_stage_runs_and_the_lines_are_watched(project):
    lines = []
    assert within_a_flow(project.root, "repro", "-s", "ingest", watch=lines.append) == ("Completed", "Done.")
    assert (project.root / "build/manifest").read_text() == "one\n"
    assert any("Running stage 'ingest'" in line for line in lines)
    assert project.calls("ingest") == 1
    assert (project.root / ".dvc/tmp/plumbline-dvc.lock").read_text() == (project.root / "dvc.lock").read_text()


def test_a_result_in_dvcs_cache_is_restored(built):
    before = built.calls("ingest")
    (built.root / "build/manifest").unlink()
    assert within_a_flow(built.root, "repro", "-s", "ingest")[0] == "Restored"
    assert built.calls("ingest") == before
    assert (built.root / "build/manifest").read_text() == "one\n"


def test_a_failure_has_the_stages_own_words(project):
    project.misbehave("ingest", "echo 'error: data/1.txt is odd: correct it.' >&2; exit 1")
    with pytest.raises(StageFailed, match=r"ingest: data/1\.txt is odd: correct it\."):
        within_a_flow(project.root, "repro", "-s", "ingest")


def test_whoever_watches_can_end_the_command(project):
    def refuse(line):
        if line.startswith("Running stage"):
            raise StageFailed("not here")

    with pytest.raises(StageFailed, match="not here"):
        within_a_flow(project.root, "repro", "-s", "ingest", watch=refuse)
    assert not (project.root / "build/manifest").exists()
