"""Stage `weights`: which weights does each backbone resolve to on this machine, now?

It runs on every `dvc repro` (a new file in PLUMBLINE_WEIGHTS changes nothing that DVC sees) and writes one small
file per backbone; `featurize` depends on that file, so other weights mean other features and the same weights none.
"""

from __future__ import annotations

import sys

from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_json
from plumbline.common.params import load_sections
from plumbline.models.backbones import WEIGHTS, Backbone, record_entry, report, resolve_entry


def main() -> None:
    """Write build/weights/BACKBONE.json for every backbone in params.yaml."""
    with replacing_folder(WEIGHTS) as folder:
        for name, entry in load_sections("backbones", Backbone).items():
            resolved = resolve_entry(name, entry)
            write_json(folder / f"{name}.json", record_entry(name, entry, resolved))
            for network, weights in zip(entry.networks_of(name), resolved, strict=True):
                print(report(weights, network), file=sys.stderr)


if __name__ == "__main__":
    run(main)
