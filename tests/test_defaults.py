"""params.yaml as it comes spells the defaults: a line that is left out changes nothing."""

import functools
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from flows.batch import IntakeParams
from flows.sites import Site
from monitoring.settings import DriftParams
from plumbline.common.params import PARAMS, load_section
from plumbline.evidence.disturbances import ProbeParams
from plumbline.evidence.evaluation import Evaluate
from plumbline.evidence.rules import Gate
from plumbline.imaging.manifest import IngestParams
from plumbline.imaging.settings import DataParams
from plumbline.imaging.validation import ValidateParams
from plumbline.leakage.groups import GroupParams
from plumbline.leakage.price import LeakageParams
from plumbline.leakage.splits import GroupColumns, SplitParams
from plumbline.models.candidates import PRESETS, Candidate
from plumbline.models.extraction import SplitShare
from plumbline.models.search import Tune
from plumbline.models.training import TrainParams
from plumbline.registry.eyes import LooksWith
from plumbline.registry.place import Place
from plumbline.registry.promotion import PromoteParams
from serving.settings import ServingParams

TOP = Path(__file__).resolve().parents[1]
SECTIONS = {
    "data": DataParams,
    "ingest": IngestParams,
    "validate": ValidateParams,
    "group": GroupParams,
    "split": SplitParams,
    "leakage": LeakageParams,
    "train": TrainParams,
    "tune": Tune,
    "probe": ProbeParams,
    "evaluate": Evaluate,
    "gate": Gate,
    "promote": PromoteParams,
    "promote.place": Place,
    "intake": IntakeParams,
    "drift": DriftParams,
    "serving": ServingParams,
}
# Each entry is somebody's own.
ENTRIES = {"backbones", "candidates", "compressed", "students", "ensembles", "ablations", "sites"}
ITEMS = {f"item.{key}" for key in ("backbone", "architecture", "of", "teacher")}
NAMED_IN_DVC_YAML = {
    "group.embedding",
    "leakage.features",
    "split.seed",
    "split.fractions",
    "train.seed",
    "drift.embedding",
}


@functools.cache
def given() -> dict:
    return yaml.safe_load((TOP / PARAMS).read_text())


def lines(value, path=()):
    """The path of every line: ("group", "columns"), ("evaluate", "costs", "false_alarm")."""
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from lines(inner, (*path, key))


def without(params: dict, path: tuple) -> dict:
    """A copy of `params` that lacks the line at `path`."""
    first, *rest = path
    left = {key: value for key, value in params.items() if key != first or rest}
    return {**left, first: without(params[first], tuple(rest))} if rest else left


def test_every_section_is_compared():
    assert {name.split(".")[0] for name in SECTIONS} | ENTRIES == set(given())


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_spells_the_defaults(name):
    assert load_section(name, SECTIONS[name], TOP / PARAMS) == SECTIONS[name]()


@pytest.mark.parametrize("path", [path for path in lines(given()) if path[0] not in ENTRIES and len(path) > 1])
def test_a_line_that_is_left_out_changes_nothing(path):
    """Of a mapping that is free in its keys (the classes of arrays) a line is content, not a setting."""
    section, model = path[0], SECTIONS[path[0]]
    whole = given()
    try:
        found = model.model_validate(without(whole, path)[section])
    except ValidationError:
        found = None
    free = {("data", "arrays", "classes"), ("gate", "shortcut_auc")}
    if path[:-1] in free:
        assert found != model.model_validate(whole[section])
    else:
        assert found == model.model_validate(whole[section])


def test_the_other_readers_of_a_section_have_the_same_defaults():
    assert GroupColumns().columns == GroupParams().columns
    assert LooksWith().embedding == DriftParams().embedding
    assert SplitShare().fractions["train"] == SplitParams().fractions.train
    helmnet = Candidate(architecture="simple_cnn", backbone="pixels", preset="helmnet")
    assert helmnet == Candidate(architecture="simple_cnn", backbone="pixels").model_copy(update={"preset": "helmnet"})
    assert PRESETS["helmnet"].keys() <= Candidate.model_fields.keys()
    assert Site(timezone="UTC").cron == Site(timezone="UTC", cron="0 * * * *").cron


def test_lines_that_dvc_yaml_itself_needs_are_known_and_said():
    """DVC reads these before any stage runs: they are the ones that can't be left out, and params.yaml says so."""
    text = (TOP / "dvc.yaml").read_text()
    inserted = set(re.findall(r"\$\{(\w+\.\w+)\}", text)) - ITEMS
    listed = {line for line in re.findall(r"(?m)^ +- (\w+\.\w+)$", text) if line.split(".")[0] in SECTIONS}
    assert inserted | listed == NAMED_IN_DVC_YAML
    head = (TOP / PARAMS).read_text().splitlines()[:4]
    assert all(name in " ".join(head) for name in NAMED_IN_DVC_YAML)
