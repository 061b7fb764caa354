"""The page for people, in a real browser, and the plain form that needs none."""

import re
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from running import Project, png

pytestmark = [pytest.mark.slow, pytest.mark.browser]

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
DESK = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture
def page(chromium, service):
    """The page on a desk's screen; fails if it asked anybody else for anything, or logged an error."""
    yield from opened(chromium, service, **DESK)


def opened(chromium, service, **look):
    context = chromium.new_context(**look)
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if is_error(line) else None)
    page.goto(service.url)
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((service.url, "data:", "blob:"))] == []
    assert errors == []


def is_error(line):
    """Chromium logs every 422 as an error; that a refusal is shown is tested on the page."""
    return line.type == "error" and "status of 422" not in line.text


@pytest.fixture
def files(tmp_path, known):
    """A picture with a helmet, one without, and no picture."""
    paths = []
    for name, content in (
        ("yes.png", known["with_helmet/0.png"]),
        ("no.png", known["without_helmet/1.png"]),
        ("notes.png", b"no picture"),
    ):
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)
    return paths


def answered(page, count):
    page.wait_for_function(
        "n => document.querySelectorAll('#cards .card').length === n"
        " && /answered/.test(document.getElementById('said').textContent)",
        arg=count,
    )
    return page.locator("#cards .card").all_inner_texts()


def serious(page):
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


def test_pictures_are_answered_in_place_and_a_refusal_is_clear(page, files):
    page.set_input_files("#files", files)
    cards = answered(page, 3)
    by_name = {re.search(r"\w+\.png", card)[0]: card for card in cards}
    assert "with_helmet" in by_name["yes.png"]
    assert "ALARM" in by_name["no.png"]
    assert "REFUSED" in by_name["notes.png"]
    assert "not a picture" in by_name["notes.png"]
    assert "2 of 3 pictures answered" in page.inner_text("#said")
    assert "by version 1" in by_name["yes.png"]


def test_the_overlay_comes_on_request(page, files):
    page.check("#explain")
    page.set_input_files("#files", files[:1])
    answered(page, 1)
    assert page.get_attribute("#cards img", "src").startswith("data:image/png;base64,")
    assert "orange where covering" in page.get_attribute("#cards img", "alt")


def test_a_picture_is_pasted_and_dropped(page, known):
    data = list(known["with_helmet/0.png"])
    make = """([data, kind]) => { const all = new DataTransfer();
      all.items.add(new File([new Uint8Array(data)], "shot.png", {type: "image/png"}));
      const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: all, bubbles: true})
        : new DragEvent("drop", {dataTransfer: all, bubbles: true, cancelable: true});
      document.getElementById("drop").dispatchEvent(event); }"""
    for kind in ("paste", "drop"):
        page.evaluate(make, [data, kind])
        assert "with_helmet" in answered(page, 1)[0]
        page.reload()


def test_by_keyboard_alone(page, files):
    page.set_input_files("#files", files[:1])
    answered(page, 1)
    page.reload()
    seen = []
    for _ in range(8):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    order = [name for name in ("Skip to the answers", "files", "camera", "explain", "Ask") if name in seen]
    assert [seen.index(name) for name in order] == sorted(seen.index(name) for name in order)
    assert len(order) == 5
    page.focus("#ask button")
    page.keyboard.press("Enter")
    assert page.inner_text("#said") == "Choose a picture first."


@pytest.mark.parametrize("look", [DESK, PHONE, {**PHONE, "color_scheme": "dark"}], ids=["desk", "phone", "dark"])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(chromium, service, files, look, tmp_path):
    for page in opened(chromium, service, **look):
        assert serious(page) == []
        page.set_input_files("#files", files)
        answered(page, 3)
        assert serious(page) == []
        assert page.evaluate(
            "document.documentElement.scrollWidth <= screen.width"
        )  # innerWidth grows with what overflows
        assert page.get_attribute("#camera", "capture") == "environment"


def test_without_scripts_the_form_is_answered_as_a_page(chromium, service, files):
    context = chromium.new_context(java_script_enabled=False, **DESK)
    page = context.new_page()
    page.goto(service.url)
    page.set_input_files("#files", files)
    page.check("#explain")
    page.click("#ask button")
    cards = page.locator("#cards .card").all_inner_texts()
    assert len(cards) == 3
    assert "with_helmet" in cards[0]
    assert re.search(r"Confidence: \d+\.\d % of the softmax", cards[0])
    assert "REFUSED" in cards[2]
    assert serious_without_script(page)
    context.close()


def serious_without_script(page):
    """Axe needs scripts; at least every picture has words and every field a label."""
    images = page.locator("#cards img")
    return images.count() == 2 and all(images.nth(n).get_attribute("alt") for n in range(2))


def labels_of(project):
    with closing(sqlite3.connect(project.root / "served/record.sqlite")) as database:
        return database.execute("select id, label from labels order by number").fetchall()


def kept(page, card):
    """What the card says once something was sent; it is told to screen readers, too."""
    said = page.locator("#cards .card").nth(card).get_by_role("status")
    said.filter(has_text=re.compile(r"Kept|NOT KEPT|first")).wait_for()
    return said.inner_text()


def test_a_person_says_by_keyboard_whether_an_answer_was_right(page, files, project):
    page.set_input_files("#files", files[:1])
    answered(page, 1)
    before = len(labels_of(project))
    group = page.get_by_role("group", name="Was the answer for yes.png right?")
    group.get_by_role("button", name="Right").focus()
    page.keyboard.press("Enter")
    assert kept(page, 0) == "Kept: it is with_helmet. Thank you."
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    assert group.get_by_label("Wrong, it is").locator("option").all_inner_texts() == ["without_helmet"]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Kept: it is without_helmet. Thank you.").wait_for()
    (first, right), (second, wrong) = labels_of(project)[before:]
    assert (first == second, right, wrong) == (True, "with_helmet", "without_helmet")


@pytest.mark.parametrize("fails", ["refused", "away"])
def test_feedback_that_is_not_kept_is_said_clearly_and_can_be_sent_again(chromium, service, files, fails):
    context = chromium.new_context(**DESK)
    page = context.new_page()
    page.goto(service.url)
    page.set_input_files("#files", files[:1])
    answered(page, 1)
    problem = {"detail": "No answer of this id is kept here."}

    def fail(route):
        route.abort() if fails == "away" else route.fulfill(status=404, json=problem)

    page.route("**/v1/feedback", fail)
    page.get_by_role("button", name="Right").click()
    words = "The server does not answer: try again in a moment." if fails == "away" else problem["detail"]
    assert kept(page, 0) == f"NOT KEPT {words}"
    page.unroute("**/v1/feedback")
    page.get_by_role("button", name="Right").click()
    page.get_by_text("Kept: it is with_helmet. Thank you.").wait_for()
    context.close()


def test_without_scripts_feedback_is_a_plain_form(chromium, service, files, project):
    context = chromium.new_context(java_script_enabled=False, **DESK)
    page = context.new_page()
    page.goto(service.url)
    page.set_input_files("#files", files[:1])
    page.click("#ask button")
    page.get_by_role("group", name="Was the answer for yes.png right?").get_by_role("button", name="Send").click()
    assert page.inner_text("#said") == "Kept: it is without_helmet. Thank you."
    assert labels_of(project)[-1][1] == "without_helmet"
    context.close()
    unknown = service.client.post("/feedback", data={"id": "0" * 32, "label": "with_helmet"})
    assert (unknown.status_code, "No answer of this id is kept here." in unknown.text) == (404, True)
    assert service.client.post("/feedback", data={"id": "x"}).status_code == 422
    assert service.client.post("/feedback", json={"id": "x"}).status_code == 415


def test_where_no_answer_is_kept_none_is_asked_for(chromium, tmp_path, registered, files):
    quiet = Project(tmp_path / "quiet", registered).champion(1).settings(record="none")
    with quiet.serving("--workers", "1") as service:
        assert 'action="/feedback"' not in service.client.get("/").text
        for page in opened(chromium, service, **DESK):
            page.set_input_files("#files", files[:1])
            assert "with_helmet" in answered(page, 1)[0]
            assert page.locator(".feedback").count() == 0


@pytest.mark.parametrize("path", ["/", "/predict"])
def test_a_plain_form_post_gets_label_and_a_hundred_times_the_largest_softmax(service, known, path):
    content = known["without_helmet/1.png"]
    answer = service.client.post(path, files={"file": ("x.png", content)})
    assert answer.headers["content-type"].startswith("text/html")
    softmax = service.predict(content).json()["answers"][0]["softmax"]
    assert f"Confidence: {100 * max(softmax.values()):.1f} % of the softmax" in answer.text
    assert ">without_helmet<" in answer.text


def test_a_name_is_text_on_the_page_never_code(service, known):
    name = "<script>alert(1)</script>.png"
    page = service.client.post("/", files={"file": (name, known["with_helmet/0.png"])}).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    answer = service.client.post("/", content=b"x", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert "REFUSED" in answer.text


def test_the_page_allows_its_own_script_only(service):
    answer = service.client.get("/")
    nonce = re.search(r"script-src 'nonce-([^']+)'", answer.headers["content-security-policy"])[1]
    assert f'<script nonce="{nonce}">' in answer.text
    assert nonce not in service.client.get("/").text
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_screens(chromium, service, known, tmp_path):
    """Pictures to look at, where PLUMBLINE_SCREENS says they are wanted."""
    import os

    folder = os.environ.get("PLUMBLINE_SCREENS")
    if not folder:
        pytest.skip("PLUMBLINE_SCREENS is not set")
    paths = []
    for n, content in enumerate([*list(known.values())[:3], png(np.zeros((16, 16, 3), np.uint8)), b"no picture"]):
        paths.append(tmp_path / f"gate-{n}.png")
        paths[-1].write_bytes(content)
    for name, look in (("desk", DESK), ("phone", PHONE), ("dark", {**DESK, "color_scheme": "dark"})):
        for page in opened(chromium, service, **look):
            page.set_input_files("#files", paths)
            answered(page, 5)
            page.screenshot(path=f"{folder}/{name}.png", full_page=True)
