"""Results of partitions at the fsspec URL in PLUMBLINE_STORE: written once, found by every machine.

An object is a .npz archive, named by a digest of everything its content depends on; its checksums detect damage. A
store holds nothing that can't be computed again, so anything in it may be deleted. Credentials and endpoints are
configured in fsspec (its configuration files, or variables such as FSSPEC_S3_ENDPOINT_URL).
"""

from __future__ import annotations

import io
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError, first_line

STORE = "PLUMBLINE_STORE"
# Here an object appears whole or not at all; elsewhere (folders, SFTP, SMB, ...) we write a file and rename it.
PUT_IS_ATOMIC = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "tos", "memory"}

Arrays = dict[str, NDArray[Any]]


class DamagedError(Exception):
    """A stored object is damaged; the message says how."""


@dataclass(frozen=True)
class Store:
    """A folder or bucket at an fsspec URL; names are relative to it. Every failure is a UserError naming the URL."""

    url: str

    @property
    def shown(self) -> str:
        """The URL for printing, without user and password."""
        return re.sub(r"://[^/@:]*:[^/@]*@", "://", self.url)

    def read(self, name: str) -> Arrays | None:
        """Return an object's arrays, None where there is none; DamagedError where it is not whole."""
        data = self.read_bytes(name)
        if data is None:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                if broken := archive.zip.testzip():
                    raise DamagedError(f"the checksum of {broken} is wrong")
                return {key: archive[key] for key in archive.files}
        except DamagedError:
            raise
        except Exception as error:  # zipfile and NumPy raise nearly anything on damaged bytes
            raise DamagedError(f"{len(data)} bytes that are no whole archive: {first_line(error)}") from None

    def write(self, name: str, arrays: Arrays) -> None:
        """Write arrays so that a reader finds all of them or none."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self.write_bytes(name, buffer.getvalue())

    def read_bytes(self, name: str) -> bytes | None:
        """Return an object's bytes, None where there is none."""
        with self._answering("read"):
            files, root = self._open()
            try:
                return bytes(files.cat_file(f"{root}/{name}"))
            except FileNotFoundError:
                return None

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write bytes atomically."""
        with self._answering("written"):
            files, root = self._open()
            path = f"{root}/{name}"
            protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
            if protocols & PUT_IS_ATOMIC:
                files.pipe_file(path, data)
                return
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            temporary = f"{path}.{uuid4().hex}.tmp"
            files.pipe_file(temporary, data)
            files.mv(temporary, path)

    def _open(self) -> tuple[Any, str]:
        import fsspec

        files, root = fsspec.core.url_to_fs(self.url)  # fsspec keeps one instance per process, or thread
        return files, str(root).rstrip("/")

    @contextmanager
    def _answering(self, done: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each kind of store raises its own
            raise UserError(
                f"{STORE} is {self.shown}, which can't be {done} on {socket.gethostname()} ({first_line(error)}): "
                "correct or unset it."
            ) from None


def open_store() -> Store | None:
    """Return the store that PLUMBLINE_STORE names, None where it is unset; UserError where it can't be opened."""
    url = os.environ.get(STORE)
    if not url:
        return None
    store = Store(url)
    with store._answering("opened"):
        files, root = store._open()
        # Workers may run in other folders, so a relative path is made absolute here.
        return store if "://" in url or "::" in url else Store(str(files.unstrip_protocol(root)))
