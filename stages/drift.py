"""Stage `drift`: every site's new images against the champion there is.

Reads incoming/ (or wherever a site's images lie) and the registry, writes build/drift.json, reports/drift/ and drift/.
"""

from __future__ import annotations

from monitoring import drift
from plumbline.common import artefacts

ARGUMENTS = ["--every-site", "--record", artefacts.DRIFT.name]


def main() -> None:
    """Judge every site of params.yaml; the verdicts are in build/drift.json, whatever they are."""
    drift.main(ARGUMENTS)


if __name__ == "__main__":
    drift.command(ARGUMENTS)
