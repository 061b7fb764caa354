"""What the dvc.yaml of the working folder declares: there are two pipelines, and some stages run in both."""

from __future__ import annotations

from pathlib import Path

from plumbline.common.files import Artefact

DVC_YAML = Path("dvc.yaml")


def declares(stage: str, artefact: Artefact) -> bool | None:
    """Return whether `stage` names `artefact` among its outs; None where there is no dvc.yaml, or not that stage.

    What a stage writes and DVC doesn't know of would be neither cached nor removed.
    """
    import yaml

    if not DVC_YAML.is_file():
        return None
    pipeline = yaml.safe_load(DVC_YAML.read_text(encoding="utf-8"))
    stages = pipeline.get("stages") if isinstance(pipeline, dict) else None
    entry = stages.get(stage) if isinstance(stages, dict) else None
    return artefact.name in entry.get("outs", []) if isinstance(entry, dict) else None
