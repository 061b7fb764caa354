"""The graph is DVC's own."""

import networkx
import pytest
from dvc.repo import Repo

from flows import graph
from plumbline.common.errors import UserError

STAGES = ["data.dvc", "ingest", "features@x", "features@y", "train@p", "train@q", "train@r", "evaluate", "gate"]


@pytest.mark.slow
def test_it_is_the_graph_that_dvc_has(project):
    nodes = graph.read_graph(project.root)
    assert sorted(nodes) == sorted(STAGES)
    with Repo(str(project.root)) as repo:
        theirs = {(one.addressing, other.addressing) for one, other in repo.index.graph.edges}
    assert {(name, upstream) for name, node in nodes.items() for upstream in node.upstream} == theirs
    names = list(nodes)
    assert all(names.index(upstream) < names.index(name) for name, node in nodes.items() for upstream in node.upstream)
    assert networkx.is_directed_acyclic_graph(networkx.DiGraph(theirs))


def test_what_reads_a_folder_of_parts_can_do_without_some(project):
    nodes = graph.read_graph(project.root)
    assert nodes["evaluate"].upstream == {"train@p", "train@q", "train@r"}
    assert nodes["evaluate"].needed == frozenset()
    assert nodes["train@p"].needed == {"features@x"}
    assert nodes["data.dvc"].source


def test_a_new_stage_stands_in_its_place(project):
    path = project.root / "dvc.yaml"
    path.write_text(
        path.read_text()
        + "  card: {cmd: cp build/decision.json build/card, deps: [build/decision.json], outs: [build/card]}\n"
    )
    nodes = graph.read_graph(project.root)
    assert nodes["card"].upstream == {"gate"}


@pytest.mark.slow
def test_a_pipeline_in_a_folder_below_is_another(project):
    before, version = graph.read_graph(project.root), graph.data_version(project.root)
    inner = project.root / "detection"
    (inner / "data").mkdir(parents=True)
    (inner / "data" / "1.txt").write_text("one\n")
    project.dvc("add", "-q", "detection/data")
    (inner / "dvc.yaml").write_text("stages: {ingest: {cmd: cp data/1.txt x, deps: [data], outs: [x]}}\n")
    assert graph.read_graph(project.root) == before
    assert graph.data_version(project.root) == version
    assert graph.look(project.root).nodes == before


@pytest.mark.slow
def test_one_question_tells_all_that_changed(project):
    assert graph.changed(project.root, STAGES) == set(STAGES) - {"data.dvc"}
    project.dvc("repro", "-q")
    assert graph.changed(project.root, STAGES) == set()
    (project.root / "build" / "candidates" / "p" / "score").write_text("touched")
    assert graph.changed(project.root, STAGES) == {"train@p", "evaluate"}


@pytest.mark.slow
def test_what_rests_on_a_stage_that_will_run_is_due_with_it(built):
    nodes = graph.read_graph(built.root)
    assert graph.look(built.root).due == graph.due(built.root, nodes) == set()
    (built.root / "build" / "features" / "x").write_text("touched")
    below = {name for name, node in nodes.items() if "features@x" in node.upstream} | {"evaluate", "gate"}
    assert "train@p" in below
    assert graph.look(built.root).due == graph.due(built.root, nodes) == {"features@x", *below}
    assert graph.due(built.root, {name: nodes[name] for name in ("data.dvc", "train@p", "gate")}) == {"train@p"}


@pytest.mark.slow
def test_the_data_version_is_dvcs_hash(project):
    first = graph.data_version(project.root)
    assert first in (project.root / "data.dvc").read_text()
    (project.root / "data" / "with_helmet" / "2.txt").write_text("two\n")
    project.dvc("add", "-q", "data")
    assert graph.data_version(project.root) != first


def test_code_is_told_from_what_stages_make(built):
    project = built
    assert set(graph.outside_dependencies(project.root, "train@p")) == {"work.sh"}
    assert graph.made_dependencies(project.root, "train@p") == ["build/features/x"]


def test_a_broken_pipeline_is_one_sentence(project):
    (project.root / "dvc.yaml").write_text("stages: [\n")
    with pytest.raises(UserError, match=r"can't be used as a DVC project: .*dvc\.yaml") as error:
        graph.read_graph(project.root)
    assert "\n" not in str(error.value)


def test_a_stage_that_left_is_named(project):
    with pytest.raises(UserError, match="no stage train@x"):
        graph.changed(project.root, ["train@p", "train@x"])
