"""Write the code that each stage runs into its `deps` in every dvc.yaml: `make deps`, after a change of imports.

What a stage runs is the import closure of its module (plumbline.common.closure), and tests/test_house.py fails where
`deps` lack some of it. Whole rooms are named where a run costs little, single files where it is dear, and one list of
them (build/code/STAGE.txt, which stage `weights` writes on every run) by stages with an item for each candidate.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from plumbline.common import artefacts
from plumbline.common.closure import LISTED, closure
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_text

DVC_YAML = Path("dvc.yaml")
PIPELINES = (DVC_YAML, Path("detection/dvc.yaml"))
"""Each pipeline runs in its own folder, so it names code above that with ../."""
DEAR = {"weights", "maps", "detector"}
"""Stages that take minutes, or that such stages wait for: a change elsewhere in a room must not run them again."""
EARLY = {"validate", "group", "split", "leakage"}
"""Stages before any training: of these rooms they depend on single files, not on every architecture."""
LATE_ROOMS = ("plumbline/models/", "plumbline/tasks/")
CHOSEN = {
    "train": ["plumbline/models/architectures/${item.architecture}.py"],
    "detector": [
        "plumbline/models/architectures/se_resnet.py",
        "plumbline/models/detectors/${item.architecture}.py",
        "plumbline/models/overlaps.py",
    ],
}
"""Code that a stage chooses by a name in params.yaml, and what that stands on, which no import shows."""
_CODE = re.compile(rf"(\.\./)*(plumbline|stages|monitoring)\b|{artefacts.CODE}\b")
_STAGE = re.compile(r"(?m)^(?=  [a-z_]+:)")


def code_deps(stage: str, files: Iterable[Path]) -> list[str]:
    """Return what stage `stage` has to name of the `files` that it runs: files, their rooms, or the list of them."""
    named = {_named(stage, path.as_posix()) for path in files}
    if stage in LISTED:
        named = {f"{artefacts.CODE}/{stage}.txt"}
    return [*sorted(named), *CHOSEN.get(stage, [])]


def _named(stage: str, file: str) -> str:
    first, second = file.split("/")[:2]
    if first == "stages":
        return file
    if first != "plumbline":
        return first
    alone = stage in DEAR or (stage in EARLY and file.startswith(LATE_ROOMS))
    return file if alone else f"{first}/{second}"


def with_code_deps(text: str, top: Path = Path(), file: Path = DVC_YAML) -> str:
    """Return the text of a dvc.yaml with the code in every stage's `deps` as it is now; all else stays as it is.

    Args:
        text: of the pipeline `file`.
        top: the project's top folder.
        file: where the pipeline lies, from there.

    Raises UserError where a stage has no `deps` as a list of lines.
    """
    head, mark, rest = text.partition("\nstages:\n")
    if not mark:
        head, mark, rest = "", "stages:\n", text.removeprefix("stages:\n")
    body, plots, tail = rest.partition("\nplots:\n")
    blocks = [_rewritten(block, top, file) if block.startswith("  ") else block for block in _STAGE.split(body)]
    return head + mark + "".join(blocks) + plots + tail


def _rewritten(block: str, top: Path, file: Path) -> str:
    stage = module_of(block.strip().partition(":")[0])
    if not (top / "stages" / f"{stage}.py").is_file():
        return block
    lines = block.split("\n")
    start = next((number for number, line in enumerate(lines) if line.strip() == "deps:"), None)
    if start is None:
        raise UserError(f"{file}: stage {stage} has no line `deps:`: add one, with a dependency on each line.")
    indent = " " * (len(lines[start]) - len(lines[start].lstrip()) + 2)
    end = start + 1
    while end < len(lines) and lines[end].startswith(indent + "- "):
        end += 1
    kept = [line for line in lines[start + 1 : end] if not _CODE.match(line.strip()[2:])]
    up = "../" * len(file.parent.parts)
    needed = code_deps(stage, closure(f"stages.{stage}", top.resolve()))
    code = [f"{indent}- {dep if _is_list(dep) else up + dep}" for dep in needed]
    return "\n".join([*lines[: start + 1], *kept, *code, *lines[end:]])


def module_of(stage: str) -> str:
    """Return the module of stages/ that runs stage `stage`: `train_of_students` is `train` over another section."""
    return stage.partition("_of_")[0]


def _is_list(dep: str) -> bool:
    """Whether a dependency is a list of code, which each pipeline writes into its own folder."""
    return dep.startswith(f"{artefacts.CODE}/")


def main() -> None:
    """Rewrite the pipelines of the current folder; say what changed."""
    if not DVC_YAML.is_file():
        raise UserError(f"{DVC_YAML} is missing: run this in the project's top folder.")
    for file in PIPELINES:
        if not file.is_file():
            continue
        before = file.read_text(encoding="utf-8")
        after = with_code_deps(before, file=file)
        if after == before:
            print(f"{file}: every stage names the code that it runs.", file=sys.stderr)
            continue
        write_text(file, after)
        print(f"{file}: deps are as the imports are now; see `git diff {file}`.", file=sys.stderr)


if __name__ == "__main__":
    run(main)
