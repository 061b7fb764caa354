"""A progress bar hands on every item, and on a pipe prints few lines."""

from plumbline.common.progress import progress


def test_every_item_comes_through_in_order(capsys):
    assert list(progress(iter("abc"), "reading letters", total=3, unit="letter")) == ["a", "b", "c"]
    said = capsys.readouterr().err
    assert "reading letters: 100%" in said
    assert "3/3" in said
    assert said.count("\r") < 4, "a pipe gets a line now and then, not one for each item"
