"""Commands started the way people start them: by the interpreter's path, behind a proxy, with a server that is away."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from prefect.settings import PREFECT_API_URL

from plumbline.common.errors import prepare_environment

pytestmark = pytest.mark.slow

COMMANDS = {
    "flows.training": [],
    "flows.intake": ["batch"],
    "flows.monitoring": ["SITE_A"],
    "flows.keeper": [],
    "flows.setup": [],
}


def bare(**more):
    """Return an environment as a desktop's launcher or cron has it, with a proxy that leads nowhere."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    kept.pop("PREFECT_API_URL", None)
    return {
        **kept,
        "PATH": "/usr/bin:/bin",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        **more,
    }


def start(module, arguments, root, **more):
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=root, env=bare(**more), capture_output=True, text=True, check=False)


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return value


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.usefixtures("server")
def test_stages_find_python_without_this_environment_on_the_path(built):
    project = built
    project.change("ingest")
    project.misbehave("ingest", "python -c 'import sys; print(sys.prefix)' > ../prefix; dvc --version")
    done = start("flows.training", [], project.root, PREFECT_API_URL=PREFECT_API_URL.value())
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.root.parent / "prefix").read_text().strip() == sys.prefix


@pytest.mark.usefixtures("server")
def test_git_hooks_of_dvc_find_it_too(built):
    """`dvc install` makes Git call `dvc` after a checkout or merge, which intake does."""
    project = built
    project.sh(sys.executable, "-m", "dvc", "install")
    done = start("flows.training", [], project.root, PREFECT_API_URL=PREFECT_API_URL.value())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "dropped"),
    [
        ({"HTTP_PROXY": "http://127.0.0.1:9"}, False),
        ({"https_proxy": "proxy.example:3128"}, False),
        ({"ALL_PROXY": "socks5://user:secret@127.0.0.1:9"}, True),
        ({"all_proxy": "socks://127.0.0.1:9"}, True),
        ({"HTTPS_PROXY": "ftp://127.0.0.1:9"}, True),
        ({"NO_PROXY": "[::1],intern.example"}, False),
    ],
)
def test_a_proxy_of_any_kind_leaves_prefects_client_at_work(given, dropped, monkeypatch, capsys):
    import httpx

    monkeypatch.setattr("plumbline.common.errors.find_spec", lambda _: None)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    env = dict(os.environ)
    prepare_environment(env)
    for name in given:
        monkeypatch.delenv(name)
    for name in [name for name in env if name.lower().endswith("_proxy")]:
        monkeypatch.setenv(name, env[name])
    httpx.Client().close()
    (name,) = given
    told = capsys.readouterr().err
    assert (name not in env) == dropped == (f"{name} names a proxy of the kind" in told)
    assert "secret" not in told


def test_the_way_to_this_machine_has_no_proxy(monkeypatch):
    from urllib.request import proxy_bypass_environment

    for given in ({}, {"NO_PROXY": "intern.example"}, {"no_proxy": "intern.example", "NO_PROXY": "other.example"}):
        env = {"PATH": "/usr/bin", **given}
        prepare_environment(env)
        prepare_environment(env)
        assert env["PATH"].split(os.pathsep) == [os.path.dirname(sys.executable), "/usr/bin"]
        assert env["NO_PROXY"] == env["no_proxy"]
        listed = env["NO_PROXY"].split(",")
        assert {"127.0.0.1", "localhost", "::1", *given.values()} == set(listed)
        assert len(listed) == len(set(listed))
    everything = {"PATH": "/usr/bin", "NO_PROXY": "*"}
    prepare_environment(everything)
    assert everything["NO_PROXY"] == "*"
    assert proxy_bypass_environment("anywhere.example", {"no": everything["NO_PROXY"]})


@pytest.mark.parametrize("module", COMMANDS)
def test_a_dead_server_is_one_sentence(project, module):
    done = start(module, COMMANDS[module], project.root, PREFECT_API_URL="http://user:secret@127.0.0.1:9/api")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: PREFECT_API_URL=http://127.0.0.1:9/api: no Prefect server can be used there (")
    assert "secret" not in line


@pytest.mark.parametrize("url", ["http://nowhere.invalid/api", "127.0.0.1:4200", "file:///etc/passwd"])
def test_an_address_that_is_none_is_one_sentence(project, url):
    done = start("flows.keeper", [], project.root, PREFECT_API_URL=url)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith("error: PREFECT_API_URL")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<p>hi</p>",
        b"",
        b"nonsense\r\n\r\n",
    ],
)
def test_another_program_on_that_port_is_one_sentence(project, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        command = [sys.executable, "-m", "flows.keeper"]
        asked = subprocess.Popen(
            command, cwd=project.root, env=bare(PREFECT_API_URL=url), stderr=subprocess.PIPE, text=True
        )
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
        said = asked.communicate(timeout=60)[1]
    assert (asked.returncode, len(said.splitlines())) == (1, 1), said
    assert said.startswith(f"error: PREFECT_API_URL={url}: no Prefect server")


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, None])
def test_the_temporary_server_goes_with_the_run(built, tmp_path, sign):
    """Killed, ended or finished by itself: no server is left."""
    project = built
    project.change("ingest")
    if sign:
        project.misbehave("ingest", "touch ../begun; sleep 300")
    env = bare(PREFECT_HOME=str(tmp_path / "home"))
    command = [sys.executable, "-m", "flows.training"]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(command, cwd=project.root, env=env, stdout=log, stderr=log)
    found = wait_until(lambda: servers(run.pid) or run.poll() is not None, 120)
    assert found is not True, (tmp_path / "log").read_text()
    if sign:
        wait_until((project.root.parent / "begun").exists, 180)
        run.send_signal(sign)
    run.wait(180)
    wait_until(lambda: all(map(gone, found)), 30)
    if not sign:
        assert run.returncode == 0, (tmp_path / "log").read_text()


def servers(pid):
    try:
        below = psutil.Process(pid).children(recursive=True)
        return [one for one in below if "prefect.server.api.server:create_app" in one.cmdline()]
    except psutil.Error:
        return []
