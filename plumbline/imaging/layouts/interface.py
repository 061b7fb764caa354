"""What every layout module offers; adding a layout is adding such a module to `collection.LAYOUTS`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from plumbline.imaging.pictures import Found, Picture, Refused
from plumbline.imaging.settings import DataParams


class Layout(Protocol):
    """A way in which pictures lie in a folder."""

    def list_pictures(self, params: DataParams) -> Found:
        """Name pictures and labels; decode nothing. UserError where the whole folder can't be used."""

    def read(self, params: DataParams, source: str, paths: Sequence[str]) -> Iterator[Picture | Refused]:
        """Decode the file `source` once and yield the pictures `paths` that lie in it."""

    def states(self, params: DataParams, source: str, paths: Sequence[str]) -> list[str]:
        """Return digests of all that `read` would make them from, or why that can't be read."""
