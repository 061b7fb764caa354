"""Stage `classifier` of detection/: which classifier of crops there is here and now, to judge heads.

It runs on every `dvc repro`, since a promotion at the top changes nothing that DVC sees here, and writes a small file;
`systems` depends on that file, so another champion means other systems, and the same one none.
"""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.params import load_section
from plumbline.common.records import write_record
from plumbline.evidence.systems import SystemsParams
from plumbline.registry.second_stage import find_classifier


def main() -> None:
    """Write build/classifier.json."""
    found = find_classifier(load_section("systems", SystemsParams))
    write_record(artefacts.CLASSIFIER, found)
    print(f"the classifier of crops: {found.why_not or found.called}")


if __name__ == "__main__":
    run(main)
