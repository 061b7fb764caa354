"""What a worker on another machine refuses before it runs anything; test_deployed.py has the way there and back."""

import pytest
from prefect.logging import disable_run_logger

from flows import workspace
from flows.elsewhere import stage_for_another
from plumbline.common.errors import UserError

pytestmark = pytest.mark.slow


def asked(name="ingest", files=None, code=None, by="another workspace"):
    """The flow's own body, as a worker runs it."""
    with disable_run_logger():
        stage_for_another.fn(name, files or {}, code or {}, by)


def test_a_worker_needs_a_workspace_of_its_own(project):
    with pytest.raises(UserError, match="Set PLUMBLINE_WORKSPACE to a clone for this worker alone"):
        asked()


def test_the_workspace_that_asks_does_not_answer_itself(project, monkeypatch):
    monkeypatch.setenv("PLUMBLINE_WORKSPACE", str(project.root))
    with pytest.raises(UserError, match="is the workspace that asked"):
        asked(by=workspace.identity(project.root))


@pytest.mark.usefixtures("server")
def test_other_code_is_refused_before_anything_runs(project, monkeypatch):
    monkeypatch.setenv("PLUMBLINE_WORKSPACE", str(project.root))
    with pytest.raises(UserError, match=r"holds another version of work\.sh: check out the commit that runs"):
        asked(code={"work.sh": "0" * 32})
    assert project.calls("ingest") == 0
