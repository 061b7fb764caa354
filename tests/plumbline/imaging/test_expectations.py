"""Great Expectations' answers as plain outcomes, with the failing rows named as a person would name them."""

import pandas as pd
import pytest

from plumbline.imaging.expectations import Checked, Expectation, check

TABLE = pd.DataFrame({"path": ["b.jpg", "a.jpg", "c.jpg"], "width": [10, 20, 900]})
WIDE = Expectation("expect_column_values_to_be_between", {"column": "width", "min_value": 32})
NARROW = Expectation(
    "expect_column_values_to_be_between", {"column": "width", "max_value": 1000}, severity="warning", notes="why"
)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    docs = tmp_path_factory.mktemp("docs") / "pages"
    rows = Expectation("expect_table_row_count_to_be_between", {"min_value": 4})
    return check([Checked("pictures", TABLE, "path", [NARROW, WIDE, rows])], docs), docs


def test_outcomes_come_in_the_order_asked_for(checked):
    outcomes, _ = checked
    assert [one.success for one in outcomes] == [True, False, False]
    assert [one.expectation.severity for one in outcomes] == ["warning", "critical", "critical"]
    assert {one.table for one in outcomes} == {"pictures"}


def test_failing_rows_are_named_and_sorted(checked):
    outcomes, _ = checked
    assert outcomes[1].failing == ("a.jpg", "b.jpg")
    assert (outcomes[2].failing, outcomes[2].observed) == ((), 3), "a table's own expectation names no row"


def test_data_docs_are_written(checked):
    _, docs = checked
    assert (docs / "index.html").is_file()
    assert list((docs / "validations" / "pictures").rglob("*.html"))


def test_an_expectation_that_cannot_be_checked_is_no_failing_row(tmp_path):
    missing = Expectation("expect_column_values_to_be_between", {"column": "height", "min_value": 1})
    with pytest.raises(RuntimeError, match="expect_column_values_to_be_between on pictures"):
        check([Checked("pictures", TABLE, "path", [missing])], tmp_path / "docs")
