"""The page in a real browser: upload, prompt, answer, two systems, and what cannot be answered."""

import os

import numpy as np
import pytest
import soundfile
from toys import MILLISECONDS, tone

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported

from playwright.sync_api import expect  # noqa: E402

from pam.bin.demo import launch  # noqa: E402
from pam.data.datadir import DataDir  # noqa: E402
from pam.demo.examples import Example, examples_of  # noqa: E402
from pam.demo.page import make_page, notes, suggestions  # noqa: E402

PROMPT = "Write down what the speaker says."


@pytest.fixture
def wav(tmp_path):
    soundfile.write(tmp_path / "tone.wav", tone(16000), 16000)
    return tmp_path / "tone.wav"


@pytest.fixture
def served(speech_llm, tmp_path, wav):
    """The address of a page with two systems, and an example."""
    examples = [Example(str(wav), PROMPT, "a tone")]
    page = make_page({"one": speech_llm, "two": speech_llm}, tmp_path, examples)
    launch(page, tmp_path, "127.0.0.1", None, prevent_thread_lock=True)
    yield page.local_url
    page.close()


@pytest.fixture
def requested():
    return []


@pytest.fixture
def tab(browser, served, requested):
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})
    tab.set_default_timeout(MILLISECONDS)
    tab.on("request", lambda request: requested.append(request.url))
    tab.goto(served)
    yield tab
    tab.close()


def ask(tab, file, prompt):
    tab.locator("input[type=file]").first.set_input_files(file)
    field = tab.locator("#prompt input")
    field.fill(prompt)
    field.press("Enter")
    tab.locator("#ask").click()


def test_both_systems_answer(tab, wav, speech_llm, served, requested):
    expected = speech_llm.generate(wav, PROMPT)
    ask(tab, wav, PROMPT)
    for number in (0, 1):
        expect(tab.locator(f"#notes_{number} textarea")).to_have_value(
            begins_with(f"expert: {expected.expert}; 1.0 s of audio")
        )
        shown = tab.locator(f"#answer_{number} textarea").input_value()
        assert shown == expected.text.replace("\r", "\n")  # as text areas do
        expect(tab.locator(f"#experts_{number}")).to_contain_text(expected.expert)
        expect(tab.locator(f"#weights_{number} img")).to_be_visible()
    others = [url for url in requested if not url.startswith((served, "data:", "blob:"))]
    assert others == [], "the page fetches from other hosts"


def test_an_example(tab):
    tab.get_by_text("a tone").click()
    expect(tab.locator("#prompt input")).to_have_value(PROMPT)
    tab.locator("#ask").click()
    expect(tab.locator("#notes_0 textarea")).to_have_value(begins_with("expert: "))


def test_a_bad_upload_is_a_message(tab, tmp_path):
    bad = tmp_path / "picture.wav"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    ask(tab, bad, PROMPT)
    expect(tab.get_by_text("picture.wav: ").first).to_be_visible()


def test_no_audio_is_a_message(tab):
    tab.locator("#ask").click()
    expect(tab.get_by_text("Record or upload audio first.").first).to_be_visible()


def begins_with(start):
    import re

    return re.compile(f"^{re.escape(start)}")


def test_suggestions(speech_llm):
    found = suggestions(speech_llm.model.tasks)
    assert len(found) == len(set(found)) >= 8


def test_notes_say_what_is_doubtful(speech_llm):
    answer = speech_llm.generate(np.zeros(16000, np.float32), PROMPT)
    assert "no speech: the answer may be invented" in notes(answer)


def test_examples_of_a_set(tmp_path, wav):
    (tmp_path / "data").mkdir()
    files = {
        "wav.scp": {f"u{n}": str(wav) for n in range(4)},
        "text": {f"u{n}": f"words {n}" for n in range(4)},
        "utt2spk": {f"u{n}": "s" for n in range(4)},
        "utt2task": {f"u{n}": "asr_clean" for n in range(4)},
    }
    DataDir(files).write(tmp_path / "data")
    found = examples_of([tmp_path / "data"], 2, tmp_path)
    assert [example.label for example in found] == ["data: words 0", "data: words 2"]
    assert all(soundfile.info(example.audio).samplerate == 16000 for example in found)
