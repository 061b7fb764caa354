"""What one stage leaves for others: JSON as a frozen class, tables, arrays. What is wrong with it is one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from plumbline.common.errors import UserError, first_line
from plumbline.common.files import Artefact, write_json

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


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


def read_plain(path: str | os.PathLike[str], kind: type[Content], stage: str | None = None) -> Content:
    """Return a file that holds plain JSON, such as `dict[str, str]`; as `read_record`."""
    return _parse(path, TypeAdapter(kind), stage)


def read_table(
    path: str | os.PathLike[str], columns: list[str] | None = None, stage: str | None = None
) -> pd.DataFrame:
    """Return a Parquet table, or some of its columns; as `read_record`."""
    import pandas as pd

    with _told(path, stage):
        return pd.read_parquet(path, columns=columns)


def read_array(path: str | os.PathLike[str], mapped: bool = False, stage: str | None = None) -> NDArray[Any]:
    """Return a NumPy array, `mapped` from the disk or read into memory; as `read_record`."""
    import numpy as np

    with _told(path, stage):
        return np.asanyarray(np.load(Path(path), mmap_mode="r" if mapped else None, allow_pickle=False))


def _commands(path: str | os.PathLike[str], stage: str | None) -> tuple[str, str]:
    """The command that makes a file, and the one that makes it where DVC holds it for made."""
    name = f" {stage or (path.by if isinstance(path, Artefact) else '')}".rstrip()
    return f"dvc repro{name}", f"dvc repro -f{name}" if name else "dvc repro"


@contextmanager
def _told(path: str | os.PathLike[str], stage: str | None) -> Iterator[None]:
    """Turn the errors of reading a table or an array into one sentence."""
    file, (run, force) = Path(path), _commands(path, stage)
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file} is missing: run `{run}`.") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} can't be read ({first_line(error)}): run `{force}`.") from None


def _parse(path: str | os.PathLike[str], kind: TypeAdapter[Content], stage: str | None) -> Content:
    file, (run, force) = Path(path), _commands(path, stage)
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
