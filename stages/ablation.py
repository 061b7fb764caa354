"""Stage `ablation`: does a hybrid gain from all of its networks, in the dark for example? Every subset is tried.

For every subset of a hybrid backbone's networks a head like the hybrid's is trained on that part of the cached
features, and scored on the test pictures as they are, darkened, partly covered and rotated. Several seeds show
how much is chance. Reads build/features/BACKBONE and build/splits.parquet, writes build/ablations/CANDIDATE.json
and reports/ablations/CANDIDATE.html.
"""

from __future__ import annotations

import sys

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_text
from plumbline.common.params import load_section, name_given
from plumbline.common.records import read_table, write_record
from plumbline.evidence.ablation import Ablation, ablate, build_extractor, disturbed_features, verdict
from plumbline.evidence.records import AblationResult
from plumbline.models.candidates import Candidate
from plumbline.models.features import open_features
from plumbline.models.fitting import make_deterministic
from plumbline.pages.ablation import page


def main() -> None:
    """Write build/ablations/CANDIDATE.json and reports/ablations/CANDIDATE.html."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams
    from plumbline.models.training import TrainParams, weights_origin

    name = name_given("ablations")
    params = load_section(f"ablations.{name}", Ablation)
    candidate = load_section(f"candidates.{name}", Candidate)
    data = load_section("data", DataParams)
    seed = load_section("train", TrainParams).seed
    splits = read_table(artefacts.SPLITS)
    features = open_features(artefacts.FEATURES / candidate.backbone)
    parts = features.backbone.parts
    if len(parts) < 2 or features.backbone.freeze != "head" or candidate.backbone != params.backbone:
        raise UserError(
            f"params.yaml: ablations.{name} takes {params.backbone} apart, which is not the several frozen networks "
            f"that candidates.{name} stands on: name its backbone of 'networks', or remove the entry."
        )
    size = features.backbone.image_size
    test = splits[splits["split"] == "test"]
    make_deterministic(seed)
    disturbed = disturbed_features(
        test,
        lambda paths, side: iter_rgb(data, paths, (side, side), fit=features.backbone.fit),
        build_extractor(features),
        size,
        params,
    )
    table = ablate(candidate, splits, features, disturbed, params, seed)
    sentences = verdict(table, len(test))
    result = AblationResult(
        candidate=name,
        weights={part.network: weights_origin(features.backbone, [part.network]) for part in parts},
        test_images=len(test),
        seeds=params.seeds,
        conditions=params.model_dump(include={"dark", "occluded", "rotated"}),
        rows=tuple(table),
        verdict=tuple(sentences),
    )
    write_record(artefacts.ABLATIONS / f"{name}.json", result)
    write_text(artefacts.ABLATION_PAGES / f"{name}.html", page(result))
    for sentence in sentences:
        print(sentence, file=sys.stderr)


if __name__ == "__main__":
    run(main)
