"""What a stage may write is what its pipeline declares."""

from plumbline.common import artefacts
from plumbline.common.pipeline import declares


def test_a_pipeline_declares_an_artefact_or_not_or_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert declares("ingest", artefacts.BOXES) is None
    (tmp_path / "dvc.yaml").write_text("stages:\n  ingest:\n    cmd: x\n    outs: [build/boxes.parquet, build/x]\n")
    assert declares("ingest", artefacts.BOXES) is True
    assert declares("ingest", artefacts.MANIFEST) is False
    assert declares("other", artefacts.BOXES) is None
    (tmp_path / "dvc.yaml").write_text("")
    assert declares("ingest", artefacts.BOXES) is None
