"""Great Expectations' pages open without a network, behind an index that names each."""

import re

import pytest

from plumbline.pages.validation import write_docs

PAGE = """<html><head><link href="https://cdn.example/a.css"><style>@media (prefers-color-scheme: dark) {
  body {}
}
</style></head><body><script src="https://cdn.example/a.js"></script><p>kept</p>
<img src="https://example/logo.png"><script>$('x').hide()</script><footer>newsletter</footer></body></html>"""


@pytest.fixture
def docs(tmp_path):
    for name in ("validations/pictures/run/1.html", "expectations/pictures.html", "static/x.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(PAGE)
    return tmp_path


SUMMARY = {
    "counts": {"pictures": 3, "quarantined": 1},
    "version": "1.2",
    "problem": None,
    "warnings": ["one <warning>"],
    "classes": [{"class": "cat", "pictures": 3, "groups": 2}],
    "groups": "Groups are counted <by columns> only.",
    "expectations": [
        {
            "success": False,
            "severity": "critical",
            "says": "a width of 32 at least",
            "table": "pictures",
            "column": "width",
            "failing": ("cat/1.jpg",),
        }
    ],
    "quarantine": [],
}


def test_pages_load_nothing_from_elsewhere(docs):
    write_docs(docs, SUMMARY)
    page = (docs / "validations/pictures/run/1.html").read_text()
    assert re.findall(r"https?:", page) == []
    assert "<p>kept</p>" in page
    assert "newsletter" not in page
    assert '<link rel="stylesheet" href="../../../offline.css">' in page
    assert '<script src="../../../offline.js">' in page
    assert not (docs / "static").exists()
    assert (docs / "offline.css").is_file()


def test_the_index_links_each_expectation_to_its_page(docs):
    write_docs(docs, SUMMARY)
    index = (docs / "index.html").read_text()
    assert '<a class="muted" href="validations/pictures/run/1.html">pictures, width</a>' in index
    assert "cat/1.jpg" in index
    assert "one &lt;warning&gt;" in index
    assert "Groups are counted &lt;by columns&gt; only." in index
    assert re.findall(r"https?:", index) == []
