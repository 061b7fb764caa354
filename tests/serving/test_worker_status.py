"""Is everybody well: real sockets, and workers that answer, refuse, fall silent or talk nonsense."""

import asyncio

import pytest

from serving import worker_status
from serving.problems import no_champion
from serving.worker_status import KEEPER, WorkerStatus, answer_on, ask, real_answer, worker_socket


async def seven():
    return 7


async def no_one():
    raise no_champion()


async def broken():
    raise RuntimeError("the network is gone")


def everybody(folder, *networks, keeper=None):
    """What is said of workers with these networks; None: a worker whose socket is not there."""

    async def main():
        servers = []
        for number, network in enumerate(networks):
            if network is not None:

                async def answer(network=network):
                    return await real_answer(network, {"version": None})

                servers.append(await answer_on(worker_socket(folder, number), answer))
        if keeper is not None:

            async def said():
                return keeper

            servers.append(await answer_on(folder / KEEPER, said))
        found = await WorkerStatus(folder, len(networks)).everybody()
        for server in servers:
            server.close()
        return found

    return asyncio.run(main())


def test_all_are_well(tmp_path):
    content, ready = everybody(tmp_path, seven, seven, keeper={"asked": "now"})
    assert ready
    assert (content["status"], content["version"], content["registry"]) == ("ready", 7, {"asked": "now"})
    assert "detail" not in content


@pytest.mark.parametrize("ill", [None, broken, no_one])
def test_one_that_gives_no_answer_is_enough(tmp_path, ill):
    content, ready = everybody(tmp_path, seven, ill, keeper={})
    assert not ready
    assert (content["status"], content["version"]) == ("not ready", None)
    assert content["detail"] == "1 of 2 workers give no answer."


def test_what_ails_a_worker_is_named_without_its_words(tmp_path):
    content, _ = everybody(tmp_path, broken)
    assert content["workers"][0]["trouble"] == "can't answer (RuntimeError)"


def test_where_nothing_was_promoted_the_keepers_reason_comes_first(tmp_path):
    assert "promote a model" in everybody(tmp_path, no_one, no_one, keeper={"asked": "now"})[0]["detail"]
    said = everybody(tmp_path, no_one, no_one, keeper={"trouble": "The registry is down."})[0]
    assert said["detail"] == "The registry is down."


def test_two_versions_at_once_are_no_version(tmp_path):
    async def eight():
        return 8

    content, ready = everybody(tmp_path, seven, eight)
    assert (ready, content["version"]) == (True, None)


def test_a_socket_of_a_dead_worker_is_taken_over_and_nonsense_is_no_answer(tmp_path):
    path = tmp_path / "x.sock"

    async def main():
        async def nonsense(_, writer):
            writer.write(b"{\n")
            writer.close()

        first = await asyncio.start_unix_server(nonsense, str(path))
        assert await ask(path) == {"trouble": "does not answer"}
        first.close()
        assert await ask(path) == {"trouble": "does not answer"}  # the file may be there, nobody is

        async def well():
            return {"well": True}

        second = await answer_on(path, well)
        assert await ask(path) == {"well": True}
        second.close()

    asyncio.run(main())


def test_a_network_that_is_stuck_is_said_in_time(monkeypatch):
    monkeypatch.setattr(worker_status, "PATIENCE", 1.01)

    async def stuck():
        await asyncio.sleep(60)

    said = asyncio.run(real_answer(stuck, {"pid": 1}))
    assert said == {"pid": 1, "answered": False, "trouble": "can't answer (TimeoutError)"}


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("There is no registry at /srv/a b/registry/mlflow.db: promote a model.", "mlflow.db: promote a model."),
        (
            "The registry sqlite:////srv/site/mlflow.db can't be read.",
            "The registry the registry's address can't be read.",
        ),
        ("The registry http://u:p@10.1.2.3:5000/api does not answer.", "The registry the registry's address does not"),
        ("served/7/model.onnx is missing: roll back.", "model.onnx is missing: roll back."),
        ("Promote a model first (`dvc repro`), or restore it.", "Promote a model first (`dvc repro`), or restore it."),
    ],
)
def test_who_asks_without_a_key_learns_of_no_folder_and_no_address(tmp_path, trouble, said):
    content, _ = everybody(tmp_path, seven, keeper={"trouble": trouble})
    assert said in content["registry"]["trouble"]
    for secret in ("/srv", "10.1.2.3", "u:p", "served/"):
        assert secret not in str(content)
