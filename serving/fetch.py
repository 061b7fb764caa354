"""Bring a version from the registry onto the shelf: `python -m serving.fetch`, which the keeper starts, not people.

A process of its own: it gives back the memory that MLflow and Arrow take, and runs when nothing else wants the
processor.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from plumbline.common.errors import UserError, sentence_of
from plumbline.registry.versions import DIGEST_TAG, load_version
from serving.shelf import Shelf


def fetch(uri: str, model: str, version: int, digest: str, folder: str, root: Path) -> None:
    """Put a version on the shelf; UserError where it can't be had, or its files were altered."""
    if folder:
        Shelf(root).put(Path(folder), digest)
        return
    found = load_version(version, model, uri)
    if found.tags.get(DIGEST_TAG) != digest:
        raise UserError(f"Version {version} of '{model}' changed while it was fetched: it is looked at again.")
    Shelf(root).put(found.folder, digest)


def main(arguments: list[str]) -> int:
    """Fetch what the arguments (JSON) name; prints one sentence where that fails."""
    try:
        fetch(**{**(content := json.loads(arguments[0])), "root": Path(content["root"])})
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(sentence)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
