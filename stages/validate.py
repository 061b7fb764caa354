"""Stage `validate`: is this data fit to learn from? Great Expectations on the manifest, every failing row named.

What makes a run worthless stops it with one sentence: rows of metadata.csv without a file, too much quarantine, a
missing class, fewer than two classes, too few groups in a class, a broken manifest, settings in params.yaml that name
what the data does not have (all of them in one message). The rest are warnings. The report is written either way:
reports/validation/index.html for people, build/validation.json for programs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import replacing_folder, write_json
from plumbline.common.params import Section, load_section, load_sections, read_params
from plumbline.common.records import read_table
from plumbline.imaging.labels import classes_of
from plumbline.imaging.settings import DataParams
from plumbline.imaging.validation import ValidateParams, report, tied_by_columns, validate
from plumbline.models.fit import Facts, as_sentence, find_misfits


def refused_later() -> list[str]:
    """Return what stages after the training would refuse in their own sections: said now, not hours later."""
    from monitoring.settings import DriftParams
    from plumbline.evidence.disturbances import ProbeParams
    from plumbline.evidence.evaluation import Evaluate
    from plumbline.evidence.rules import Gate
    from plumbline.models.ensembles import Ensemble
    from plumbline.models.training import TrainParams
    from plumbline.registry.promotion import PromoteParams

    kinds: dict[str, type[Section]] = {
        "train": TrainParams,
        "probe": ProbeParams,
        "evaluate": Evaluate,
        "gate": Gate,
        "promote": PromoteParams,
        "drift": DriftParams,
    }
    reads: list[Callable[[], Any]] = [partial(load_section, name, kind, optional=True) for name, kind in kinds.items()]
    reads.append(partial(load_sections, "ensembles", Ensemble, optional=True))
    said = []
    for read in reads:
        try:
            read()
        except UserError as error:
            said.append(str(error))
    return said


def too_few_to_test(groups: Any, settings: dict[str, Any]) -> str | None:
    """Say, before any training, that this set can't give the test groups that the gate asks for; None where it can."""
    from plumbline.evidence.rules import Gate
    from plumbline.leakage.splits import SplitParams

    share = SplitParams.model_validate(settings.get("split") or {}).fractions.test
    wanted = Gate.model_validate(settings.get("gate") or {}).minimum_test_groups
    most = math.ceil(share * len(set(groups)))
    if wanted is None or most >= wanted:
        return None
    return (
        f"the test part can hold {most} independent groups at most, gate.minimum_test_groups asks for {wanted}: the "
        f"gate will not promote before there are more pictures (some {math.ceil(wanted / share):,} groups)"
    )


def main() -> None:
    """Read build/manifest.parquet, quarantine.csv and boxes.parquet, write build/validation.json and its pages."""
    import pandas as pd

    from plumbline.leakage.groups import GroupParams

    params = load_section("validate", ValidateParams)
    group = load_section("group", GroupParams)
    manifest = read_table(artefacts.MANIFEST)
    quarantine = pd.read_csv(artefacts.QUARANTINE, dtype=str, keep_default_na=False)
    settings = read_params()
    data = DataParams.model_validate(settings.get("data") or {})
    boxes = read_table(artefacts.BOXES) if data.task == "detect" else None
    classes = classes_of(manifest["label"]) if boxes is None else set(boxes["label"])
    facts = Facts(tuple(sorted(classes)), tuple(manifest.columns), data.root)
    misfits = find_misfits(settings, facts)
    refused = refused_later() if boxes is None else []
    with replacing_folder(artefacts.VALIDATION_PAGES) as docs:
        import great_expectations as gx

        from plumbline.imaging.reading import load_rgb
        from plumbline.pages.validation import photographs, write_docs

        found = validate(manifest, quarantine, group.columns, params, docs, group.blank_words, boxes)
        if misfits or refused:
            said = [found.problem, *([as_sentence(misfits, facts)] if misfits else []), *refused]
            found = replace(found, problem=" ".join(filter(None, said)))
        written = report(manifest, quarantine, found, boxes)
        rows = quarantine[["path", "reason"]].to_dict("records")
        drawn = photographs(found, manifest, boxes, lambda path: load_rgb(data, path)) if boxes is not None else []
        write_docs(docs, {**written, "quarantine": rows, "version": gx.__version__}, drawn)
    write_json(artefacts.VALIDATION, written)
    if found.problem:
        raise UserError(f"{found.problem} Details: {artefacts.VALIDATION_PAGES / 'index.html'}")
    failed = sum(not one.success for one in found.outcomes)
    groups = tied_by_columns(manifest, group.columns, group.blank_words)
    if boxes is None and (too_few := too_few_to_test(groups, settings)):
        print(too_few, file=sys.stderr)
    print(
        f"{len(found.outcomes)} expectations, {failed} with warnings; see {artefacts.VALIDATION_PAGES / 'index.html'}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run(main)
