"""Stage `validate`: is this data fit to learn from? Great Expectations on the manifest, every failing row named.

What makes a run worthless stops it with one sentence: rows of metadata.csv without a file, too much quarantine, a
missing class, fewer than two classes, too few groups in a class, a broken manifest, settings in params.yaml that name
what the data does not have (all of them in one message). The rest are warnings. The report is written either way:
reports/validation/index.html for people, build/validation.json for programs.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import replacing_folder, write_json
from plumbline.common.params import load_section, read_params
from plumbline.common.records import read_table
from plumbline.imaging.labels import classes_of
from plumbline.imaging.settings import DataParams
from plumbline.imaging.validation import ValidateParams, report, validate
from plumbline.models.fit import Facts, as_sentence, find_misfits


def main() -> None:
    """Read build/manifest.parquet and quarantine.csv, write build/validation.json and reports/validation/."""
    import pandas as pd

    from plumbline.leakage.groups import GroupParams

    params = load_section("validate", ValidateParams)
    group = load_section("group", GroupParams)
    manifest = read_table(artefacts.MANIFEST)
    quarantine = pd.read_csv(artefacts.QUARANTINE, dtype=str, keep_default_na=False)
    settings = read_params()
    root = DataParams.model_validate(settings.get("data") or {}).root
    facts = Facts(tuple(sorted(classes_of(manifest["label"]))), tuple(manifest.columns), root)
    misfits = find_misfits(settings, facts)
    with replacing_folder(artefacts.VALIDATION_PAGES) as docs:
        import great_expectations as gx

        from plumbline.pages.validation import write_docs

        found = validate(manifest, quarantine, group.columns, params, docs, group.blank_words)
        if misfits:
            found = replace(found, problem=" ".join(filter(None, [found.problem, as_sentence(misfits, facts)])))
        written = report(manifest, quarantine, found)
        rows = quarantine[["path", "reason"]].to_dict("records")
        write_docs(docs, {**written, "quarantine": rows, "version": gx.__version__})
    write_json(artefacts.VALIDATION, written)
    if found.problem:
        raise UserError(f"{found.problem} Details: {artefacts.VALIDATION_PAGES / 'index.html'}")
    failed = sum(not one.success for one in found.outcomes)
    print(
        f"{len(found.outcomes)} expectations, {failed} with warnings; see {artefacts.VALIDATION_PAGES / 'index.html'}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run(main)
