"""The AMI recipe on an imitation of its NXT annotations and headset recordings."""

import functools
import html
import importlib.util
import random
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pam.data.audio import load_audio
from pam.data.datadir import DataDir
from pam.data.scp import read_text_file
from pam.errors import PamError

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/ami"
sys.path[:0] = [str(RECIPE / "local")]

import ami_nxt  # noqa: E402
import ami_utterances  # noqa: E402
from ami_split import Token, pieces, text_of  # noqa: E402

XMLNS = 'xmlns:nite="http://nite.sourceforge.net/"'
SECONDS = 60
NO_CHILD = "<no child>"


@dataclass
class Agent:
    """A speaker of a meeting: segments are lines of elements, 0.5 s each, from a start.

    "word", "," and "." are <w>; "(laugh)" is a vocalsound, "{}" a disfmarker, "[gap]" a gap; "wo~"
    is broken off.
    """

    name: str
    channel: int
    segments: list[tuple[float, str]] = field(default_factory=list)


MEETINGS = {
    "EN2001a": {  # train: five headsets, the channels in another order than the agents
        "A": Agent("MEE068", 2, [(1.0, "Okay ."), (4.0, "it's the T_V_ , mm-hmm . so wh~ what ?")]),
        "B": Agent("FEE069", 0, [(1.2, "(laugh)"), (5.0, "[gap] Übung {} ."), (5.5, "over-lap")]),
        "C": Agent("MEO070", 1, [(7.0, "a-ha"), (50.0, NO_CHILD), (70.0, "too late")]),
        "D": Agent("MTD071UID", 3, [(9.0, "no recording of me")]),
        "E": Agent("FEE072", 4, [(11.0, "fifth headset .")]),
    },
    "ES2011a": {"A": Agent("FEE041", 0, [(2.0, "dev <unk> words"), (8.0, "<unk>")])},
    "EN2002a": {"A": Agent("FEO072", 3, [(3.0, "I'm a test")])},
}


def element(token: str, id: str, start: float) -> str:
    times = f'nite:id="{id}" starttime="{start:.2f}" endtime="{start + 0.5:.2f}"'
    if token == "(laugh)":
        return f'<vocalsound {times} type="laugh"/>'
    if token in ("{}", "[gap]"):
        return f"<{'disfmarker' if token == '{}' else 'gap'} {times}/>"
    if token in (",", ".", "?"):
        at = f'starttime="{start:.2f}" endtime="{start:.2f}"'
        return f'<w nite:id="{id}" {at} punc="true">{token}</w>'
    more = ' trunc="true"' if token.endswith("~") else ""
    text = html.escape(token.removesuffix("~")).replace("&#x27;", "&#39;")
    return f"<w {times}{more}>{text}</w>"


def write_xml(file: Path, lines: list[str], encoding: str = "ISO-8859-1") -> None:
    head = f'<?xml version="1.0" encoding="{encoding}" standalone="yes"?>'
    text = "\r\n".join([head, f'<nite:root nite:id="x" {XMLNS}>', *lines, "</nite:root>", ""])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode("utf-8-sig" if encoding == "UTF-8" else encoding))


def write_agent(folder: Path, meeting: str, agent: str, described: Agent) -> None:
    words, segments, count = [], [], 0
    for place, (start, text) in enumerate(described.segments):
        ids, child = [], ""
        for token in text.split() if text != NO_CHILD else []:
            ids.append(f"{meeting}.{agent}.words{count}")
            words.append(element(token, ids[-1], start + 0.5 * (len(ids) - 1)))
            count += 1
        if ids:
            last = f"..id({ids[-1]})" if len(ids) > 1 else ""
            child = f'<nite:child href="{meeting}.{agent}.words.xml#id({ids[0]}){last}"/>'
        head = f'nite:id="{meeting}.sync.{agent}{place}" transcriber_start="{start - 0.1:.3f}"'
        segments.append(f'<segment {head} transcriber_end="{start + 9}">{child}</segment>')
    write_xml(folder / f"words/{meeting}.{agent}.words.xml", words)
    write_xml(folder / f"segments/{meeting}.{agent}.segments.xml", segments, "UTF-8")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Annotations and recordings as local/download.py lays them out; one recording is missing."""
    folder, lines = tmp_path / "ami/annotations", []
    for meeting, agents in MEETINGS.items():
        lines.append(f'<meeting nite:id="m.{meeting}" observation="{meeting}" type="scenario">')
        for agent, described in agents.items():
            write_agent(folder, meeting, agent, described)
            lines.append(
                f'<speaker nite:id="s.{meeting}.{agent}" nxt_agent="{agent}" '
                f'global_name="{described.name}" channel="{described.channel}"/>'
            )
            if described.name != "MTD071UID":
                write_recording(tmp_path / "ami", meeting, described.channel)
        lines.append("</meeting>")
    write_xml(folder / "corpusResources/meetings.xml", lines)
    return tmp_path / "ami"


def write_recording(corpus: Path, meeting: str, channel: int) -> None:
    """Its samples tell the channel and the second."""
    file = corpus / f"amicorpus/{meeting}/audio/{meeting}.Headset-{channel}.wav"
    file.parent.mkdir(parents=True, exist_ok=True)
    levels = (np.arange(SECONDS) + 1) / 200 + channel / 2000
    soundfile.write(file, np.repeat(levels, 16000), 16000)


def prepare(*options: str | Path) -> tuple[int, str]:
    process = subprocess.run(
        [sys.executable, RECIPE / "local/prepare.py", *options], capture_output=True, text=True
    )
    return process.returncode, process.stdout + process.stderr


def prepared(corpus: Path, out: Path, *options: str) -> str:
    status, output = prepare("--corpus", corpus, "--out", out, *options)
    assert status == 0, output
    return output


def test_texts_times_and_speakers(corpus, tmp_path):
    prepared(corpus, tmp_path / "data")
    data = DataDir.read(tmp_path / "data/ami_train")
    assert data["text"] == {
        "AMI_EN2001a_H00_FEE069_0000500_0000650": "übung",
        "AMI_EN2001a_H00_FEE069_0000550_0000600": "over lap",
        "AMI_EN2001a_H01_MEO070_0000700_0000750": "a ha",
        "AMI_EN2001a_H02_MEE068_0000100_0000150": "okay",
        "AMI_EN2001a_H02_MEE068_0000400_0000650": "it's the t. v. mm-hmm",
        "AMI_EN2001a_H02_MEE068_0000650_0000850": "so wh what",
        "AMI_EN2001a_H04_FEE072_0001100_0001200": "fifth headset",
    }
    utt = "AMI_EN2001a_H02_MEE068_0000650_0000850"
    assert data["segments"][utt] == "AMI_EN2001a_H02 6.50 8.50"
    assert data["utt2spk"][utt] == "AMI_EN2001a_H02_MEE068"
    assert set(data["utt2cluster"].values()) == {"EN2001a"}
    assert data["wav.scp"]["AMI_EN2001a_H02"].endswith("EN2001a.Headset-2.wav")
    assert set(data["utt2task"].values()) == {"asr_noisy"}
    assert list(DataDir.read(tmp_path / "data/ami_dev")["text"].values()) == ["dev words"]
    assert list(DataDir.read(tmp_path / "data/ami_test")["text"].values()) == ["i'm a test"]


def test_recordings_behind_a_link(corpus, tmp_path):
    """As where only the annotations are on this disk."""
    (corpus / "amicorpus").rename(tmp_path / "disk")
    (corpus / "audio").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/circle").symlink_to(corpus)
    prepared(corpus, tmp_path / "data", "--sets", "ami_test")
    data = DataDir.read(tmp_path / "data/ami_test")
    assert list(data["text"].values()) == ["i'm a test"]
    (file,) = data["wav.scp"].values()
    assert Path(file).is_relative_to(corpus / "audio") and Path(file).is_file()


def test_report(corpus, tmp_path):
    output = prepared(corpus, tmp_path / "data")
    assert "ami_train: expected 108502 utterances, found 7 (-108495)" in output
    assert "ami_dev: expected 13098 utterances, found 1" in output
    assert "ami_train: 137 meetings expected, 136 without any segment: EN2001b" in output
    assert re.search(r"ami_train: 2 left out, no words.*: EN2001a.sync.B0", output)
    assert "ami_train: 1 left out, no audio: AMI_EN2001a_H03_MTD071UID_0000900" in output
    assert "ami_train: 7 of 7 utterances" in output
    longest = "AMI_EN2001a_H02_MEE068_0000400_0000650"
    assert f"ami_train: the longest lasts 2.5 s: {longest}" in output
    assert "ami_train: 1 recordings are missing: EN2001a.Headset-3.wav" in output
    assert re.search(r"MTD071UID_0000900_\d+ \(in EN2001a.Headset-3.wav\)", output)
    assert "ami_train: 1 left out, after the end of the audio: AMI_EN2001a_H01" in output
    assert "1 utterances begin before the last of their headset ends" in output
    assert re.search(r"ami_dev: 1 left out, no words.*: ES2011a.sync.A1", output)


def test_all_that_is_left_out_is_listed(corpus, tmp_path):
    prepared(corpus, tmp_path / "data")
    lines = (tmp_path / "data/ami_train/left_out.log").read_text().splitlines()
    assert [line.split("\t")[1] for line in lines if line.startswith("no words")] == [
        "EN2001a.sync.B0", "EN2001a.sync.C1"
    ]  # fmt: skip
    assert sum(line.startswith(ami_utterances.NO_AUDIO) for line in lines) == 1
    assert sum(line.startswith(ami_utterances.LATE) for line in lines) == 1 == len(lines) - 3


def test_only_the_sets_that_are_asked_for(corpus, tmp_path):
    """Who has the recordings of a few meetings only can do without the other sets."""
    for file in corpus.rglob("ES2011a.*"):
        file.unlink()
    prepared(corpus, tmp_path / "data", "--sets", "ami_test", "ami_train")
    names = sorted(folder.name for folder in (tmp_path / "data").iterdir())
    assert names == ["ami_test", "ami_train"]
    status, output = prepare("--corpus", corpus, "--out", tmp_path, "--sets", "ami_eval")
    assert status == 1 and "--sets ami_eval: this recipe makes ami_train, ami_dev" in output


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "soon", None])
def test_times_that_are_none(text):
    assert ami_nxt._seconds(text) is None and ami_nxt._seconds("0.5") == 0.5


def test_white_space_in_a_word_parts_words(tmp_path):
    times = 'nite:id="x" starttime="1" endtime="2"'
    write_xml(tmp_path / "words.xml", [f"<w {times}>\n New\n  York </w>"])
    assert text_of(ami_nxt.read_tokens(tmp_path / "words.xml")) == "new york"


def test_an_empty_segment_has_no_times_of_its_own(corpus, tmp_path):
    faults = {name: [] for name in (ami_utterances.EMPTY, ami_utterances.NO_TIME)}
    folder = corpus / "annotations"
    speakers = ami_nxt.read_speakers(folder)
    assert speakers["EN2001a", "E"] == ("FEE072", 4)
    list(ami_nxt.read_meeting(folder, "EN2001a", speakers, faults))
    assert faults == {
        ami_utterances.EMPTY: ["EN2001a.sync.B0", "EN2001a.sync.C1"],
        ami_utterances.NO_TIME: [],
    }


def test_what_the_annotations_lack(corpus, tmp_path):
    words = corpus / "annotations/words/EN2001a.C.words.xml"
    words.unlink()
    write_agent(corpus / "annotations", "EN2001a", "F", Agent("nobody", 5, [(1.0, "who")]))
    output = prepared(corpus, tmp_path / "data")
    assert "2 left out, points at words that do not exist: EN2001a.sync.C0" in output
    assert "1 left out, speaker not in meetings.xml: EN2001a.F" in output
    words.write_bytes(b"<nite:root")
    status, output = prepare("--corpus", corpus, "--out", tmp_path / "data")
    assert status == 1 and f"{words}: not readable XML" in output and "unpack" in output


def test_missing_parts_are_errors(corpus, tmp_path):
    out = ["--out", tmp_path / "data"]
    status, output = prepare(*out)
    assert status == 1 and "set one of AMI and AMI_PARQUET" in output
    status, output = prepare("--corpus", tmp_path / "none", *out)
    assert status == 1 and "no such folder" in output
    status, output = prepare("--corpus", corpus / "amicorpus", *out)
    assert status == 1 and "no corpusResources/meetings.xml" in output
    for file in corpus.rglob("ES2011a.Headset-*.wav"):
        file.write_bytes(b"RIFF")
    status, output = prepare("--corpus", corpus, *out)
    assert status == 1 and "truncated or corrupt" in output
    assert "error: ami_dev: no utterance: complete the corpus" in output
    assert "(in ES2011a.Headset-0.wav) has no audio" in output


def test_stages_1_and_2(corpus, tmp_path):
    process = subprocess.run(
        [RECIPE / "run.sh", "--stop_stage", "2", "--feats", "online", "--python", sys.executable]
        + [f"--datadir={tmp_path}/data", f"--dumpdir={tmp_path}/dump", "--nj", "1"],
        env={"AMI": str(corpus), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    for kind in ("wav", "flac"):
        assert not list(tmp_path.glob(f"d*/**/*.{kind}")), "segments need no copies"
    raw = DataDir.read(tmp_path / "dump/raw/ami_train")
    counts = read_text_file(tmp_path / "dump/raw/ami_train/utt2num_samples")
    assert len(raw) == 7 and "segments" not in raw
    utt = "AMI_EN2001a_H04_FEE072_0001100_0001200"
    assert counts[utt] == "16000"
    assert np.allclose(load_audio(raw["wav.scp"][utt]), 12 / 200 + 4 / 2000, atol=1e-4)


def test_partition():
    sets = ami_utterances.meetings_of_sets()
    assert {name: len(meetings) for name, meetings in sets.items()} == {
        "train": 137,
        "dev": 18,
        "test": 16,
    }
    assert len({meeting for meetings in sets.values() for meeting in meetings}) == 171
    assert sum(ami_utterances.headsets().values()) == 687


# --- splitting, against a plain transcription of what Kaldi's script does -------------------------


def reference(marked: list[tuple[str, float]], start: float, end: float) -> list[tuple]:
    """The rules on strings: sentences first, then commas, each with a number of its own."""
    labels, text, stops = {}, [], []
    for token, time in marked:
        if token in ".?":
            stops.append(time)
            text.append(".")
        elif token == ",":
            label = f",{len(labels)}"
            labels[label] = time
            text.append(label)
        else:
            text.append(token)
    found, bounds = [], [start, *stops, end]
    for place, sentence in enumerate(" ".join(text).split(".")):
        found += halves(sentence.split(), labels, *bounds[place : place + 2])
    return [(*times, words) for *times, words in found if words]


def halves(words: list[str], labels: dict[str, float], start: float, end: float) -> list[tuple]:
    spoken = [word for word in words if not word.startswith(",")]
    inside = {word: labels[word] for word in words if start < labels.get(word, start) < end}
    if len(words) <= 30 or not inside:
        return [(start, end, spoken)]
    label = min(inside, key=lambda word: abs(inside[word] - (start + end) / 2))
    place, time = words.index(label), inside[label]
    return halves(words[:place], labels, start, time) + halves(
        words[place + 1 :], labels, time, end
    )


@pytest.mark.parametrize("seed", range(20))
def test_split_as_kaldi_does(seed):
    chance = random.Random(seed)
    tokens, marked, time = [], [], 1.0
    for number in range(chance.randrange(1, 150)):
        text = chance.choices([f"w{number}", ",", ".", "?", "(noise)"], [30, 5, 1, 0.5, 2])[0]
        kind = "word" if text[0] == "w" else "other" if text[0] == "(" else "mark"
        length = chance.uniform(0.1, 0.6) if kind != "mark" else 0.0
        tokens.append(
            Token(str(number), kind, text if kind != "other" else "", time, time + length)
        )
        if kind != "other":
            marked.append((text, time))
        time += length
    found = [
        (piece.start, piece.end, [t.text for t in piece.tokens if t.kind == "word"])
        for piece in pieces(tokens, 1.0, time)
    ]
    assert [piece for piece in found if piece[2]] == reference(marked, 1.0, time)
    assert any(len(piece[2]) < len(marked) for piece in found) or len(marked) < 31


def test_long_without_comma_stays_long():
    tokens = [Token(str(n), "word", f"w{n}", float(n), n + 1.0) for n in range(40)]
    assert [len(piece.tokens) for piece in pieces(tokens, 0.0, 40.0)] == [40]
    tokens[10] = Token("10", "mark", ",", 10.0, 10.0)
    tokens[22] = Token("22", "mark", ",", 22.0, 22.0)
    assert [(p.start, p.end) for p in pieces(tokens, 0.0, 40.0)] == [(0.0, 22.0), (22.0, 40.0)]


def test_marks_without_times_take_those_around():
    tokens = [
        Token("0", "word", "yes", 1.0, 1.5),
        Token("1", "mark", ".", None, None),
        Token("2", "word", "no", 2.0, 2.5),
    ]
    assert [(p.start, p.end) for p in pieces(tokens, 1.0, 2.5)] == [(1.0, 1.5), (1.5, 2.5)]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["It's", "uh-huh"], "it's uh-huh"),
        (["anti-trust", "-"], "anti trust"),
        (["T_V_", "X_M_L"], "t. v. x. m. l"),
        (["um,I"], "um i"),
        (["<unk>"], ""),
        (["CAFÉ"], "café"),
    ],
)
def test_text(words, text):
    assert text_of([Token("", "word", word, 0.0, 1.0) for word in words]) == text


@pytest.fixture
def served(corpus, tmp_path):
    """The corpus as the server has it: (folder, address)."""
    folder, name = tmp_path / "served", "AMICorpusAnnotations/ami_public_manual_1.6.2"
    (folder / name).parent.mkdir(parents=True)
    shutil.make_archive(str(folder / name), "zip", corpus / "annotations")
    shutil.copytree(corpus / "amicorpus", folder / "AMICorpusMirror/amicorpus")
    handler = functools.partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_download(served, tmp_path):
    folder, url = served
    command = [sys.executable, RECIPE / "local/download.py", tmp_path / "got", "ES2011a"]
    command += ["--url", url]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 1 and "3 of 4 recordings could not be fetched" in process.stderr
    for channel in (1, 2, 3):
        write_recording(folder / "AMICorpusMirror", "ES2011a", channel)
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert len(list((tmp_path / "got").rglob("*.Headset-?.wav"))) == 4
    assert ami_nxt.read_speakers(ami_nxt.annotations_in(tmp_path / "got"))
    process = subprocess.run([*command[:3], "ES2011e"], capture_output=True, text=True)
    assert process.returncode == 1 and "unknown meeting 'ES2011e': did you mean" in process.stderr


@pytest.fixture
def downloading():
    """The recipe's program. Another recipe has one of the same name."""
    spec = importlib.util.spec_from_file_location("ami_download", RECIPE / "local/download.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def test_the_recordings_of_the_sets_are_fetched(downloading, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(downloading, "download", lambda url, file: asked.append(file.name))
    (tmp_path / "annotations").mkdir()
    downloading.main([str(tmp_path), "--sets", "ami_test", "ami_dev"])
    sets = ami_utterances.meetings_of_sets()
    meetings = {name.partition(".")[0] for name in asked}
    assert meetings == {*sets["test"], *sets["dev"]} and len(asked) == 4 * len(meetings)


def test_an_outage_ends_the_download(downloading, tmp_path, monkeypatch):
    """Each recording would be tried for minutes."""
    asked = []

    def unreachable(url, file):
        asked.append(file.name)
        if len(asked) == 3:  # the server answers: it has none
            raise downloading.RefusedError(f"{url}: 404")
        raise PamError(f"{url}: Connection refused")

    monkeypatch.setattr(downloading, "download", unreachable)
    with pytest.raises(PamError, match="Connection refused"):
        downloading.fetch_recordings(tmp_path, ["EN2001a", "ES2011a"], "http://none")
    assert len(asked) == 6


def test_annotations_are_named_when_missing(tmp_path):
    with pytest.raises(PamError, match="unpack ami_public_manual_1.6.2.zip there"):
        ami_nxt.annotations_in(tmp_path)
