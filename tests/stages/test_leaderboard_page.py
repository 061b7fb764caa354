"""The leaderboard page in a real browser: verdict first, no request, no overflow, keyboard and screen reader served."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from fabricated import write_project
from markupsafe import escape

from plumbline.commands import summary
from plumbline.commands.summary import table
from plumbline.common import artefacts
from plumbline.common.files import write_json
from plumbline.common.records import read_record, read_records, write_record
from plumbline.evidence.records import Decision, LeaderboardRow
from plumbline.evidence.results import result_of
from plumbline.pages.charts import Frame, axes, ticks
from plumbline.pages.leaderboard import chance, figure, title_of
from plumbline.registry.records import Promotion, digest_of
from stages import evaluate, gate, leaderboard, promote, race


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The page of a small project with a chosen, a tied, a worse and a missing candidate."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_project(root, {"tiny": 0.6, "small": 3.5, "a_candidate_with_a_very_long_name": 3.6}, absent=("broken",))
        params = yaml.safe_load((root / "params.yaml").read_text())
        (root / "params.yaml").write_text(yaml.safe_dump(params | {"ensembles": {"soft_vote": {}}}, sort_keys=False))
        write_json(root / "build" / "ensembles" / "not_made.json", {"soft_vote": "no other candidate is of its size"})
        cards = root / "reports" / "candidates"
        cards.mkdir(parents=True)
        (cards / "small.html").write_text("card")
        (root / "reports" / "leakage.html").write_text("certificate")
        evaluate.main()
        race.main()
        gate.main()
        leaderboard.main()
    return root / "reports" / "leaderboard.html"


@pytest.fixture
def opened(chromium, page_file):
    """Open the page; returns a function taking width and context options."""
    contexts = []

    def open_page(width: int = 1280, **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(page_file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.slow
def test_it_names_nothing_outside_itself(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?:https?:)?//|url\(|@import""", text)
    assert set(re.findall(r'<a [^>]*href="([^"#]+)"', text)) == {"leakage.html", "candidates/small.html"}
    assert text.count("<script>") == 1


@pytest.mark.slow
def test_a_class_name_cannot_become_markup(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, {"small": 3.0}, ["<b>a</b>", "b&c"])
    evaluate.main()
    race.main()
    gate.main()
    leaderboard.main()
    text = Path("reports/leaderboard.html").read_text(encoding="utf-8")
    assert "<b>a</b>" not in text
    assert "&lt;b&gt;a&lt;/b&gt;" in text


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A project whose decision is HOLD: a rule fails for lack of test groups."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, {"small": 3.5})
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["gate"] = {**(params.get("gate") or {}), "minimum_test_groups": 10_000}
    params["promote"] = {}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    evaluate.main()
    race.main()
    return tmp_path


@pytest.mark.slow
def test_page_terminal_and_summary_say_the_same_word_of_a_rule(held, capsys):
    gate.main()
    terminal = capsys.readouterr().out
    leaderboard.main()
    assert "HOLD" not in capsys.readouterr().out, "the gate has said it"
    page = Path("reports/leaderboard.html").read_text(encoding="utf-8")
    decision = read_record(artefacts.DECISION, Decision)
    lacking = next(rule for rule in decision.rules if rule.name == "test groups")
    assert (decision.verdict, result_of(lacking)) == ("HOLD", "failed")
    assert lacking.more_test_groups
    for rule in decision.rules:
        word = result_of(rule)
        assert re.search(rf"(?mi)^{word} +{re.escape(rule.name)}: ", terminal), rule.name
        row = re.search(
            rf'<th scope="row">{re.escape(escape(rule.name))}</th>\s*<td>\s*<span[^>]*>([^<]*)</span>', page
        )
        assert row[1] == word
    assert "  failed: test groups: " in table(read_records(artefacts.LEADERBOARD, LeaderboardRow), decision)


@pytest.mark.slow
def test_a_promotion_by_force_stands_on_the_page_of_the_decision_that_it_overruled(held, capsys, monkeypatch):
    """However it is promoted: the stage itself draws the page anew."""
    gate.main()
    decision = read_record(artefacts.DECISION, Decision)
    done = Promotion(
        outcome="promoted",
        reason="x",
        verdict="HOLD",
        candidate="small",
        champion=3,
        champion_before=2,
        comparison=None,
        registry="r",
        forced="gate 4 <opens>",
        decision_sha256=digest_of(decision),
    )
    said = "Promoted by force as version 3, although the gate said HOLD: gate 4 &lt;opens&gt;"
    monkeypatch.delitem(sys.modules, "stages.leaderboard")  # which the stage runs as `python -m` would
    monkeypatch.setattr(promote, "promote", lambda *_: done)  # test_promote.py has what it does to the registry
    monkeypatch.setattr("sys.argv", ["stages.promote", "--force", "--reason", "gate 4 <opens>", "--dry-run"])
    promote.main()
    assert not Path("reports/leaderboard.html").exists()
    monkeypatch.setattr("sys.argv", ["stages.promote", "--force", "--reason", "gate 4 <opens>"])
    promote.main()
    page = Path("reports/leaderboard.html").read_text(encoding="utf-8")
    assert f'<li class="alarm">{said}</li>' in page
    assert '<span class="badge reject">PROMOTED BY FORCE</span>' in page
    capsys.readouterr()
    summary.main()
    assert "Promoted by force as version 3, although the gate said HOLD: gate 4 <opens>" in capsys.readouterr().out
    for other in ({"forced": None}, {"decision_sha256": "of another decision"}):
        write_record(artefacts.PROMOTION, done.model_copy(update=other))
        leaderboard.main()
        assert "by force" not in Path("reports/leaderboard.html").read_text(encoding="utf-8").lower()


@pytest.mark.browser
def test_the_verdict_comes_first_and_nothing_is_fetched(opened, page_file):
    page = opened()
    assert page.locator("h1").inner_text() == "small may serve"
    assert page.locator(".badge").first.inner_text() == "PROMOTE"
    lead = page.locator(".lead").inner_text()
    assert re.search(r"from \d+ independent groups, it was right on \d+\.\d%; with 95% confidence", lead)
    assert [url for url in page.requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert page.complaints == []
    assert page.locator(".notes .alarm").get_by_text("Failed, so not compared: broken.").count() == 1
    assert "No ensemble (soft_vote), which takes two" in page.locator(".notes li:not(.alarm)").all_inner_texts()[-1]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_runs_over_the_edge(opened, width, scheme):
    page = opened(width, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth") <= page.evaluate(f"{root}.clientWidth")
    poking = page.evaluate(
        """() => [...document.querySelectorAll('p, h1, h2, h3, figure, svg.chart, .mistakes img')]
            .filter(item => item.getBoundingClientRect().right > innerWidth + 1).map(item => item.textContent)"""
    )
    assert poking == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(opened, scheme):
    page = opened(color_scheme=scheme)
    ratios = page.evaluate(
        """() => {
          const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
          const paint = (...colours) => {
            canvas.clearRect(0, 0, 1, 1);
            for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const light = rgb => {
            const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const found = {};
          for (const item of document.querySelectorAll('h1, p, dt, dd, td, th, caption, a, .badge, small, li')) {
            if (!item.textContent.trim() || !item.getClientRects().length) continue;
            const grounds = [];
            for (let up = item; up; up = up.parentElement) grounds.unshift(getComputedStyle(up).backgroundColor);
            const [front, back] = [paint(...grounds, getComputedStyle(item).color), paint(...grounds)].map(light);
            const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
            if (ratio < 4.5) found[item.tagName + '.' + item.className] = ratio;
          }
          return found;
        }"""
    )
    assert ratios == {}


@pytest.mark.browser
def test_the_table_sorts_by_keyboard_and_says_so(opened):
    page = opened()
    heads = page.locator("table[data-sortable] thead th")
    head = heads.filter(has_text="Accuracy, test")
    head.locator("button").focus()

    def accuracies() -> list[float]:
        column = page.locator("table[data-sortable] tbody tr td:nth-child(3)")
        return [float(value) for value in column.evaluate_all("cells => cells.map(cell => cell.dataset.value)")]

    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert accuracies() == sorted(accuracies(), reverse=True)
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    assert accuracies() == sorted(accuracies())
    page.locator("table[data-sortable] thead button").first.click()
    assert head.get_attribute("aria-sort") is None
    names = page.locator("table[data-sortable] tbody th").evaluate_all("cells => cells.map(cell => cell.dataset.value)")
    assert names == sorted(names)


@pytest.mark.browser
def test_a_screen_reader_finds_its_way(opened):
    page = opened()
    assert page.evaluate("document.documentElement.lang") == "en"
    for landmark in ("header", "main", "nav", "footer"):
        assert page.locator(landmark).count() == 1, landmark
    assert page.locator("h1").count() == 1
    assert page.locator("table").count() == page.locator("table > caption").count()
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("svg:not([aria-hidden='true']):not([role='img'][aria-label])").count() == 0
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator(".scroll:not([tabindex='0'][role='region'][aria-label])").count() == 0
    levels = page.locator("h1, h2, h3").evaluate_all("items => items.map(item => Number(item.tagName[1]))")
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = page.locator("[id]").evaluate_all("items => items.map(item => item.id)")
    assert len(ids) == len(set(ids))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


@pytest.mark.browser
def test_others_test_figures_are_marked(opened):
    page = opened()
    rows = page.locator("table[data-sortable] tbody tr:not(.reference)")
    assert rows.count() == 3
    for row in rows.all():
        chosen = "chosen" in (row.get_attribute("class") or "")
        assert ("decides nothing" in row.inner_text()) != chosen


@pytest.mark.browser
def test_worst_mistakes_are_pictures(opened):
    page = opened()
    page.locator("details#candidate-tiny summary").click()
    sizes = page.locator("details#candidate-tiny .mistakes img").evaluate_all(
        "images => Promise.all(images.map(image => image.decode().then(() => image.naturalWidth)))"
    )
    assert 0 < len(sizes) <= 6
    assert set(sizes) == {128}


@pytest.mark.browser
def test_without_javascript_everything_is_there(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("h1").inner_text() == "small may serve"
    assert page.locator("th button").count() == 0
    page.locator("details#candidate-tiny summary").click()
    assert page.locator("details#candidate-tiny svg.chart").first.is_visible()


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(1, 12) == pytest.approx([5, 10])
    assert ticks(0, 0.03) == pytest.approx([0, 0.01, 0.02, 0.03])
    assert ticks(2, 2) == [2]
    assert re.findall(r'middle">([\d.]+)<', axes(Frame(1, 2, 0, 1), "window", "share")) == ["1", "2"]


def test_figures_read_well():
    assert [figure(value) for value in (None, 413257, 0.91234, "imagenet", 0.0)] == [
        "–",
        "413,257",
        "0.912",
        "imagenet",
        "0.000",
    ]
    assert [chance(0.0004), chance(0.0124)] == ["< 0.001", "0.012"]
    assert title_of("ece_scaled") == "calibration error (scaled)"
    assert title_of("f1_macro") == "F1 macro"
