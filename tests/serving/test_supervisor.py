"""Before the first worker starts, and when one keeps dying. Whole services are started by the tests over HTTP."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from plumbline.common.errors import UserError
from serving import supervisor
from serving.settings import ServingParams


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_socket_is_one_that_answers(host):
    with supervisor.open_socket(ServingParams(host=host, port=0)) as listening:
        with socket.create_connection(listening.getsockname()[:2]):
            pass
        with pytest.raises(UserError, match=r"can't be listened on .*--port"):
            supervisor.open_socket(ServingParams(host=host, port=listening.getsockname()[1]))


@pytest.mark.parametrize("host", ["x" * 70, "ü" * 70, "300.1.1.1.invalid", "192.0.2.1"])
def test_a_host_that_is_none_of_ours_is_one_sentence(host):
    with pytest.raises(UserError, match="can't be listened on"):
        supervisor.open_socket(ServingParams(host=host, port=0))


@pytest.mark.parametrize(
    ("host", "open_", "line", "said"),
    [
        ("127.0.0.1", False, None, None),
        ("0.0.0.0", False, None, "no key is asked for"),
        ("::", False, None, "no key is asked for"),
        ("0.0.0.0", True, None, None),
        ("0.0.0.0", False, "", "holds no key"),
        ("0.0.0.0", False, f"a {'0' * 64}", None),
        ("127.0.0.1", False, "", None),
        ("0.0.0.0", True, "nonsense", "line 1"),
    ],
)
def test_who_may_ask(tmp_path, host, open_, line, said):
    keys = None
    if line is not None:
        keys = tmp_path / "keys"
        keys.write_text(line)
    params = ServingParams(host=host, open=open_, keys=keys)
    if said is None:
        supervisor.check_openness(params)
    else:
        with pytest.raises(UserError, match=said):
            supervisor.check_openness(params)


@pytest.mark.parametrize(("option", "said"), [("--workers=-1", "serving.workers"), ("--port=99999", "serving.port")])
def test_an_option_out_of_range_is_one_sentence(monkeypatch, tmp_path, option, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("serving: {}\n")
    monkeypatch.setattr(sys, "argv", ["serve", option])
    with pytest.raises(UserError, match=said):
        supervisor.main()


class Dying(supervisor.Workers):
    """Real processes that end at once, in place of real workers."""

    def _start(self, number):
        return subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"])


def test_a_worker_that_keeps_dying_is_started_less_and_less_often(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with socket.socket() as listening:
        workers = Dying(ServingParams(workers=1), "plumbline", listening, tmp_path)
        pauses = []
        for _ in range(8):
            workers.look()
            process, _ = workers._running[0]
            process.wait()
            workers.look()
            assert 0 not in workers._running
            pauses.append(workers._again[0] - clock.now)
            clock.now = workers._again[0]
        assert pauses == [0.5, 1, 2, 4, 8, 10, 10, 10]
        workers.look()
        workers._running[0][0].wait()
        clock.now += supervisor.STEADY_SECONDS + 1
        workers.look()  # it lived long: started again at once
        assert workers._running[0][0].wait() == 3
        workers.stop()
    assert "worker 0 ended (3): it is started again" in capsys.readouterr().err
    for end in (workers._parent, workers._ours):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(end)


def test_a_network_of_addresses_that_is_none_is_refused_before_a_worker_starts():
    """Each worker would die of it, again and again."""
    for text in ("10.1.0.0/33", "10.1.0.1/16", "inside", ""):
        with pytest.raises(ValueError, match="url_networks"):
            ServingParams(url_networks=[text])
    assert ServingParams(url_networks=["10.1.0.0/16", "fd00::/8"]).url_networks == ["10.1.0.0/16", "fd00::/8"]
