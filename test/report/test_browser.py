"""The page in a real browser: it sorts, filters, plays, fits, and does what no text says."""

import tempfile
from pathlib import Path

import pytest
from chromium import find_chromium, start
from handmade import ANSWERS, ATTACKS, HOSTILE, make_experiment

from pam.report.blocks import heading, table
from pam.report.page import page
from pam.report.results import read_results

PROGRAM = find_chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome is installed")
DOCUMENT = [
    heading(1, "Results"),
    heading(2, "tiny"),
    table(
        ["name", "value:"],
        [
            ["b", "10.00 (1 / 10)"],
            ["a", "9.50"],
            ["é <script>attacked = true</script>", "—"],
            ["c", "-2"],
        ],
    ),
]


def texts(selector):
    """An expression for the texts of the elements that it selects."""
    return f"[...document.querySelectorAll('{selector}')].map((one) => one.textContent)"


NAMES, SHOWN = texts("#report tbody td:first-child"), texts("#list h3")
COUNT = "document.getElementById('count').textContent"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    exp = make_experiment(tmp_path_factory.mktemp("page"))
    text = page(DOCUMENT, exp, [read_results(exp)], [exp], [exp.parents[1] / "dump/raw"], clips=2)
    (exp / "report.html").write_text(text, encoding="utf-8")
    return exp / "report.html"


@pytest.fixture(scope="module")
def browser():
    # Not pytest's folder: the browser may still write to it when it is removed.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        start(PROGRAM, Path(profile)) as chromium,
    ):
        yield chromium


@pytest.fixture
def tab(browser, file):
    browser.look(1200, 900, "light")
    browser.open(file)
    return browser


def choose(tab, **fields):
    """Fill in the filter as a user does, and what is then shown."""
    for name, value in fields.items():
        kind = "checked" if value is True else "value"
        tab.run(
            f"(() => {{ const field = document.getElementById('filter').elements.{name};"
            f"field.{kind} = {'true' if value is True else repr(value)};"
            "field.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )
    return tab.run(SHOWN)


def test_it_loads_without_a_complaint(tab, file):
    requests = [params["request"]["url"] for params in tab.seen("Network.requestWillBeSent")]
    assert {url for url in requests if not url.startswith("data:")} == {file.resolve().as_uri()}
    assert tab.seen("Runtime.exceptionThrown") == []
    assert tab.seen("Log.entryAdded") == []
    assert tab.run("document.title") == "Results: tiny <b>"


def test_hostile_text_is_shown_and_does_nothing(tab):
    assert choose(tab, task="ac") == [line["id"] for line in ATTACKS]
    tab.run("document.querySelectorAll('#list details').forEach((one) => (one.open = true))")
    tab.run("new Promise((done) => setTimeout(done, 200))")
    assert tab.run("typeof attacked") == "undefined"
    assert tab.seen("Page.javascriptDialogOpening") == []
    assert tab.run(texts("#list dd:nth-of-type(1)")) == [text or "—" for text in HOSTILE]
    assert tab.run(texts(".prompt bdi")) == HOSTILE
    assert tab.run("document.scripts.length") == 2
    assert tab.run("document.querySelectorAll('#list img, #list script, #list a').length") == 0
    assert tab.run(NAMES)[2] == "é <script>attacked = true</script>"


def test_the_policy_would_stop_an_attack(tab):
    """Were a text to become markup after all: no handler runs, nothing is fetched."""
    tab.run(
        "try { document.body.setAttribute('onclick', 'attacked = true') } catch {}"
        "document.body.click()"
    )
    assert tab.run("typeof attacked") == "undefined"
    blocked = tab.run(
        "new Promise((done) => {"
        "addEventListener('securitypolicyviolation', (event) => done(event.violatedDirective));"
        "new Image().src = 'http://127.0.0.1:9/x.png' })"
    )
    assert blocked == "img-src"


def test_tables_are_sorted_by_mouse_and_keyboard(tab):
    report, (b, a, script, c) = tab.run(NAMES), tab.run(NAMES)
    heads = "document.querySelectorAll('#report th button')"
    order = "document.querySelectorAll('#report th')[{}].getAttribute('aria-sort')"
    tab.run(f"{heads}[1].click()")
    assert tab.run(NAMES) == [c, a, b, script]  # by number, the gap last
    assert tab.run(order.format(1)) == "ascending"
    tab.run(f"{heads}[1].click()")
    assert tab.run(NAMES) == [b, a, c, script]
    assert tab.run(order.format(1)) == "descending"
    tab.run(f"{heads}[1].click()")
    assert tab.run(NAMES) == report and tab.run(order.format(1)) is None
    tab.run(f"{heads}[0].focus()")
    tab.press("Enter", "\r")
    assert tab.run(NAMES) == [a, b, c, script]
    assert tab.run(order.format(0)) == "ascending"
    tab.press(" ", " ")
    assert tab.run(NAMES) == [script, c, b, a]


def test_the_keyboard_reaches_the_next_column(tab):
    tab.run("document.querySelectorAll('#report th button')[0].focus()")
    tab.press("Tab")
    assert tab.run("document.activeElement.textContent") == "value"


def test_answers_are_filtered(tab):
    everything = len(ANSWERS) + len(ATTACKS)
    assert tab.run(COUNT) == f"{everything} of {everything} answers"
    speech = [line["id"] for line in ANSWERS]
    assert choose(tab, task="asr_clean") == speech[:30]
    assert tab.run("document.getElementById('more').click()") is None
    assert tab.run(SHOWN) == speech and tab.run("document.getElementById('more').hidden")
    assert choose(tab, wrong=True) == speech[1::2]
    assert choose(tab, misrouted=True) == ["utt05"]
    assert tab.run("document.querySelector('.misrouted').textContent") == "⚠ misrouted"
    tab.run("document.querySelector('#filter [type=reset]').click()")
    tab.run("new Promise((done) => setTimeout(done, 50))")
    assert tab.run(COUNT) == f"{everything} of {everything} answers"
    assert choose(tab, set="1", text="ONE  utt17") == ["utt17"]
    assert choose(tab, text="<script> attacked") == []
    assert choose(tab, set="0") == [ATTACKS[number]["id"] for number in (0, 1)]
    assert choose(tab, set="", text="", audio=True) == ["utt10", "utt30"]


def test_answers_are_ordered(tab):
    assert choose(tab, task="asr_clean", order="posterior")[0] == "utt05"
    assert choose(tab, order="errors")[:2] == ["utt01", "utt03"]


def test_the_difference_is_marked_by_letters(tab):
    choose(tab, text="utt01")
    assert tab.run(texts("#list .diff .ref")) == ["one", "two", "three"]
    assert tab.run(texts("#list .diff .hyp")) == ["one", "two", "four"]
    assert tab.run(texts("#list .diff .mark")) == ["", "", "S"]


def test_what_is_said_of_an_answer(tab):
    choose(tab, text="utt05")
    tab.run("document.querySelector('#list details').open = true")
    tab.run("new Promise((done) => setTimeout(done, 100))")
    text = tab.run("document.querySelector('#list li').innerText")
    for part in ("✗ wrong", "expert ac, p = 0.400", "unseen in training", "No audio: of", "FOUR!"):
        assert part in text
    assert tab.run(texts("#list h4")) == [
        "Layer weights of the expert shared, the largest ±3.500",
        "Layer weights of the expert ac, the largest ±0.200",
    ]
    assert tab.run(texts("#list rect"))[::5] == ["one, layer 0: -0.5000", "one, layer 0: 0.2000"]
    heights = "[...document.querySelectorAll('#list rect')].map((bar) => bar.height.baseVal.value)"
    assert tab.run(heights)[:5] == pytest.approx([24 * w / 7 for w in (1, 1, 3, 5, 7)], abs=1e-3)
    assert tab.run(heights)[5:] == [24] * 5


def test_a_clip_plays(tab):
    choose(tab, audio=True)
    assert tab.run("document.querySelectorAll('#list audio').length") == 2
    ready, duration, time = tab.run(
        "new Promise((done, failed) => {"
        "const audio = document.querySelector('#list audio');"
        "audio.addEventListener('error', () => failed(audio.error.message));"
        "audio.addEventListener('timeupdate', () => audio.currentTime > 0 &&"
        "done([audio.readyState, audio.duration, audio.currentTime]));"
        "audio.play().catch(failed) })"
    )
    assert ready >= 2 and duration == pytest.approx(0.5, abs=0.1) and time > 0


@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_is_wider_than_the_window(tab, width):
    tab.look(width, 800, "light")
    choose(tab, task="ac")
    tab.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert tab.run("document.documentElement.scrollWidth") <= width


def test_it_is_dark_where_the_system_is(tab):
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.run(background)
    tab.look(1200, 900, "dark")
    assert tab.run(background) != light
