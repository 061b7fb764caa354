"""What every layout module offers. To add a layout, write such a module and name it in `collection.LAYOUTS`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from plumbline.imaging.pictures import Found, Picture, Refused
from plumbline.imaging.settings import DataParams


class Layout(Protocol):
    """A way to lay pictures out in a folder."""

    def list_pictures(self, params: DataParams) -> Found:
        """List pictures and labels without decoding. UserError where the whole folder can't be used."""

    def read(self, params: DataParams, source: str, paths: Sequence[str]) -> Iterator[Picture | Refused]:
        """Decode the file `source` once and yield the pictures `paths` that lie in it."""

    def states(self, params: DataParams, source: str, paths: Sequence[str]) -> list[str]:
        """Return digests of everything that `read` would use for them, or why it can't be read."""
