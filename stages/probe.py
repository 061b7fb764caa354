"""Stage `probe@CANDIDATE`: a candidate's answers on disturbed test pictures, and where its Grad-CAM lies.

Reads build/candidates/NAME, its backbone's folder in build/disturbed and, where Grad-CAM needs the whole network, the
pictures; writes build/probes/NAME: answers.parquet (path, condition, p_CLASS) and attention.parquet (path, mass: the
share of Grad-CAM inside the head's box, area: the box's share of the picture), which has no row for a network without
feature maps; or not_measured.json alone where `disturb` left its backbone out. `evaluate` interprets them.
"""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_table
from plumbline.common.params import load_section, name_given
from plumbline.common.records import read_record, write_record
from plumbline.evidence.disturbances import ProbeParams
from plumbline.evidence.probing import probe
from plumbline.evidence.records import Disturbing
from plumbline.models.features import open_features
from plumbline.models.fitting import make_deterministic
from plumbline.models.records import ModelRecord


def main() -> None:
    """Write build/probes/CANDIDATE."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams

    name = name_given("candidates", "students")
    backbone = read_record(artefacts.CANDIDATES / name / artefacts.MODEL, ModelRecord).backbone
    left_out = artefacts.DISTURBED / backbone / artefacts.NOT_MEASURED
    if left_out.is_file():
        with replacing_folder(artefacts.PROBES / name) as folder:
            write_record(folder / artefacts.NOT_MEASURED, read_record(left_out, Disturbing))
        return
    make_deterministic(0)
    data = load_section("data", DataParams)
    features = open_features(artefacts.FEATURES / backbone)
    found, looks = probe(
        artefacts.CANDIDATES / name,
        features,
        artefacts.DISTURBED / backbone,
        lambda paths, size: iter_rgb(data, paths, (size, size), fit=features.backbone.fit),
        load_section("probe", ProbeParams),
    )
    with replacing_folder(artefacts.PROBES / name) as folder:
        write_table(folder / artefacts.ANSWERS, found)
        write_table(folder / artefacts.ATTENTION, looks)


if __name__ == "__main__":
    run(main)
