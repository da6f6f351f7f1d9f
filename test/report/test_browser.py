"""The page in a real browser: it sorts, filters, plays, fits, and does what no text says."""

import pytest
from handmade import ANSWERS, ATTACKS, HOSTILE, make_experiment
from playwright.sync_api import expect
from toys import MILLISECONDS

from pam.report.blocks import heading, table
from pam.report.page import page
from pam.report.results import read_results

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


@pytest.fixture
def events():
    """What the browser reports while a test runs."""
    return {"request": [], "console": [], "pageerror": [], "dialog": []}


@pytest.fixture
def tab(browser, file, events):
    tab = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
    tab.set_default_timeout(MILLISECONDS)
    tab.on("request", lambda request: events["request"].append(request.url))
    tab.on("console", lambda message: events["console"].append(message.text))
    tab.on("pageerror", lambda error: events["pageerror"].append(error))
    tab.on("dialog", lambda dialog: (events["dialog"].append(dialog.message), dialog.dismiss()))
    tab.goto(file.resolve().as_uri())
    yield tab
    tab.close()


def choose(tab, **fields):
    """Fill in the filter as a user does, and what is then shown."""
    for name, value in fields.items():
        kind = "checked" if value is True else "value"
        tab.evaluate(
            f"(() => {{ const field = document.getElementById('filter').elements.{name};"
            f"field.{kind} = {'true' if value is True else repr(value)};"
            "field.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )
    return tab.evaluate(SHOWN)


def open_details(tab):
    """Open all that can be opened; back when the answers' details are filled."""
    tab.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    filled = "(one) => one.querySelector('dl')"
    tab.wait_for_function(f"[...document.querySelectorAll('#list details')].every({filled})")


def test_it_loads_without_a_complaint(tab, file, events):
    requests = {url for url in events["request"] if not url.startswith("data:")}
    assert requests == {file.resolve().as_uri()}
    assert events["pageerror"] == events["console"] == []
    assert tab.evaluate("document.title") == "Results: tiny <b>"


def test_hostile_text_is_shown_and_does_nothing(tab, events):
    assert choose(tab, task="ac") == [line["id"] for line in ATTACKS]
    open_details(tab)
    tab.wait_for_timeout(200)  # an attack may come late
    assert tab.evaluate("typeof attacked") == "undefined"
    assert events["dialog"] == []
    assert tab.evaluate(texts("#list dd:nth-of-type(1)")) == [text or "—" for text in HOSTILE]
    assert tab.evaluate(texts(".prompt bdi")) == HOSTILE
    assert tab.evaluate("document.scripts.length") == 2
    assert tab.evaluate("document.querySelectorAll('#list img, #list script, #list a').length") == 0
    assert tab.evaluate(NAMES)[2] == "é <script>attacked = true</script>"


def test_the_policy_would_stop_an_attack(tab):
    """Were a text to become markup after all: no handler runs, nothing is fetched."""
    tab.evaluate(
        "try { document.body.setAttribute('onclick', 'attacked = true') } catch {}"
        "document.body.click()"
    )
    assert tab.evaluate("typeof attacked") == "undefined"
    blocked = tab.evaluate(
        "new Promise((done) => {"
        "addEventListener('securitypolicyviolation', (event) => done(event.violatedDirective));"
        "new Image().src = 'http://127.0.0.1:9/x.png' })"
    )
    assert blocked == "img-src"


def test_tables_are_sorted_by_mouse_and_keyboard(tab):
    report, (b, a, script, c) = tab.evaluate(NAMES), tab.evaluate(NAMES)
    heads = "document.querySelectorAll('#report th button')"
    order = "document.querySelectorAll('#report th')[{}].getAttribute('aria-sort')"
    tab.evaluate(f"{heads}[1].click()")
    assert tab.evaluate(NAMES) == [c, a, b, script]  # by number, the gap last
    assert tab.evaluate(order.format(1)) == "ascending"
    tab.evaluate(f"{heads}[1].click()")
    assert tab.evaluate(NAMES) == [b, a, c, script]
    assert tab.evaluate(order.format(1)) == "descending"
    tab.evaluate(f"{heads}[1].click()")
    assert tab.evaluate(NAMES) == report and tab.evaluate(order.format(1)) is None
    tab.evaluate(f"{heads}[0].focus()")
    tab.keyboard.press("Enter")
    assert tab.evaluate(NAMES) == [a, b, c, script]
    assert tab.evaluate(order.format(0)) == "ascending"
    tab.keyboard.press("Space")
    assert tab.evaluate(NAMES) == [script, c, b, a]


def test_the_keyboard_reaches_the_next_column(tab):
    tab.evaluate("document.querySelectorAll('#report th button')[0].focus()")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "value"


def test_answers_are_filtered(tab):
    everything = len(ANSWERS) + len(ATTACKS)
    assert tab.evaluate(COUNT) == f"{everything} of {everything} answers"
    speech = [line["id"] for line in ANSWERS]
    assert choose(tab, task="asr_clean") == speech[:30]
    assert tab.evaluate("document.getElementById('more').click()") is None
    assert tab.evaluate(SHOWN) == speech and tab.evaluate("document.getElementById('more').hidden")
    assert choose(tab, wrong=True) == speech[1::2]
    assert choose(tab, misrouted=True) == ["utt05"]
    assert tab.evaluate("document.querySelector('.misrouted').textContent") == "⚠ misrouted"
    tab.evaluate("document.querySelector('#filter [type=reset]').click()")
    expect(tab.locator("#count")).to_have_text(f"{everything} of {everything} answers")
    assert choose(tab, set="1", text="ONE  utt17") == ["utt17"]
    assert choose(tab, text="<script> attacked") == []
    assert choose(tab, set="0") == [ATTACKS[number]["id"] for number in (0, 1)]
    assert choose(tab, set="", text="", audio=True) == ["utt10", "utt30"]


def test_answers_are_ordered(tab):
    assert choose(tab, task="asr_clean", order="posterior")[0] == "utt05"
    assert choose(tab, order="errors")[:2] == ["utt01", "utt03"]


def test_the_difference_is_marked_by_letters(tab):
    choose(tab, text="utt01")
    assert tab.evaluate(texts("#list .diff .ref")) == ["one", "two", "three"]
    assert tab.evaluate(texts("#list .diff .hyp")) == ["one", "two", "four"]
    assert tab.evaluate(texts("#list .diff .mark")) == ["", "", "S"]


def test_what_is_said_of_an_answer(tab):
    choose(tab, text="utt05")
    open_details(tab)
    text = tab.evaluate("document.querySelector('#list li').innerText")
    for part in (
        "✗ wrong",
        "expert ac, p = 0.400",
        "unseen in training",
        "No audio: this page",
        "FOUR!",
    ):
        assert part in text
    assert tab.evaluate(texts("#list h4")) == [
        "Layer weights of the expert shared, the largest ±3.500",
        "Layer weights of the expert ac, the largest ±0.200",
    ]
    assert tab.evaluate(texts("#list rect"))[::5] == [
        "one, layer 0: -0.5000",
        "one, layer 0: 0.2000",
    ]
    heights = "[...document.querySelectorAll('#list rect')].map((bar) => bar.height.baseVal.value)"
    assert tab.evaluate(heights)[:5] == pytest.approx(
        [24 * w / 7 for w in (1, 1, 3, 5, 7)], abs=1e-3
    )
    assert tab.evaluate(heights)[5:] == [24] * 5


def test_a_clip_plays(tab):
    choose(tab, audio=True)
    assert tab.evaluate("document.querySelectorAll('#list audio').length") == 2
    ready, duration, time = tab.evaluate(
        "new Promise((done, failed) => {"
        "const audio = document.querySelector('#list audio');"
        "audio.addEventListener('error', () => failed(audio.error.message));"
        "audio.addEventListener('timeupdate', () => audio.currentTime > 0 &&"
        "done([audio.readyState, audio.duration, audio.currentTime]));"
        "audio.play().catch(failed) })"
    )
    assert ready >= 2 and duration == pytest.approx(0.5, abs=0.1) and time > 0


@pytest.mark.parametrize("width, is_mobile", [(1200, False), (390, True)])
def test_nothing_is_wider_than_the_window(browser, file, width, is_mobile):
    tab = browser.new_page(viewport={"width": width, "height": 800}, is_mobile=is_mobile)
    tab.set_default_timeout(MILLISECONDS)
    tab.goto(file.resolve().as_uri())
    choose(tab, task="ac")
    open_details(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.close()


def test_it_is_dark_where_the_system_is(tab):
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(background)
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(background) != light
