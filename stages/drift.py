"""Stage `drift`: judge every site's new images against the present champion.

Reads incoming/ (or wherever a site's images lie) and the registry, writes build/drift.json, reports/drift/ and drift/.
"""

from __future__ import annotations

from monitoring import drift
from plumbline.common import artefacts

ARGUMENTS = ["--every-site", "--record", artefacts.DRIFT.name]


def main() -> None:
    """Judge every site of params.yaml; the verdicts go to build/drift.json, and none of them fails the stage."""
    drift.main(ARGUMENTS)


if __name__ == "__main__":
    drift.command(ARGUMENTS)
