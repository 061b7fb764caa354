"""A stage run warm is the stage run cold: the same output, exit code and environment, and it dies with who asked."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent.parent
SHOW = """
import os, sys, time
from pathlib import Path
print("said", sys.argv[1:], os.environ["SHOWN"], os.getcwd(), flush=True)
print("warned", file=sys.stderr)
Path("pid").write_text(str(os.getpid()))
if sys.argv[1] == "wait":
    time.sleep(60)
if sys.argv[1] == "break":
    raise ValueError("broken")
if __name__ == "__main__":
    sys.exit(int(sys.argv[2]))
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux' pidfd")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The real plumbline/common/warm.py beside a stage that only says what it was given; nothing heavy is imported."""
    top = tmp_path_factory.mktemp("warm")
    (top / "stages").mkdir()
    (top / "stages" / "__init__.py").touch()
    shutil.copytree(TOP / "plumbline" / "common", top / "plumbline" / "common")
    (top / "plumbline" / "__init__.py").touch()
    warm = top / "plumbline" / "common" / "warm.py"
    source = warm.read_text()
    start, end = source.index("PRELOADED = ("), source.index(")\n", source.index("PRELOADED = ("))
    warm.write_text(f'{source[:start]}PRELOADED = ("stages.idle",{source[end:]}')
    (top / "stages" / "idle.py").write_text("")
    (top / "stages" / "show.py").write_text(SHOW)
    return top


def environment(**more):
    return {**os.environ, "SHOWN": "yes", "TMPDIR": "/tmp", **more}


def run(workspace, *arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "plumbline.common.warm", "show", *arguments],
        cwd=workspace,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("warm", ["1", "0"])
def test_output_exit_code_and_environment_are_the_stages_own(workspace, warm):
    done = run(workspace, "x", "3", PLUMBLINE_WARM=warm)
    assert done.returncode == 3
    assert done.stdout == f"said ['x', '3'] yes {workspace}\n"
    assert done.stderr == "warned\n"


def test_stages_share_the_server_and_nothing_else(workspace):
    before = run(workspace, "x", "0").stdout, (workspace / "pid").read_text()
    after = run(workspace, "x", "0").stdout, (workspace / "pid").read_text()
    assert before[0] == after[0]
    assert before[1] != after[1], "each stage is a process of its own"


def test_a_folder_deleted_and_made_again_is_worked_in_anew(workspace, tmp_path):
    shutil.copytree(workspace, tmp_path / "kept")
    for _ in range(2):  # the second time the same server is asked, whose own folder is gone
        shutil.rmtree(tmp_path / "twin", ignore_errors=True)
        shutil.copytree(tmp_path / "kept", tmp_path / "twin")
        (tmp_path / "twin" / "pid").unlink(missing_ok=True)
        assert run(tmp_path / "twin", "x", "0").stdout == f"said ['x', '0'] yes {tmp_path / 'twin'}\n"
        assert (tmp_path / "twin" / "pid").exists()


def test_an_exception_is_shown_and_fails(workspace):
    done = run(workspace, "break", "0")
    assert done.returncode == 1
    assert "ValueError: broken" in done.stderr


def test_a_stage_ends_when_who_asked_is_killed(workspace):
    (workspace / "pid").unlink(missing_ok=True)
    command = [sys.executable, "-m", "plumbline.common.warm", "show", "wait", "0"]
    client = subprocess.Popen(command, cwd=workspace, env=environment(), stdout=subprocess.DEVNULL)
    wait_until(lambda: (workspace / "pid").is_file() and (workspace / "pid").read_text())
    stage = int((workspace / "pid").read_text())
    assert stage != client.pid, "the stage ran in a child of the server"
    client.kill()
    client.wait()
    wait_until(lambda: not Path(f"/proc/{stage}").exists())


def test_changed_code_is_never_run_by_an_old_server(workspace):
    run(workspace, "x", "0")
    show = workspace / "stages" / "show.py"
    show.write_text(SHOW.replace('print("said"', 'print("changed"'))
    try:
        assert run(workspace, "x", "0").stdout.startswith("changed")
    finally:
        show.write_text(SHOW)


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
