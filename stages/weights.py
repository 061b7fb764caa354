"""Stage `weights`: what is so here and now: each backbone's weights, the code, and whether promotion may happen.

It runs on every `dvc repro` (a new file in PLUMBLINE_WEIGHTS changes nothing that DVC sees, nor does another branch)
and writes one small file per backbone; `featurize` depends on that file, so other weights mean other features and the
same weights none. Stages with an item for each backbone or candidate depend on build/code/STAGE.txt, which lists the
code that they run with its digests. In the same way `promote` depends on build/place.json: a candidate that an
experiment or another branch did not promote is considered again, once, where promotion is allowed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from plumbline.common import artefacts
from plumbline.common.closure import LISTED, listing
from plumbline.common.errors import UserError, run
from plumbline.common.files import replacing_folder, write_json, write_text
from plumbline.common.params import load_section, load_sections, read_params
from plumbline.common.records import write_record
from plumbline.models.backbones import Backbone, called, origin_of, record_entry, resolve_entry
from plumbline.models.fit import as_sentence, find_misfits, unused_backbones
from plumbline.registry.place import Place, why_not_here


def main() -> None:
    """Write build/weights/BACKBONE.json for every backbone in params.yaml, build/code/ and build/place.json.

    Before that, every name in params.yaml that does not depend on the data is checked: `validate` does so too, but does
    not run again where only a candidate was edited.
    """
    params = read_params()
    if misfits := find_misfits(params, None):
        raise UserError(as_sentence(misfits, None))
    if unused := unused_backbones(params):
        print(
            f"no candidate uses {', '.join(unused)}: take these entries out of `backbones` in params.yaml to save the "
            "time that their features take",
            file=sys.stderr,
        )
    found: dict[str, list[str]] = {}
    with replacing_folder(artefacts.WEIGHTS) as folder:
        for name, entry in load_sections("backbones", Backbone).items():
            resolved = resolve_entry(name, entry)
            write_record(folder / f"{name}.json", record_entry(name, entry, resolved))
            for network, weights in zip(entry.networks_of(name), resolved, strict=True):
                found.setdefault(origin_of(weights), []).append(called(weights, network))
    for origin, names in found.items():
        print(f"{', '.join(names)}: {origin}", file=sys.stderr)
    with replacing_folder(artefacts.CODE) as folder:
        for stage in LISTED:
            write_text(folder / f"{stage}.txt", listing(f"stages.{stage}"))
    why = why_not_here(Path(), load_section("promote.place", Place, optional=True))
    write_json(artefacts.PLACE, {"promotion": "allowed" if why is None else why})


if __name__ == "__main__":
    run(main)
