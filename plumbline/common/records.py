"""JSON that one stage leaves for others, read as a frozen class: a key that is missing or unknown is one sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from plumbline.common.errors import UserError
from plumbline.common.files import Artefact, write_json


class Record(BaseModel):
    """The content of a JSON file, or a part of it: frozen, unknown keys refused. A key with a default may be absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def content(self) -> dict[str, Any]:
        """Return it as plain data: the keys that were given, in the order of the class."""
        return self.model_dump(exclude_unset=True, by_alias=True)


RecordType = TypeVar("RecordType", bound=Record)
Content = TypeVar("Content")


def read_record(path: str | os.PathLike[str], kind: type[RecordType], stage: str | None = None) -> RecordType:
    """Return the file at `path` as a `kind`; UserError names the file, what is wrong, and the command that makes it.

    `stage` is what writes the file: by default what the artefact says, and for a plain path the whole pipeline.
    """
    return _parse(path, TypeAdapter(kind), stage)


def read_records(path: str | os.PathLike[str], kind: type[RecordType], stage: str | None = None) -> list[RecordType]:
    """Return a file that holds a list of `kind`; as `read_record`."""
    return _parse(path, TypeAdapter(list[kind]), stage)  # type: ignore[valid-type]


def write_record(path: str | os.PathLike[str], record: Record) -> None:
    """Write a record as JSON, atomically."""
    write_json(path, record.content())


def _parse(path: str | os.PathLike[str], kind: TypeAdapter[Content], stage: str | None) -> Content:
    name = f" {stage or (path.by if isinstance(path, Artefact) else '')}".rstrip()
    run, force = f"dvc repro{name}", f"dvc repro -f{name}" if name else "dvc repro"
    file = Path(path)
    try:
        return kind.validate_json(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{file} is missing: run `{run}`.") from None
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}): run `{run}`.") from None
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise UserError(f"{file} is damaged ({first['msg']}): run `{force}`.") from None
        key = ".".join(map(str, first["loc"])) or "its content"
        raise UserError(
            f"{file} was not written by this version of Plumbline ({key}: {first['msg']}): run `{force}`."
        ) from None
