"""The stage graph, read from DVC itself; nothing here knows a stage by name."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.common.errors import UserError, first_line

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage

# DVC's objects in one process share a state database and lock files: one question at a time.
_asking = threading.Lock()


@dataclass(frozen=True)
class Node:
    """A stage of dvc.yaml, or a tracked data source (.dvc file).

    `name` is what `dvc repro -s` takes. `needed` are the upstream nodes it can't do without; those only in `upstream`
    may fail: the stage reads a folder to which several stages contribute, and uses the parts that exist.
    """

    name: str
    upstream: frozenset[str]
    needed: frozenset[str]
    source: bool
    outs: tuple[str, ...]

    @property
    def group(self) -> str:
        """`train` for `train@vgg16`."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class Outlook:
    """What DVC knows of a project at one moment: its `nodes`, which of them are `due`, the data's version."""

    nodes: dict[str, Node]
    due: set[str]
    data_version: str


def look(root: Path) -> Outlook:
    """Ask DVC for all of it at once: opening a project costs more than any one question."""
    with _repo(root) as repo, repo.lock:
        nodes = _read(repo, root)
        return Outlook(nodes, _due(repo, root, nodes), _data_version(repo, root))


def read_graph(root: Path) -> dict[str, Node]:
    """Return every stage of the pipeline at `root` and the data sources they rest on, dependencies first.

    Pipelines in folders below, such as detection/, are others'.

    Raises UserError with DVC's own words where the folder is no DVC project or its files can't be read.
    """
    with _repo(root) as repo:
        return _read(repo, root)


def _read(repo: Repo, root: Path) -> dict[str, Node]:
    import networkx

    graph = repo.index.graph
    wanted = {stage for stage in graph if _is_own(stage, root)}
    wanted |= {ancestor for stage in wanted for ancestor in networkx.descendants(graph, stage)}
    # Edges point from a stage to what it depends on.
    ordered = reversed(list(networkx.lexicographical_topological_sort(graph.subgraph(wanted), key=_address(root))))
    return {node.name: node for node in (_node(stage, list(graph.successors(stage)), root) for stage in ordered)}


def changed(root: Path, names: Iterable[str]) -> set[str]:
    """Return those of `names` that `dvc repro` would run now, taking the workspace as it lies.

    Asking once for all costs as much as starting DVC for one.
    """
    with _repo(root) as repo, repo.lock:
        return _changed(repo, root, names)


def _changed(repo: Repo, root: Path, names: Iterable[str]) -> set[str]:
    return {name for name, stage in _find(repo, root, names).items() if stage.changed()}


def due(root: Path, nodes: Mapping[str, Node]) -> set[str]:
    """Return those of `nodes`, dependencies first, that `dvc repro` would run, and all that rests on one of them.

    The latter is not asked about: what such a stage reads is about to change, so it has to be asked about then.
    """
    with _repo(root) as repo, repo.lock:
        return _due(repo, root, nodes)


def _due(repo: Repo, root: Path, nodes: Mapping[str, Node]) -> set[str]:
    found: set[str] = set()
    for name, stage in _find(repo, root, nodes).items():
        if nodes[name].upstream & found or stage.changed():
            found.add(name)
    return found


def data_version(root: Path) -> str:
    """Return the tracked data's version, the first seven digits of DVC's hashes joined by `+`; `none` without data."""
    with _repo(root) as repo:
        return _data_version(repo, root)


def _data_version(repo: Repo, root: Path) -> str:
    sources = sorted((stage for stage in repo.index.stages if stage.is_data_source), key=_address(root))
    graph = repo.index.graph
    used = {other for stage in graph if _is_own(stage, root) for other in graph.successors(stage)}
    hashes = [
        str(out.hash_info.value)[:7] for stage in sources if stage in used for out in stage.outs if out.hash_info.value
    ]
    return "+".join(hashes) or "none"


def outside_dependencies(root: Path, name: str) -> dict[str, str]:
    """Return path -> hash of the inputs of stage `name` that no stage makes: its code, as it is in the workspace."""
    from dvc.dependency import ParamsDependency

    with _repo(root) as repo, repo.lock:
        stage = _find(repo, root, [name])[name]
        made = [out.fs_path for other in repo.index.stages for out in other.outs]
        return {
            dep.def_path: str(dep.get_hash().value)
            for dep in stage.deps
            if not isinstance(dep, ParamsDependency)
            and dep.exists
            and not any(_overlap(dep.fs_path, out) for out in made)
        }


def made_dependencies(root: Path, name: str) -> list[str]:
    """Return the paths that stage `name` reads and other stages or data sources make."""
    with _repo(root) as repo:
        stage = _find(repo, root, [name])[name]
        made = [out.fs_path for other in repo.index.stages for out in other.outs]
        return [dep.def_path for dep in stage.deps if any(_overlap(dep.fs_path, out) for out in made)]


def local_config(root: Path) -> str:
    """Return a .dvc/config.local for another worktree of this project: this cache and its links, these remotes."""
    import configparser
    import io

    with _repo(root) as repo:
        config = configparser.ConfigParser()
        config["cache"] = {"dir": str(repo.cache.local_cache_dir)}
        if types := repo.config["cache"].get("type"):
            config["cache"]["type"] = ",".join(types)
        for name, remote in repo.config["remote"].items():
            config[f"'remote \"{name}\"'"] = {key: str(value) for key, value in remote.items()}
    text = io.StringIO()
    config.write(text)
    return text.getvalue()


@contextmanager
def _repo(root: Path) -> Iterator[Repo]:
    """Open a DVC repository, waiting for its lock where that is taken; DVC's errors become one sentence."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with _asking:
        try:
            with Repo(str(root), _wait_for_lock=True) as repo:
                yield repo
        except DvcException as error:
            raise UserError(f"{root} can't be used as a DVC project: {first_line(error)}.") from None


def _is_own(stage: Stage, root: Path) -> bool:
    """Is it a stage of the dvc.yaml at `root`?"""
    return not stage.is_data_source and os.path.relpath(stage.path, root) == "dvc.yaml"


def _find(repo: Repo, root: Path, names: Iterable[str]) -> dict[str, Stage]:
    """The stages of these names, from files parsed once: `repo.stage.collect` parses dvc.lock again for every one."""
    address = _address(root)
    known = {address(stage): stage for stage in repo.index.stages}
    try:
        return {name: known[name] for name in names}
    except KeyError as error:
        raise UserError(f"{root} has no stage {error.args[0]}: DVC finds it in no dvc.yaml or .dvc file.") from None


def _node(stage: Stage, upstream: list[Stage], root: Path) -> Node:
    address = _address(root)
    return Node(
        name=address(stage),
        upstream=frozenset(map(address, upstream)),
        needed=frozenset(address(other) for other in upstream if not _only_parts(stage, other)),
        source=bool(stage.is_data_source),
        outs=tuple(os.path.relpath(out.fs_path, root) for out in stage.outs),
    )


def _only_parts(stage: Stage, other: Stage) -> bool:
    """Does `stage` read what `other` makes only as part of a larger folder?"""
    reads = [
        (dep.fs_path, out.fs_path) for dep in stage.deps for out in other.outs if _overlap(dep.fs_path, out.fs_path)
    ]
    return bool(reads) and all(_is_above(dep, out) for dep, out in reads)


def _overlap(one: str, other: str) -> bool:
    return one == other or _is_above(one, other) or _is_above(other, one)


def _is_above(one: str, other: str) -> bool:
    return other.startswith(one.rstrip(os.sep) + os.sep)


def _address(root: Path) -> Any:
    """Return the function from a stage to its name relative to `root`, as the command line of DVC takes it there."""

    def address(stage: Stage) -> str:
        path = os.path.relpath(stage.path, root)
        name = getattr(stage, "name", None)
        if name is None:
            return path
        return str(name) if path == "dvc.yaml" else f"{path}:{name}"

    return address
