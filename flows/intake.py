"""The intake flow: a labelled batch becomes a new version of data/.

    plumbline intake BATCH [--images FOLDER] [--as THEIRS=OURS] [--new-class NAME]

The batch is validated, known pictures are dropped, and the rest is added in a scratch worktree as a DVC version with a
Git commit and pushed. Only then the workspace switches to it, in a step that survives a kill, and training is
requested. The same batch again adds nothing.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows import graph, news, report, workspace
from flows.batch import (
    IntakeParams,
    LabelledBatch,
    Refusal,
    class_folders,
    metadata_rows,
    new_pictures,
    place,
    read_folder,
)
from flows.children import Children, guarded
from flows.classes import ANY, parse_same_as, settle_classes
from flows.command import run_dvc
from flows.label_studio import read_label_studio
from flows.outcomes import may_pass
from flows.server import run_flow
from flows.switch import git, lay_ready, recover, switch
from plumbline.common import artefacts
from plumbline.common.errors import UserError, one_line, run
from plumbline.common.files import write_text
from plumbline.common.params import PARAMS, load_section
from plumbline.imaging.collection import list_images
from plumbline.imaging.labels import shown
from plumbline.imaging.layouts.which import find_layout
from plumbline.imaging.litter import is_litter
from plumbline.imaging.manifest import IngestParams, ingest
from plumbline.imaging.metadata import Metadata, find_table, meaning, read_table, written_path
from plumbline.imaging.pictures import RESERVED
from plumbline.imaging.settings import DataParams
from plumbline.leakage.groups import GroupParams

if TYPE_CHECKING:
    import pandas as pd
    from prefect.client.schemas.objects import State


@flow(name="intake", flow_run_name="intake {batch}", persist_result=False)
def intake(
    batch: str,
    images: str | None = None,
    request_training: bool = True,
    same_as: dict[str, str] | None = None,
    new_classes: list[str] | None = None,
    label_tag: str | None = None,
) -> State[Any]:
    """Add a batch to the workspace's data.

    Its classes are compared with those of data/ before anything is written.

    Args:
        batch: a folder of labelled pictures, or a Label Studio JSON export.
        images: for an export, the folder its pictures are in; by default the export's own.
        request_training: emit the event on which the deployment `train` starts.
        same_as: {class of the batch: the class of data/ that it is}.
        new_classes: classes that data/ may not have yet; `*` for any.
        label_tag: for an export with choices of several names, the one that is the label.
    """
    logger = get_run_logger()
    root = workspace.find_root()
    with workspace.sole_run(root, logger.warning) as lock, guarded([lock]) as children:
        recover(root, logger.warning)
        news.tell_of_batches(root, logger.warning)
        data, source = _checked_data(root)
        with tempfile.TemporaryDirectory(prefix="plumbline-batch-") as scratch:
            read = _validate(Path(batch), Path(images) if images else None, Path(scratch), root, data, label_tag)
            known, thumbnails = _known(root, data)
            read = settle_classes(read, known["label"], same_as or {}, new_classes or [])
            asked = (_section(root, "intake", IntakeParams), thumbnails, _section(root, "group", GroupParams))
            new, copies = new_pictures(read, known, *asked)
            refused = [*read.refused, *copies]
            _publish(batch, new, refused)
            if new.empty:
                return Completed(name="NothingNew", message=f"{batch}: {len(copies)} copies, nothing new.")
            commit, version = _add_version(root, data, source, read, new, batch_name(batch), children)
        message = f"{len(new)} pictures added as data version {version}, commit {commit[:7]}"
        message += f"; {len(refused)} left out." if refused else "."
        news.keep_batch(root, commit, message, request_training)
        switch(root, commit, source, data.root.as_posix(), logger.info)
        report.label_run(f"intake {Path(batch).name} commit {commit[:7]}", [f"commit:{commit[:7]}"])
        news.tell_of_batches(root, logger.warning)
    return Completed(message=message)


def _checked_data(root: Path) -> tuple[DataParams, str]:
    """Return the data section and the .dvc file; UserError where data/ is not in a state to take a batch."""
    data = _section(root, "data", DataParams)
    source = f"{data.root}.dvc"
    if not (root / source).exists():
        raise UserError(f"{source} is missing: put {data.root}/ under DVC first (dvc add {data.root}).")
    if not (root / data.root).exists():
        return data, source
    here = data.model_copy(update={"root": root / data.root})
    if find_layout(here) != "folders" or not _has_class_folders(root / data.root):
        raise UserError(f"{data.root}/ has no class folders: intake adds to a folder per class only.")
    if graph.changed(root, [source]):
        raise UserError(
            f"{data.root}/ has changes that are no version yet: keep them (dvc add {data.root}, git commit) or drop "
            f"them (dvc checkout {source})."
        )
    if git(root, "status", "--porcelain", "--", source):
        raise UserError(f"{source} has changes that are not in Git: commit them first.")
    return data, source


@task(name="validate", cache_policy=NO_CACHE)
def _validate(
    batch: Path, images: Path | None, scratch: Path, root: Path, data: DataParams, label_tag: str | None
) -> LabelledBatch:
    """Read the batch, whichever form it has."""
    params = _section(root, "ingest", IngestParams)
    if batch.is_dir():
        return read_folder(batch, data, params)
    refused = read_label_studio(batch, images or batch.parent, scratch, label_tag)
    if not any(scratch.iterdir()):
        raise UserError(f"{batch} has no task that can be used; the first: {refused[0].path} {refused[0].reason}.")
    return read_folder(scratch, data, params, refused)


@task(name="known pictures", cache_policy=NO_CACHE)
def _known(root: Path, data: DataParams) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """Return the present manifest of data/ and the thumbnails of its rows: from the last run if still valid, else
    measured now."""
    import pandas as pd

    makers = [node.name for node in graph.read_graph(root).values() if artefacts.MANIFEST.name in node.outs]
    if makers and not graph.changed(root, makers):
        thumbnails = np.load(root / artefacts.THUMBNAILS, mmap_mode="r", allow_pickle=False)
        return pd.read_parquet(root / artefacts.MANIFEST), thumbnails
    get_run_logger().info("The manifest is older than the data: measuring every picture again.")
    here = data.model_copy(update={"root": root / data.root})
    found = ingest(here, _section(root, "ingest", IngestParams))
    return found.manifest, found.thumbnails


@task(
    name="add version",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=10,
    retry_condition_fn=may_pass,
)
def _add_version(
    root: Path, data: DataParams, source: str, batch: LabelledBatch, new: pd.DataFrame, name: str, children: Children
) -> tuple[str, str]:
    """Make the new version in a scratch worktree that shares this workspace's cache, and push its data.

    Returns its commit and the data's version.
    """
    with _worktree(root, children) as scratch:
        folder = scratch / data.root
        folders = class_folders(root / data.root)
        added = place_pictures(batch.root, new, folder, folders)
        rows = metadata_rows(new, RESERVED, folders)
        if rows:
            there = [entry.name for entry in os.scandir(root / data.root)] if (root / data.root).is_dir() else []
            table = find_table(there, data.metadata)[0] or data.metadata
            write_text(folder / table, merged_metadata(root / data.root / table, rows))
            added.append(folder / table)
        check_placed(new, folder, folders, data)
        # Adding the files one by one, not the folder: DVC adds them to the known version without reading all of it.
        names = [str(path.relative_to(scratch)) for path in added]
        for start in range(0, len(names), 500):
            run_dvc("add", ["add", "--quiet", *names[start : start + 500]], scratch, children)
        run_dvc("push", ["push", source], scratch, children)
        git(scratch, "add", source)
        git(scratch, "commit", "--quiet", "-m", f"Take in {len(new)} pictures of {name}")
        if not (root / data.root).exists():
            run_dvc("checkout", ["checkout", source], scratch, children)
        lay_ready(root, folder)
        return git(scratch, "rev-parse", "HEAD"), graph.data_version(scratch)


def place_pictures(source: Path, new: pd.DataFrame, folder: Path, folders: dict[str, str]) -> list[Path]:
    """Copy the new pictures from `source` under `folder`, each to its `place`; return their paths.

    UserError where one would lie outside `folder`, or on top of another.
    """
    inside = folder.resolve()
    targets: list[Path] = []
    for _, row in new.iterrows():
        target = folder / place(row, folders)
        if not target.resolve().is_relative_to(inside) or target.exists():
            raise UserError(f"{row['path']}: {target.name} can't be put into {folder.name}/{target.parent.name}/.")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / row["path"], target)
        targets.append(target)
    return targets


def check_placed(new: pd.DataFrame, folder: Path, folders: dict[str, str], data: DataParams) -> None:
    """UserError where `ingest` would not find every new picture under its label in `folder`."""
    here = data.model_copy(update={"root": folder, "layout": "folders"})
    found = list_images(here).images
    labels = dict(zip(found["path"], found["label"], strict=True))
    for _, row in new.iterrows():
        path = place(row, folders)
        if labels.get(path) != row["label"]:
            said = shown(labels[path]) if path in labels else "nothing"
            raise UserError(
                f"{row['path']} with the label {shown(row['label'])} would be read back as {said}: nothing was taken "
                f"in; call its class something else."
            )


def batch_name(batch: str) -> str:
    """A batch's own name on one line, for commits and messages."""
    return shown(one_line(Path(batch).resolve().name)) or "a batch"


@contextmanager
def _worktree(root: Path, children: Children) -> Iterator[Path]:
    """Yield a Git worktree of HEAD whose DVC uses this cache and these remotes; remove it, and those of killed runs."""
    area = root / ".dvc" / "tmp"
    for leftover in area.glob("plumbline-intake-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    git(root, "worktree", "prune")
    scratch = Path(tempfile.mkdtemp(prefix="plumbline-intake-", dir=area))
    try:
        git(root, "worktree", "add", "--quiet", "--detach", str(scratch), "HEAD")
        write_text(scratch / ".dvc" / "config.local", graph.local_config(root))
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        git(root, "worktree", "prune")


def merged_metadata(path: Path, rows: list[dict[str, str]]) -> str:
    """Return metadata.csv with `rows` appended; new columns come last and are empty in the old rows.

    The old rows are read as `ingest` reads them, and written with commas and the project's column names.
    """
    table = read_table(path.parent, path.name, RESERVED) or Metadata({})
    old = [{"path": written_path(key), **values} for key, values in table.rows.items()]
    header = list(dict.fromkeys(["path", *(name for row in old for name in row)]))
    # A batch's `Site` is the existing column `site`.
    spelled = {meaning(name): name for name in header}
    rows = [{spelled.get(meaning(name), name): value for name, value in row.items()} for row in rows]
    header += sorted({name for row in rows for name in row} - set(header))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*old, *rows])
    return text.getvalue()


def _publish(batch: str, new: pd.DataFrame, refused: list[Refusal]) -> None:
    """Show what goes in, by class, and what stays out and why."""
    logger = get_run_logger()
    for one in refused:
        logger.warning("%s %s", one.path, one.reason)
    counts = new["label"].value_counts().items() if len(new) else []
    table = [{"picture": f"{count} new", "label": label, "left out because": ""} for label, count in counts]
    table += [{"picture": one.path, "label": "", "left out because": one.reason} for one in refused]
    if table:
        create_table_artifact(table, key=report.artifact_key(f"intake {Path(batch).name}"), description=batch)


def _has_class_folders(folder: Path) -> bool:
    return any(entry.is_dir() and not is_litter(entry.name) for entry in os.scandir(folder))


def _section(root: Path, name: str, model: Any) -> Any:
    return load_section(name, model, root / PARAMS)


def main() -> None:
    """Take one batch in; exit code 1 where that failed."""
    parser = argparse.ArgumentParser(prog="python -m flows.intake", description="Add a labelled batch to data/.")
    parser.add_argument("batch", help="a folder of labelled pictures, or Label Studio's JSON export")
    parser.add_argument("--images", help="for an export: the folder its pictures are in (the export's own)")
    parser.add_argument("--no-training", action="store_true", help="don't ask for training")
    parser.add_argument(
        "--as",
        dest="same_as",
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="the batch's class THEIRS is the class OURS of data/",
    )
    parser.add_argument(
        "--new-class",
        action="append",
        default=[],
        nargs="?",
        const=ANY,
        metavar="NAME",
        help="a class that data/ does not have yet (without NAME: every one of the batch)",
    )
    parser.add_argument("--label-tag", help="for an export with choices of several names: the one that is the label")
    given = parser.parse_args()
    state = run_flow(
        intake,
        given.batch,
        given.images,
        not given.no_training,
        parse_same_as(given.same_as),
        given.new_class,
        given.label_tag,
    )
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        raise UserError(str(error) if isinstance(error, UserError) else str(state.message))
    print(state.message)


if __name__ == "__main__":
    run(main)
