"""A stage run warm is the stage run cold: the same output, exit code and environment, and it dies with who asked."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from plumbline.common import warm
from plumbline.common.surroundings import address_here

TOP = Path(__file__).parents[3]
SHOW = """
import os, resource, subprocess, sys, time
from pathlib import Path
print("said", sys.argv[1:], os.environ["SHOWN"], os.getcwd(), flush=True)
print("warned", file=sys.stderr)
Path("pid").write_text(str(os.getpid()))
if sys.argv[1] == "wait":
    time.sleep(60)
if sys.argv[1] == "break":
    raise ValueError("broken")
if sys.argv[1] == "word":
    sys.exit("a last word")
if sys.argv[1] == "parent":
    subprocess.Popen(["sleep", "60"])
    time.sleep(60)
if sys.argv[1] == "handed down":
    umask = os.umask(0)
    affinity, limits = sorted(os.sched_getaffinity(0)), resource.getrlimit(resource.RLIMIT_NOFILE)
    print(oct(umask), affinity, os.getpriority(os.PRIO_PROCESS, 0), limits, resource.getrlimit(resource.RLIMIT_FSIZE))
if sys.argv[1] == "when told":
    while not Path("told").exists():
        time.sleep(0.02)
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


def run(workspace, *arguments, started_with=None, **more):
    return subprocess.run(
        [sys.executable, "-m", "plumbline.common.warm", "show", *arguments],
        cwd=workspace,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=started_with,
    )


def start(workspace, *arguments):
    """A stage at work in the background: who asked, and the process it runs in."""
    (workspace / "pid").unlink(missing_ok=True)
    command = [sys.executable, "-m", "plumbline.common.warm", "show", *arguments]
    client = subprocess.Popen(
        command, cwd=workspace, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: (workspace / "pid").is_file() and (workspace / "pid").read_text())
    stage = psutil.Process(int((workspace / "pid").read_text()))
    assert stage.pid != client.pid, "the stage runs in a child of the server's"
    return client, stage


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


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


def test_a_last_word_and_the_exit_code_of_who_gives_it(workspace):
    done = run(workspace, "word", "0")
    assert (done.returncode, done.stderr) == (1, "warned\na last word\n")


def test_a_stage_and_what_it_started_end_when_who_asked_is_killed(workspace):
    client, stage = start(workspace, "parent", "0")
    wait_until(stage.children)
    family = [stage, *stage.children()]
    client.kill()
    client.wait()
    wait_until(lambda: all(map(gone, family)))


def test_a_stage_goes_on_to_its_end_when_the_server_is_killed(workspace):
    """Nobody may start the same training anew in the same folder while the first is at work."""
    (workspace / "told").unlink(missing_ok=True)
    client, stage = start(workspace, "when told", "5")
    server = stage.parent().parent()
    assert "--serve" in server.cmdline()
    server.kill()
    wait_until(lambda: gone(server))
    assert client.poll() is None
    assert not gone(stage)
    (workspace / "told").touch()
    assert client.wait(30) == 5
    (workspace / "told").unlink()
    assert run(workspace, "x", "4").returncode == 4, "the next one gets another server"


def test_a_stage_ends_with_the_process_that_watches_over_it(workspace):
    client, stage = start(workspace, "wait", "0")
    stage.parent().kill()
    _, words = client.communicate(timeout=30)
    assert client.returncode == 1
    assert "error: the process of stage show was lost: run `dvc repro` again." in words
    wait_until(lambda: gone(stage))


def test_a_stage_killed_by_a_signal_says_which_by_its_exit_code(workspace):
    client, stage = start(workspace, "wait", "0")
    stage.send_signal(signal.SIGSEGV)
    assert client.wait(30) == 128 + signal.SIGSEGV


def limit_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda: os.umask(0o027),
        lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        lambda: os.nice(3),
        limit_files,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    ],
    ids=["umask", "processors", "niceness", "open files", "file size"],
)
def test_a_stage_works_under_what_who_asked_was_started_with(workspace, change):
    run(workspace, "x", "0")  # a server that was started without
    warm = run(workspace, "handed down", "0", started_with=change)
    cold = run(workspace, "handed down", "0", started_with=change, PLUMBLINE_WARM="0")
    assert warm.returncode == cold.returncode == 0, warm.stderr
    assert warm.stdout == cold.stdout != run(workspace, "handed down", "0").stdout


@pytest.mark.parametrize(
    ("idle", "cause"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os; os._exit(7)", "ended with exit code 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with exit code -9"),
    ],
    ids=["import error", "exit", "crash"],
)
def test_what_kept_the_server_from_loading_is_shown_and_the_stage_runs_by_itself(workspace, tmp_path, idle, cause):
    shutil.copytree(workspace, tmp_path / "twin")
    (tmp_path / "twin" / "stages" / "idle.py").write_text(idle)
    done = run(tmp_path / "twin", "x", "3")
    assert done.returncode == 3
    assert done.stdout == f"said ['x', '3'] yes {tmp_path / 'twin'}\n"
    assert cause in done.stderr
    assert "stage show loads TensorFlow itself: the process that was to load it" in done.stderr


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


def test_stages_share_a_server_unless_what_they_inherit_differs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = address_here()
    monkeypatch.setenv("DVC_STAGE", "train@x")
    assert address_here() == here, "the stage's name changes nothing of what it computes"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # not what some test of this process may have left there
    assert address_here() != here


def test_a_folder_that_others_can_enter_is_not_used_for_the_socket(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    address = address_here()
    assert address.parent.stat().st_mode & 0o777 == 0o700
    address.parent.chmod(0o755)
    with pytest.raises(OSError, match="is not private"):
        address_here()


def test_what_is_loaded_ahead_can_be_loaded():
    from importlib.util import find_spec

    assert [name for name in warm.PRELOADED if find_spec(name) is None] == []
