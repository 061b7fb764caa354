"""Run Great Expectations on tables in memory: a plain result for each expectation, and Data Docs as a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Expectation:
    """One expectation in Great Expectations' words: `kind` is a snake_case type, `bounds` its keyword arguments."""

    kind: str
    bounds: dict[str, Any]
    severity: Severity = "critical"
    notes: str = ""


@dataclass(frozen=True)
class Checked:
    """A table, what is expected of it, and the column whose value names a failing row in reports."""

    name: str
    table: pd.DataFrame
    named_by: str
    expectations: Sequence[Expectation]


@dataclass(frozen=True)
class Outcome:
    """The result of one expectation; `failing` names each failing row, sorted."""

    table: str
    expectation: Expectation
    success: bool
    failing: tuple[str, ...]
    observed: Any


def check(tables: Sequence[Checked], docs: Path) -> list[Outcome]:
    """Check every table; writes Data Docs into folder `docs` and returns the outcomes in the order given."""
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for site in context.get_site_names():
        context.delete_data_docs_site(site)
    context.add_data_docs_site("docs", _site(docs))
    outcomes = []
    for checked in tables:
        outcomes += _check_one(context, checked)
    return outcomes


def _check_one(context: EphemeralDataContext, checked: Checked) -> list[Outcome]:
    import great_expectations as gx
    from great_expectations.checkpoint.actions import UpdateDataDocsAction
    from great_expectations.core import ExpectationSuite
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.metadata_types import FailureSeverity

    source = context.data_sources.add_pandas(checked.name)
    batch = source.add_dataframe_asset(checked.name).add_batch_definition_whole_dataframe("all")
    configurations = [
        ExpectationConfiguration(
            type=one.kind,
            kwargs=one.bounds,
            meta={"number": number},
            notes=one.notes or None,
            severity=FailureSeverity(one.severity),
        )
        for number, one in enumerate(checked.expectations)
    ]
    suite = context.suites.add(ExpectationSuite(checked.name, expectations=configurations))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=checked.name, data=batch, suite=suite))
    result = context.checkpoints.add(
        gx.Checkpoint(
            name=checked.name,
            validation_definitions=[definition],
            actions=[UpdateDataDocsAction(name="docs", site_names=["docs"])],
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [checked.named_by]},
        )
    ).run(batch_parameters={"dataframe": checked.table})
    (run,) = result.run_results.values()
    by_number = sorted(run.results, key=_number)
    return [
        _outcome(checked, expectation, one) for expectation, one in zip(checked.expectations, by_number, strict=True)
    ]


def _number(result: Any) -> int:
    return int(result.expectation_config.meta["number"])


def _outcome(checked: Checked, expectation: Expectation, result: Any) -> Outcome:
    if message := _exception(result.exception_info):
        raise RuntimeError(f"{expectation.kind} on {checked.name}: {message}")
    rows = result.result.get("unexpected_index_list") or []
    failing = tuple(sorted(str(row[checked.named_by]) for row in rows))
    return Outcome(checked.name, expectation, bool(result.success), failing, result.result.get("observed_value"))


def _exception(info: Mapping[str, Any]) -> str | None:
    """The message of an exception during the check, None without one; Great Expectations nests those of metrics."""
    parts = [info, *(part for part in info.values() if isinstance(part, Mapping))]
    return next((str(part["exception_message"]) for part in parts if part.get("raised_exception")), None)


def _site(docs: Path) -> Any:
    return {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())},
    }
