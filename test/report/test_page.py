"""The page: nothing in it but our script runs, nothing is fetched, and it stays small."""

import base64
import hashlib
import io
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile
from handmade import ANSWERS, ATTACKS, HOSTILE, NAME, write_audio

from pam.bin import report
from pam.report import clips
from pam.report.blocks import heading, table
from pam.report.page import page, to_json
from pam.report.results import read_results

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = [heading(1, "Results"), heading(2, "tiny"), table(["a"], [["b"]])]


class Elements(HTMLParser):
    """The tags of a page in order, with attributes, and the text of its scripts and style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.texts.setdefault(len(self.tags) - 1, data)


def make(exp, **options):
    return page(DOCUMENT, exp, [read_results(exp)], [exp], [exp.parents[1] / "dump/raw"], **options)


def content(text):
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(block)


def digest(text):
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@pytest.mark.parametrize("text", HOSTILE)
def test_json_ends_nothing_and_loses_nothing(text):
    written = to_json({"key": [text]})
    assert written.isascii() and not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {"key": [text]}


def test_the_page_has_only_its_own_elements(experiment):
    text = make(experiment)
    assert not re.search(r"[\u2028\u2029\u202e\ud800]", text)
    found = Elements(text)
    template = (ROOT / "pam/report/page.html").read_text()
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in Elements(template).tags]
    assert [one["hyp"] for one in content(text)["sets"][0]["answers"]] == HOSTILE
    for _, attributes in found.tags:
        assert not any(name.startswith("on") or name in ("src", "href") for name in attributes)


def test_the_policy_names_the_style_and_the_script_and_nothing_else(experiment):
    found = Elements(make(experiment))
    policy = next(a["content"] for tag, a in found.tags if tag == "meta" and "http-equiv" in a)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    kinds = {
        tag: found.texts[n]
        for n, (tag, attributes) in enumerate(found.tags)
        if tag in ("script", "style") and "type" not in attributes
    }
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'{digest(kinds['script'])}'",
        "style-src": f"'{digest(kinds['style'])}'",
        "img-src": "data:",
        "media-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
    }


def test_the_script_writes_text_only():
    script = (ROOT / "pam/report/page.js").read_text()
    for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert name not in script
    assert "</" not in script


def test_clips_are_taken_evenly_and_can_be_heard(experiment):
    found = content(make(experiment, clips=2))
    by_name = {one["name"]: one["answers"] for one in found["sets"]}
    places = {one["id"]: one["clip"] for one in by_name["asr_clean_test"]}
    assert {utt: place for utt, place in places.items() if isinstance(place, int)} == {
        "utt10": 0,
        "utt30": 1,
    }
    assert places["utt00"] == clips.NOT_CHOSEN.format(count=2)
    missing = {one["clip"] for one in by_name["ac_test"]}
    assert missing == {clips.NO_FOLDER.format(folder="raw/ac_test")}
    for clip in found["clips"]:
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clip)))
        assert rate == 16000 and len(samples) >= 8000 and abs(samples).max() > 0.1


def test_clips_that_cannot_be_read_say_so(experiment):
    raw = experiment.parents[1] / "dump/raw"
    (raw / "asr_clean_test.flac").write_bytes(b"no audio")
    found = content(make(experiment, clips=1))
    assert found["clips"] == []
    assert clips.NO_FILE in {one["clip"] for one in found["sets"][1]["answers"]}


def test_the_page_stays_below_its_limit(experiment):
    write_audio(experiment.parents[1] / "dump/raw", "asr_clean_test", ANSWERS, seconds=4)
    bare, full = make(experiment, clips=0), make(experiment, clips=8)
    one = len(content(full)["clips"][0])
    assert len(content(full)["clips"]) == 8 and len(full) > len(bare) + 8 * one - 1000
    limit = len(bare) + 3 * one + 1000
    cut = make(experiment, clips=8, limit=limit)
    assert len(cut) <= limit and len(content(cut)["clips"]) == 3
    assert clips.NO_ROOM in {one["clip"] for one in content(cut)["sets"][1]["answers"]}


def test_sets_take_turns_and_a_clip_is_held_once(experiment):
    sets = content(make(experiment, clips=1))["sets"]
    assert [(one["name"], one["total"]) for one in sets] == (
        [("ac_test", len(ATTACKS)), ("asr_clean_test", len(ANSWERS))]
    )
    again = experiment.rename(experiment.with_name("again"))
    data = again.parents[1] / "dump/raw"
    twice = content(
        page(DOCUMENT, again, [read_results(again)] * 2, [again] * 2, [data] * 2, clips=3)
    )
    assert len(twice["clips"]) == 3
    assert [one["clip"] for one in twice["sets"][1]["answers"]] == (
        [one["clip"] for one in twice["sets"][3]["answers"]]
    )


def test_weights_are_those_of_the_checkpoint(experiment):
    found = content(make(experiment))["weights"][NAME]
    assert found["encoders"] == [["one", 2], ["two", 3]]
    assert found["experts"]["shared"] == [-0.5, 0.5, 1.5, 2.5, 3.5]  # mean of n - 3 and n + 2
    assert found["experts"]["ac"] == [0.2] * 5
    (experiment / "model.pth").unlink()
    assert content(make(experiment))["weights"] == {NAME: None}


def test_the_verb_writes_it_beside_the_report_or_elsewhere(experiment, tmp_path):
    options = ["--exp", str(experiment), "--figures", "no"]
    report.main([*options, "--html", "--html_clips", "1"])
    found = content((experiment / "report.html").read_text())
    assert len(found["clips"]) == 1 and found["title"] == NAME
    headings = [block["text"] for block in found["blocks"] if block["kind"] == "heading"]
    assert headings[:2] == ["Results", NAME] and "Environment" in headings
    report.main([*options, "--html", str(tmp_path / "p.html"), "--html_data", str(tmp_path)])
    assert content((tmp_path / "p.html").read_text())["clips"] == []


def test_figures_are_inside(experiment):
    curves = [{"phase": "llm", "epoch": 1, "step": 1, "train": {"loss": 1.0}, "dev": {}}]
    (experiment / "curves.json").write_text(json.dumps(curves))
    report.main(["--exp", str(experiment), "--html"])
    blocks = content((experiment / "report.html").read_text())["blocks"]
    images = {b["name"]: b["image"] for b in blocks if b["kind"] == "figure"}
    assert list(images) == ["curves", "weights", "weights_bands"]
    for name, image in images.items():
        png = (experiment / "figures" / f"{name}.png").read_bytes()
        assert image == f"data:image/png;base64,{base64.b64encode(png).decode()}"


def test_files_that_are_no_python_are_installed(monkeypatch):
    found: dict = {}
    monkeypatch.setattr("setuptools.setup", lambda **options: found.update(options))
    runpy.run_path(str(ROOT / "setup.py"))
    for room in ("analysis", "report", "paper"):
        files = [path for path in (ROOT / "pam" / room).iterdir() if path.is_file()]
        parts = {path.name for path in files if path.suffix != ".py"}
        assert {*found["package_data"][f"pam.{room}"]} == parts
