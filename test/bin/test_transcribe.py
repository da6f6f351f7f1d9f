"""What `pam transcribe` takes and writes, with a model that answers at once."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from processes import locked_by_another

from pam.bin import transcribe, transcripts
from pam.decode.answer import Answer, Piece
from pam.errors import PamError
from pam.lock import alone_at

SECOND = 16000


class Model:
    """Answers with the name of the recording, and notes what it was given."""

    max_new_tokens = 99

    def __init__(self):
        self.asked = {}  # name: audio
        self.loaded = 0
        self.more = {}  # further attributes of its answers
        self.fault = {}  # name: exception
        self.limits = set()  # max_new_tokens of the questions

    def from_pretrained(self, exp, device):
        self.loaded += 1
        return self

    def answer(self, questions):
        for name in (question.name for question in questions):
            if name in self.fault:
                raise self.fault[name]
        self.limits |= {question.max_new_tokens for question in questions}
        self.asked |= {question.name: question.audio for question in questions}
        return [self.about(question.name) for question in questions]

    def about(self, name):
        answer = Answer(f"text of\n{Path(name).stem}", "ac", {"ac": 0.75, "snv": 0.25}, seconds=1.5)
        return replace(answer, **self.more)


@pytest.fixture
def model(monkeypatch):
    model = Model()
    monkeypatch.setitem(sys.modules, "pam.decode.api", SimpleNamespace(SpeechLLM=model))
    return model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with calls/a.wav, calls/b.wav and calls/more/c.wav, of 1, 2 and 3 s."""
    monkeypatch.chdir(tmp_path)
    Path("calls/more").mkdir(parents=True)
    for seconds, name in enumerate(("a", "b", "more/c"), 1):
        write(f"calls/{name}.wav", seconds)
    return tmp_path


def write(path, seconds):
    tone = np.sin(np.arange(seconds * SECOND) / 5) * 0.5
    soundfile.write(path, tone, SECOND)


def run(*words, prompt="Transcribe."):
    return transcribe.main(["--exp", "exp/x", "--prompt", prompt, *words])


@pytest.mark.parametrize(("words", "limit"), [((), 99), (("--max_new_tokens", "7"), 7)])
def test_answers_are_as_long_as_the_model_or_the_user_says(folder, model, words, limit):
    assert run(*words, "calls/a.wav") == 0
    assert model.limits == {limit}


def data_dir(segments=None):
    """data/set with two recordings; only wav.scp, and segments if there are some."""
    Path("data/set").mkdir(parents=True)
    Path("data/set/wav.scp").write_text("rec1 calls/a.wav\nrec2 calls/b.wav\n")
    if segments:
        Path("data/set/segments").write_text(segments)
    return "data/set"


def lines_of(path):
    with Path(path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("calls/*.wav", ["calls/a.wav", "calls/b.wav"]),
        ("calls/**/*.wav", ["calls/a.wav", "calls/b.wav", "calls/more/c.wav"]),
        ("calls/[ab].wav", ["calls/a.wav", "calls/b.wav"]),
        ("calls/**", ["calls/a.wav", "calls/b.wav", "calls/more/c.wav"]),
    ],
)
def test_patterns(model, folder, pattern, names):
    assert run(pattern) == 0
    assert list(model.asked) == names
    assert run(pattern, "calls/a.wav") == 0  # a file that is named twice is answered once
    assert list(model.asked) == names and model.loaded == 2


def test_a_pattern_that_matches_nothing_is_one_line(model, folder, capsys):
    assert run("calls/*.mp3", "calls/a.wav") == 1
    assert capsys.readouterr().err == "error: calls/*.mp3: no file matches this pattern\n"
    assert list(model.asked) == ["calls/a.wav"]


def test_an_address_is_no_pattern(model, folder, capsys):
    assert run("https://a.org/a.wav?b=1", "calls/a.wav") == 1
    assert capsys.readouterr().err.startswith("error: https://a.org/a.wav?b=1: nothing is downlo")
    assert list(model.asked) == ["calls/a.wav"]


def test_a_file_whose_name_looks_like_a_pattern(model, folder):
    write("calls/[x].wav", 1)
    assert run("calls/[x].wav") == 0 and list(model.asked) == ["calls/[x].wav"]


def test_a_data_directory_of_whole_recordings(model, folder):
    assert run(data_dir()) == 0
    assert model.asked == {"rec1": "calls/a.wav", "rec2": "calls/b.wav"}


def test_segments_are_cut_out(model, folder):
    assert run(data_dir("utt1 rec1 0.25 1\nutt2 rec2 0 0.5\nutt3 rec2 0.5 2.0\n")) == 0
    lengths = {name: len(audio) / SECOND for name, audio in model.asked.items()}
    assert lengths == {"utt1": 0.75, "utt2": 0.5, "utt3": 1.5}
    rest, _ = soundfile.read("calls/b.wav", start=SECOND // 2, dtype="float32")
    np.testing.assert_allclose(model.asked["utt3"], rest)


@pytest.mark.parametrize("line", ["utt1 rec3 0 1", "utt1 rec1 0", "utt1 rec1 zero one"])
def test_a_wrong_segment_is_one_line(model, folder, capsys, line):
    assert run(data_dir(f"{line}\n")) == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith(f"error: data/set/segments: {line}: expected RECORDING START END")
    assert not model.loaded


def test_a_segment_after_the_audio_leaves_the_others(model, folder, capsys):
    assert run(data_dir("utt1 rec1 0 1\nutt2 rec1 5 9\n")) == 1
    assert list(model.asked) == ["utt1"]
    assert "error: calls/a.wav: segment 5.0 to 9.0 s lies outside" in capsys.readouterr().err


def test_two_recordings_of_one_name(model, folder):
    name = data_dir()
    Path("other").mkdir()
    Path("other/wav.scp").write_text("rec1 calls/b.wav\n")
    with pytest.raises(PamError, match="rec1: two recordings have this name"):
        run(name, "other")


def test_without_a_format_it_prints_for_readers(model, folder, capsys):
    assert run("calls/a.wav") == 0
    expected = ["calls/a.wav: text of a", "  expert: ac (probability 0.750)"]
    assert capsys.readouterr().out.splitlines() == expected


def test_lines_of_text(model, folder, capsys):
    expected = "rec1 text of rec1\nrec2 text of rec2\n"  # a text file of Kaldi
    assert run("--format", "txt", data_dir()) == 0
    assert capsys.readouterr().out == expected
    assert run("--output", "out/hyp.txt", "data/set") == 0
    assert Path("out/hyp.txt").read_text() == expected and capsys.readouterr().out == ""


@pytest.mark.parametrize("output", ["hyp.txt", "out/"])
def test_text_is_there_only_if_it_is_complete(model, folder, monkeypatch, output):
    """The same command goes on after a kill, and gives what a run without a kill gives."""
    monkeypatch.setattr(transcribe, "TOGETHER", 1)
    words = ("--format", "txt", "--output", output, data_dir())
    model.fault["rec2"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(*words)
    (part,) = [*Path().glob("hyp*"), *Path().glob("out/*")]
    assert part.suffix == ".part"
    with part.open("a") as file:
        file.write('{"name": "rec')  # a kill may leave half a line
    with pytest.raises(PamError, match="it was made with prompt 'Transcribe.', now 'Other'"):
        run(*words, prompt="Other")
    with pytest.raises(PamError, match="an earlier command, which was killed, answered rec1"):
        run(*words[:-1], "calls/a.wav")
    model.fault.clear()
    model.asked.clear()
    assert run(*words) == 0
    assert list(model.asked) == ["rec2"] and not part.exists()
    found = {str(f): f.read_text() for f in (*Path().glob("hyp*"), *Path().glob("out/*"))}
    assert found == (
        {"out/rec1.txt": "text of\nrec1\n", "out/rec2.txt": "text of\nrec2\n"}
        if output == "out/"
        else {"hyp.txt": "rec1 text of rec1\nrec2 text of rec2\n"}
    )


def test_a_kill_while_files_get_their_names(model, folder, monkeypatch):
    write_text, words = transcripts.write_text, ("--output", "out/", "--format", "srt", data_dir())

    def killed(path, text, **options):
        if Path(path).name == "rec2.srt":
            raise KeyboardInterrupt
        write_text(path, text, **options)

    monkeypatch.setattr(transcripts, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        run(*words)
    monkeypatch.setattr(transcripts, "write_text", write_text)
    model.asked.clear()
    assert run(*words) == 0 and not model.asked
    assert {file.name for file in Path("out").iterdir()} == {"rec1.srt", "rec2.srt"}


@pytest.mark.parametrize(
    ("output", "part"),
    [
        ("out.jsonl", "out.jsonl.part"),
        ("out.txt", "out.txt.jsonl.part"),
        ("texts/", "texts/answers.txt.jsonl.part"),
    ],
)
def test_an_output_has_one_program_at_a_time(model, folder, output, part):
    command = ["--output", output, "--format", "jsonl" if "jsonl" in output else "txt"]
    command.append("calls/a.wav")
    with locked_by_another(folder / part, "pam transcribe", alone_at) as pid:
        message = f"{re.escape(part)}: another pam transcribe is running \\(process {pid} on .+\\)"
        with pytest.raises(PamError, match=message):
            run(*command)
        assert run("calls/a.wav") == 0  # prints
    assert model.loaded == 1
    assert run(*command) == 0 and not list(folder.rglob("*.lock"))


@pytest.mark.parametrize("output", ["calls/a.txt", "calls/"])
def test_a_file_of_the_user_is_not_replaced(model, folder, output):
    Path("calls/a.txt").write_text("what was really said\n")
    with pytest.raises(PamError, match="calls/a.txt: it exists: remove it or give another"):
        run("--format", "txt", "--output", output, "calls/a.wav")
    assert Path("calls/a.txt").read_text() == "what was really said\n" and not model.loaded


def test_a_file_that_the_user_made_after_a_kill_is_not_replaced(model, folder, monkeypatch):
    monkeypatch.setattr(transcribe, "TOGETHER", 1)
    words = ("--format", "txt", "--output", "out/", data_dir())
    model.fault["rec2"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(*words)
    model.fault.clear()
    for name in ("rec1", "rec2"):
        mine = Path(f"out/{name}.txt")
        mine.write_text("what was really said\n")
        with pytest.raises(PamError, match=f"out/{name}.txt: it exists: remove it"):
            run(*words)
        assert mine.read_text() == "what was really said\n"
        mine.unlink()
    assert run(*words) == 0
    assert Path("out/rec2.txt").read_text() == "text of\nrec2\n"


def test_a_file_that_is_no_text_is_not_added_to(model, folder):
    Path("out.jsonl").write_bytes(b"gr\xfc\xdfe\n")
    with pytest.raises(PamError, match="out.jsonl: not written by pam transcribe: give another"):
        run("--output", "out.jsonl", "calls/a.wav")
    assert Path("out.jsonl").read_bytes() == b"gr\xfc\xdfe\n" and not model.loaded


def test_an_output_that_cannot_be_made_is_one_line(model, folder):
    for output in ("calls/a.wav/x.jsonl", "/proc/nowhere/x.txt"):
        with pytest.raises(PamError, match="cannot be written: .*: choose another name"):
            run("--output", output, "calls/a.wav")


def test_a_folder_has_a_file_for_each_recording(model, folder):
    assert run("--output", "out/", "--format", "txt", "calls/**/*.wav") == 0
    assert {file.name for file in Path("out").iterdir()} == {"a.txt", "b.txt", "c.txt"}
    assert Path("out/a.txt").read_text() == "text of\na\n"
    assert run("--output", "out", "--format", "srt", data_dir()) == 0  # it exists
    assert Path("out/rec2.srt").is_file()


def test_two_recordings_for_one_file_are_refused_before_the_model_is_loaded(model, folder):
    write("calls/more/a.wav", 1)
    with pytest.raises(PamError, match="both calls/a.wav and calls/more/a.wav"):
        run("--output", "out/", "--format", "txt", "calls/**/*.wav")
    assert not model.loaded


def test_json_has_all_of_the_answer(model, folder, capsys):
    model.more = {"pieces": (Piece(0.0, 1.0, "one"), Piece(0.5, 1.5, "two"))}
    assert run("--format", "jsonl", "calls/a.wav") == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["name"] == "calls/a.wav" and entry["model"] == "x"
    assert entry["prompt"] == "Transcribe." and entry["text"] == "text of\na"
    assert entry["posteriors"] == {"ac": 0.75, "snv": 0.25}
    assert entry["pieces"][1] == {"start": 0.5, "end": 1.5, "text": "two"}


def test_a_name_that_is_not_utf_8(model, folder, capsys):
    with open(b"calls/gr\xfc.wav", "wb") as file:  # noqa: PTH123
        soundfile.write(file, np.ones(SECOND) / 2, SECOND, format="WAV")
    assert run("--output", "out.jsonl", "calls/gr*.wav") == 0
    (entry,) = lines_of("out.jsonl")
    assert entry["name"] == "calls/gr\udcfc.wav"
    model.asked.clear()
    assert run("--output", "out.jsonl", "calls/gr*.wav") == 0 and not model.asked
    assert run("--output", "out.txt", "calls/gr*.wav") == 0
    assert Path("out.txt").read_bytes().startswith(b"calls/gr\xfc.wav text of gr")


def test_a_rerun_skips_the_answers_that_are_there(model, folder):
    assert run("--output", "out.jsonl", "calls/a.wav") == 0
    assert run("--output", "out.jsonl", "calls/*.wav") == 0
    assert [entry["name"] for entry in lines_of("out.jsonl")] == ["calls/a.wav", "calls/b.wav"]
    model.asked.clear()
    loaded = model.loaded
    assert run("--output", "out.jsonl", "calls/*.wav") == 0
    assert (model.asked, model.loaded) == ({}, loaded)
    assert not Path("out.jsonl.part").exists()


def test_a_killed_run_goes_on(model, folder, monkeypatch):
    monkeypatch.setattr(transcribe, "TOGETHER", 1)
    model.fault["calls/b.wav"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run("--output", "out.jsonl", "calls/**/*.wav")
    assert not Path("out.jsonl").exists()
    with Path("out.jsonl.part").open("a") as part:
        part.write('{"name": "calls/b.w')  # a kill may leave half a line
    model.asked.clear()
    model.fault.clear()
    assert run("--output", "out.jsonl", "calls/**/*.wav") == 0
    assert list(model.asked) == ["calls/b.wav", "calls/more/c.wav"]
    assert [entry["name"][-5] for entry in lines_of("out.jsonl")] == list("abc")


def test_an_answer_with_a_line_separator_is_one_line(model, folder):
    model.more = {"text": "one\u2028two"}
    assert run("--output", "out.jsonl", "calls/a.wav") == 0
    assert run("--output", "out.jsonl", "calls/*.wav") == 0
    assert [entry["text"] for entry in lines_of("out.jsonl")] == ["one\u2028two"] * 2


def test_a_recording_that_failed_is_tried_again(model, folder, capsys):
    model.fault["calls/b.wav"] = PamError("calls/b.wav: too short")
    assert run("--output", "out.jsonl", "calls/*.wav") == 1
    assert capsys.readouterr().err == "error: calls/b.wav: too short\n"
    model.fault.clear()
    assert run("--output", "out.jsonl", "calls/*.wav") == 0
    assert [entry["name"] for entry in lines_of("out.jsonl")] == ["calls/a.wav", "calls/b.wav"]


def test_answers_to_another_prompt_are_not_taken(model, folder):
    assert run("--output", "out.jsonl", "calls/a.wav") == 0
    message = "out.jsonl: it was made with prompt 'Transcribe.', now 'How many\\?'"
    with pytest.raises(PamError, match=message):
        run("--output", "out.jsonl", "calls/*.wav", prompt="How many?")
    Path("out.jsonl").write_text("notes\n")
    with pytest.raises(PamError, match="out.jsonl: not written by pam transcribe"):
        run("--output", "out.jsonl", "calls/*.wav")
    assert Path("out.jsonl").read_text() == "notes\n"


def test_subtitles_have_the_times_of_the_pieces(model, folder, capsys):
    pieces = (Piece(0.0, 8.25, "one"), Piece(7.5, 16.0, ""), Piece(3599.9, 3600.5, "last"))
    model.more = {"pieces": pieces}
    assert run("--format", "srt", "calls/a.wav") == 0
    blocks = capsys.readouterr().out.split("\n\n")
    assert blocks[:2] == [
        "1\n00:00:00,000 --> 00:00:08,250\none",
        "2\n00:59:59,900 --> 01:00:00,500\nlast",
    ]


def test_subtitles_of_a_short_recording_are_one_block(model, folder):
    assert run("--output", "a.srt", "calls/a.wav") == 0
    assert Path("a.srt").read_text() == "1\n00:00:00,000 --> 00:00:01,500\ntext of\na\n\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "srt"], "--format srt: 2 recordings have a file each: give --output FOLDER/"),
        (["--output", "out.srt"], "--format srt: 2 recordings have a file each"),
        (["--output", "out.csv"], "--output out.csv: give --format txt, jsonl, srt"),
        (["--output", "out/"], "--output out/: give --format"),
        (["--output", "out/", "--format", "jsonl"], "--format jsonl is one file"),
        (["--output", "/dev/null", "--format", "txt"], "--output /dev/null: not a file"),
        (["--device", "gpu"], "--device gpu: expected cpu, cuda or cuda:N"),
    ],
)
def test_options_that_do_not_fit_are_one_line(model, folder, words, message):
    with pytest.raises(PamError, match=message):
        run(*words, "calls/a.wav", "calls/b.wav")
    assert not model.loaded


def test_a_folder_of_audio_asks_for_a_pattern(model, folder, capsys):
    assert run("calls") == 1
    assert 'or a pattern in quotes ("calls/*.wav")' in capsys.readouterr().err
