"""`plumbline predict FOLDER OUT.parquet`: a folder of pictures answered by the champion, without a server.

Pictures are taken in parts of PART. A part that is done is kept in OUT.parquet.parts/ until all are, so a run that was
killed goes on where it stopped; memory holds a part at a time. DASK_SCHEDULER_ADDRESS and PLUMBLINE_STORE spread the
parts as they spread `featurize` (plumbline/common/cluster.py).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from plumbline.common import cluster
from plumbline.common.closure import code_digest
from plumbline.common.errors import UserError
from plumbline.common.files import replacing, replacing_folder, write_json
from plumbline.common.parallel import in_order
from plumbline.common.progress import progress
from plumbline.common.records import Record, read_record
from plumbline.common.served import CHAMPION
from plumbline.common.store import Arrays
from plumbline.imaging.decode import SUFFIXES, DecodeError, decode_resized
from plumbline.imaging.files import shown_path
from plumbline.imaging.litter import is_litter
from plumbline.models.export import OnnxModel
from plumbline.registry import bundle
from plumbline.registry.glance import glance
from plumbline.registry.versions import RegistryDownError
from serving.fetch import fetch
from serving.model import Scored, Served, open_version
from serving.settings import ServingParams, Unsure
from serving.shelf import Role, Shelf

PART, BATCH = 256, 32
PACKAGES = ("numpy", "onnxruntime", "pillow")


class Plan(Record):
    """What the parts in OUT.parquet.parts belong to."""

    version: int
    digest: str
    files: str
    settings: str
    code: str


@dataclass(frozen=True)
class Part:
    """Some pictures below a folder."""

    folder: str
    paths: list[str]


@dataclass(frozen=True)
class Scoring:
    """The champion's network over a Part as cluster.Work: probabilities, embeddings, ids, and what was wrong."""

    kind: ClassVar[str] = "predictions"
    alone: ClassVar[bool] = True
    loaded: ClassVar[str] = code_digest(__name__)

    code: str
    onnx: cluster.SharedFile
    picture_bytes: int
    pixels: int
    batch: int

    def key(self, task: Part) -> str:
        """Everything that the answers depend on."""
        ids = [_digest_of(Path(task.folder) / path, self.picture_bytes) for path in task.paths]
        limits = [self.picture_bytes, self.pixels, self.batch]
        return cluster.digest(self.onnx.sha256, limits, task.paths, ids, self.code, cluster.versions(*PACKAGES))

    def compute(self, task: Part) -> Arrays:
        """Score the pictures on whichever machine this is."""
        model = _model_of(self.onnx)
        side = model.image_size
        ids, problems, good, pictures = [], [], [], []
        for place, path in enumerate(task.paths):
            try:
                content = _read(Path(task.folder) / path, self.picture_bytes)
                ids.append(hashlib.sha256(content).hexdigest())
                pictures.append(decode_resized(content, (side, side), self.pixels, model.fit))
                good.append(place)
                problems.append("")
            except DecodeError as error:
                ids += [""] * (place + 1 - len(ids))
                problems.append(error.reason)
        found: Arrays = {"ids": np.array(ids), "problems": np.array(problems), "good": np.array(good, np.int64)}
        if pictures:
            probabilities, embeddings = model.score(pictures, self.batch)
            found |= {"probabilities": probabilities.astype(np.float32), "embeddings": embeddings}
        return found


def _read(path: Path, most: int) -> bytes:
    try:
        if path.stat().st_size > most:
            raise DecodeError(f"has more than the {most:,} bytes of serving.limits.picture_bytes")
        return path.read_bytes()
    except OSError as error:
        raise DecodeError(f"can't be read: {os.strerror(error.errno or 0)}") from None


def _digest_of(path: Path, most: int) -> str:
    try:
        return hashlib.sha256(_read(path, most)).hexdigest()
    except DecodeError as error:
        return error.reason


@lru_cache(maxsize=1)
def _model_of(onnx: cluster.SharedFile) -> OnnxModel:
    with onnx.at_hand("the model") as file:
        return OnnxModel(file)


def pictures_in(folder: Path) -> list[str]:
    """Return the pictures below a folder by name, in order; links are not followed, hidden files not looked at."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name one that holds pictures.")
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_litter(name)]
        for name in names:
            path = Path(root) / name
            if path.suffix.lower() in SUFFIXES and not is_litter(name) and not path.is_symlink():
                found.append(path.relative_to(folder).as_posix())
    if not found:
        raise UserError(f"{folder} holds no picture ({', '.join(SUFFIXES)}): name another folder.")
    return sorted(found)


def champion(params: ServingParams, model: str, uri: str) -> tuple[Role, Served]:
    """Return the champion, fetched onto the shelf if it isn't there; the last one known if the registry is down."""
    shelf = Shelf(params.state)
    role = shelf.roles().champion
    try:
        found = glance(uri, model, CHAMPION)
    except RegistryDownError as error:
        if role is None or not shelf.holds(role.digest):
            raise
        print(f"{error} Version {role.version}, the last known here, answers.", file=sys.stderr)
    else:
        if found is None:
            raise UserError("There is no champion yet: promote a model first (`dvc repro`).")
        role = Role(version=found.version, digest=found.digest)
        if not shelf.holds(role.digest):
            fetch(uri, model, role.version, role.digest, str(found.folder or ""), params.state)
    served = open_version(shelf.folder(role.digest), role.version, role.digest, 0, params.batch, params.unsure)
    return role, served


def table_of(part: Part, arrays: Arrays, served: Served, unsure: Unsure) -> Any:
    """Return a part's answers as an Arrow table, a row each: what could not be read has `problem` and nothing else."""
    import pyarrow as pa

    place = {int(row): number for number, row in enumerate(arrays["good"])}
    rows = []
    for number, path in enumerate(part.paths):
        row: dict[str, Any] = {
            "path": shown_path(path),
            "id": str(arrays["ids"][number]) or None,
            "version": served.version,
        }
        if number in place:
            row |= _row(served, arrays, place[number], unsure)
        else:
            row["problem"] = str(arrays["problems"][number])
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=schema_of(served))


def _row(served: Served, arrays: Arrays, place: int, unsure: Unsure) -> dict[str, Any]:
    scored = Scored(arrays["probabilities"][place], arrays["embeddings"][place])
    answer = served.answer(scored, unsure)
    probabilities = {f"p_{name}": value for name, value in answer["probabilities"].items()}
    kept = {key: answer[key] for key in ("confidence", "alarm", "unsure", "distance")}
    return {
        "label": ";".join(answer["labels"]),
        **kept,
        "because": "; ".join(answer["because"]) or None,
        **probabilities,
    }


def schema_of(served: Served) -> Any:
    """Return the columns of the output."""
    import pyarrow as pa

    texts = {name: pa.string() for name in ("path", "id", "label", "because", "problem")}
    figures = {name: pa.float64() for name in ("confidence", "distance", *(f"p_{name}" for name in served.classes))}
    kinds = {**texts, **figures, "version": pa.int64(), "alarm": pa.bool_(), "unsure": pa.bool_()}
    first = ("path", "label", "confidence", "unsure", "alarm", "because", "problem", "distance", "id", "version")
    return pa.schema([(name, kinds[name]) for name in (*first, *(f"p_{name}" for name in served.classes))])


def predict(folder: Path, output: Path, params: ServingParams, model: str, uri: str) -> tuple[int, int]:
    """Answer every picture below `folder` into `output`; return how many rows it has and how many are problems."""
    import pyarrow.parquet

    names = pictures_in(folder)
    role, served = champion(params, model, uri)
    parts = [Part(str(folder.resolve()), names[start : start + PART]) for start in range(0, len(names), PART)]
    plan = Plan(
        version=role.version,
        digest=role.digest,
        files=_listing(folder, names),
        settings=cluster.digest(params.unsure.model_dump(), params.limits.model_dump()),
        code=Scoring.loaded,
    )
    home = output.with_name(f"{output.name}.parts")
    _begin(home, plan)
    missing = [number for number in range(len(parts)) if not _part_file(home, number).is_file()]
    onnx, limits = cluster.share(Shelf(params.state).folder(role.digest) / bundle.ONNX, "models"), params.limits
    work = Scoring(Scoring.loaded, onnx, limits.picture_bytes, limits.pixels, BATCH)
    spread = cluster.spread(work, [parts[number] for number in missing], _locally)
    if len(missing) < len(parts):
        print(f"{len(parts) - len(missing)} of {len(parts)} parts were done before", file=sys.stderr)
    for number, arrays in progress(zip(missing, spread, strict=True), "predict", len(missing), f" x {PART} pictures"):
        table = table_of(parts[number], arrays, served, params.unsure)
        with replacing(_part_file(home, number)) as temporary:
            pyarrow.parquet.write_table(table, temporary)
    problems = 0
    with replacing(output) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema_of(served)) as writer:
        for number in range(len(parts)):
            table = pyarrow.parquet.read_table(_part_file(home, number))
            problems += table.num_rows - table["problem"].null_count
            writer.write_table(table)
    shutil.rmtree(home)
    return len(names), problems


def _listing(folder: Path, names: list[str]) -> str:
    """What tells these files from the same names with other contents, without reading them."""
    lines = []
    for name in names:
        try:
            stat = (folder / name).stat()
            lines.append(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}")
        except OSError:
            lines.append(f"{name}\0")  # it went away meanwhile: its row says so
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _begin(home: Path, plan: Plan) -> None:
    """Go on with the parts there are, or begin anew where they belong to other files or another champion."""
    if (home / "plan.json").is_file():
        try:
            if read_record(home / "plan.json", Plan, "") == plan:
                return
        except UserError:
            pass
        print(f"{home} belongs to other files, settings or another champion: begun anew", file=sys.stderr)
    with replacing_folder(home) as folder:
        write_json(folder / "plan.json", plan.model_dump())


def _part_file(home: Path, number: int) -> Path:
    return home / f"{number:06d}.parquet"


def _locally(carry: Callable[[Part], cluster.Outcome], parts: Iterable[Part]) -> Iterator[cluster.Outcome]:
    """A part at a time, the next decoded while one is scored: both let go of the interpreter."""
    return in_order(carry, parts, ahead=1)
