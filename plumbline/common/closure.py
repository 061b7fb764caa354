"""Which of this project's own files a module's result can depend on: its import closure, read from the source.

It answers four questions: which code dependencies a stage needs in dvc.yaml (`make deps`), whether they are complete
(a test), whether rows computed earlier may be used again (`featurize` and `ingest`), and which files with what content
each of the stages LISTED runs here and now (`weights` writes it).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
ASSETS = (".j2", ".css", ".js")
PATHS_ALONE = Path("plumbline/common/artefacts.py")
"""Left out of every closure: it holds only paths, which dvc.yaml names itself (tests/test_artefacts.py)."""
LISTED = (
    *("featurize", "train", "card", "disturb", "probe", "ablation"),
    *("compress", "probe_compressed", "card_compressed"),
)
"""Stages with an item for each backbone or candidate, some ninety in all. Each depends on one list of its code: sixty
files named one by one in each made a dvc.lock of 24,000 lines, which DVC reads and writes again after every item."""


def closure(module: str, top: Path = TOP) -> set[Path]:
    """Return the files, relative to `top`, that importing and running `module` ("stages.train") can read as code.

    Imports inside functions count, and so do templates, styles and scripts that a file names in a string. Imports for
    type checkers alone don't. `__init__.py` files hold only a docstring here and are left out, and so is PATHS_ALONE. A
    module chosen by name at run time (an architecture) is not found: dvc.yaml names it with the item it belongs to.
    """
    found: set[Path] = set()
    waiting = [_file_of(module, top)]
    if waiting[0] is None:
        raise ModuleNotFoundError(f"{module} is not a module of this project", name=module)
    while waiting:
        path = waiting.pop()
        if path is None or path in found:
            continue
        found.add(path)
        if path.suffix == ".py":
            waiting += _named_in(path, top)
        elif path.suffix == ".j2":
            waiting += _included_by(path, top)
    return {path for path in found if path.name != "__init__.py" and path != PATHS_ALONE}


def direct_imports(module: str, top: Path = TOP) -> set[Path]:
    """Return the project's modules that `module` itself imports, in functions too; relative to `top`."""
    path = _file_of(module, top)
    named = _named_in(path, top) if path else []
    return {other for other in named if other and other.suffix == ".py" and other.name != "__init__.py"} - {path}


@cache
def code_digest(module: str) -> str:
    """Return the sha256 of every file in the closure of `module`, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(closure(module)):
        digest.update(path.as_posix().encode() + b"\0" + (TOP / path).read_bytes() + b"\0")
    return digest.hexdigest()


def listing(module: str, top: Path = TOP) -> str:
    """Return a line for every file in the closure of `module`, sorted by path: its content's sha256, and its path."""
    digests = {path.as_posix(): hashlib.sha256((top / path).read_bytes()).hexdigest() for path in closure(module, top)}
    return "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))


@cache
def _named_in(path: Path, top: Path) -> tuple[Path | None, ...]:
    tree = ast.parse((top / path).read_text(encoding="utf-8"))
    found: list[Path | None] = []
    for node in _outside_type_checking(tree):
        if isinstance(node, ast.Import):
            found += [_file_of(alias.name, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(_file_of(node.module, top))
            found += [_file_of(f"{node.module}.{alias.name}", top) for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(ASSETS):
            found += _assets(path, node.value, top)
    return tuple(found)


def _included_by(path: Path, top: Path) -> list[Path]:
    """Templates that a template includes or extends, by name."""
    text = (top / path).read_text(encoding="utf-8")
    return [
        other.relative_to(top)
        for other in sorted((top / path.parent).glob("*.j2"))
        if other.name != path.name and f'"{other.name}"' in text
    ]


def _outside_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _outside_type_checking(child)


def _assets(path: Path, name: str, top: Path) -> list[Path]:
    folders = (path.parent, Path("plumbline/pages"))
    return [folder / name for folder in folders if (top / folder / name).is_file()][:1]


def _file_of(module: str, top: Path) -> Path | None:
    base = Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if (top / path).is_file():
            return path
    return None
