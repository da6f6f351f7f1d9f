"""The rules of data directories, each with its message, its remedy, and what fixing leaves."""

import subprocess

import pytest
from small_dirs import UTTS, edit, fixed, messages, segmented, text_files

from pam.bin.validate import main as validate
from pam.data.datadir import DataDir, fix
from pam.errors import PamError


@pytest.mark.parametrize("name", ["wav.scp", "text", "utt2spk", "utt2task"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    remedy = "name the task" if name == "utt2task" else "run the recipe's data stage again"
    assert messages(folder)[0].startswith(f"{name}: missing file: {remedy}")
    with pytest.raises(PamError, match="missing file"):
        DataDir.read(folder)
    with pytest.raises(PamError, match=f"nothing was changed.*{name}: missing file"):
        fix(folder)


@pytest.mark.parametrize("name", ["wav.scp", "text", "utt2spk", "utt2task"])
@pytest.mark.parametrize("segmented_too", [False, True])
def test_a_missing_file_hides_no_fault_of_the_others(tmp_path, name, segmented_too):
    """A directory of Kaldi lacks utt2task; its other faults show at the first run."""
    folder = tmp_path / "set"
    DataDir(segmented() if segmented_too else text_files()).write(folder)
    edit(folder, "utt2spk" if name == "text" else "text", "bob-1 ", "carl-1 ")
    (folder / "utt2dur").write_text("ann-1 -1\nann-2 3\n")
    (folder / name).unlink()
    (folder / "spk2utt").unlink()
    found = messages(folder)
    assert [message.partition(": missing")[0] for message in found[:2]] == [name, "spk2utt"]
    assert "utt2dur:1: not a duration '-1': write a positive number" in found
    assert any("id has no usable line in " in m and "'carl-1'" in m for m in found)
    with pytest.raises(PamError, match=f"{name}: missing file"):
        fix(folder)


def test_tasks_are_made_by_the_command_of_the_message(tmp_path, monkeypatch, capsys):
    """Typed as it is printed, with a task in the place of TASK."""
    folder = tmp_path / "it's my set"
    DataDir(text_files()).write(folder)
    (folder / "utt2task").unlink()
    (message,) = messages(folder)
    assert message.startswith("utt2task: missing file: name the task of each utterance; if all ")
    command = message.partition("in the place of TASK: ")[2].replace("TASK", "asr_clean")
    with pytest.raises(
        PamError, match=r"utt2task: missing.*\(1 errors in all, make utt2task first\)"
    ):
        DataDir.read(folder)
    assert validate([str(folder), "--audio", "none"]) == 1
    assert capsys.readouterr().out.endswith(f"{folder}: 1 errors: make utt2task first\n")
    monkeypatch.chdir("/")
    subprocess.run(["bash", "-c", command], check=True)
    assert messages(folder) == [] and set(DataDir.read(folder)["utt2task"].values()) == {
        "asr_clean"
    }


def test_missing_spk2utt_is_made(folder):
    (folder / "spk2utt").unlink()
    assert messages(folder) == [f"spk2utt: missing file: run utils/fix_data_dir.sh {folder}"]
    assert fixed(folder) == UTTS


def test_missing_directory(tmp_path):
    with pytest.raises(PamError, match="no such data directory: run the recipe's data stage"):
        DataDir.read(tmp_path / "none")


def test_unsorted(folder):
    lines = (folder / "text").read_text().splitlines(keepends=True)
    (folder / "text").write_text("".join(reversed(lines)))
    assert messages(folder)[0] == (
        "text:2: not sorted: after 'bob-1' comes 'ann-2': sort with LC_ALL=C"
    )
    with pytest.raises(PamError, match="not sorted.*2 errors in all, utils/fix_data_dir.sh"):
        DataDir.read(folder)
    assert fixed(folder) == UTTS


def test_duplicated_id(folder):
    edit(folder, "text", "bob-1", "ann-2")
    assert messages(folder) == [
        "text:3: duplicated id 'ann-2': keep one of its lines",
        "utt2spk:3: id has no usable line in text: 'bob-1': "
        "add or correct its line there, or remove it here",
    ]
    assert fixed(folder) == ["ann-1", "ann-2"]
    assert DataDir.read(folder)["text"]["ann-2"] == "words of ann-2"


def test_empty_transcript(folder):
    edit(folder, "text", "ann-2 words of ann-2", "ann-2 ")
    assert messages(folder)[0].startswith("text:2: empty value 'ann-2 ': fill it in or remove")
    assert fixed(folder) == ["ann-1", "bob-1"]


def test_transcript_with_a_newline(folder):
    edit(folder, "text", "words of ann-2", "words\nof ann-2")
    found = messages(folder)
    assert "text:3: not sorted" not in found[0]
    assert any("join the lines" in message and message.startswith("text:3") for message in found)
    assert fixed(folder) == UTTS
    assert DataDir.read(folder)["text"]["ann-2"] == "words"


@pytest.mark.parametrize("breaker", ["\r", "\x00"])
def test_transcript_that_may_be_several_lines(folder, breaker):
    text = (folder / "text").read_bytes().replace(b"of ann-2", f"of{breaker}ann-2".encode())
    (folder / "text").write_bytes(text)
    assert messages(folder)[0].startswith("text:2: line break or control character in 'ann-2")
    assert fixed(folder) == ["ann-1", "bob-1"]


@pytest.mark.parametrize("name", ["text", "text_ref2", "prompt", "text_warmup"])
@pytest.mark.parametrize(
    "odd", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u00a0", "\u3000", "\ufeff "]
)
def test_transcript_with_an_odd_character_is_mended(folder, name, odd):
    DataDir(text_files() | {name: {utt: f"words of {utt}" for utt in UTTS}}).write(folder)
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(before.replace(b"of ann-2", f"of{odd}ann-2".encode()))
    (found,) = messages(folder)
    assert found.startswith(f"{name}:2: character U+{ord(odd[0]):04X} (")
    with pytest.raises(PamError, match="1 errors in all, utils/fix_data_dir.sh .* mends them"):
        DataDir.read(folder)
    assert fixed(folder) == UTTS and (folder / name).read_bytes() == before


AFTER_IDS = ["\u00a0", "\u3000", "\ufeff ", " \u200b"]


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        *[(name, odd) for name in ("utt2spk", "utt2task", "text") for odd in AFTER_IDS],
        *[("wav.scp", odd) for odd in AFTER_IDS[:3]],  # a file's name may begin with anything
    ],
)
def test_odd_characters_around_ids_are_mended(folder, name, odd):
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(before.replace(b"ann-2 ", f"ann-2{odd}".encode(), 1))
    assert len(messages(folder)) == 1
    assert fixed(folder) == UTTS and (folder / name).read_bytes() == before


def test_encoding_faults(folder):
    raw = (folder / "text").read_bytes()
    for broken, rule in (
        (b"\xef\xbb\xbf" + raw, "text:1: byte order mark"),
        (raw.replace(b"\n", b"\r\n"), "text:1: Windows line end (CRLF)"),
        (raw[:-1], "text:3: no newline at the end"),
    ):
        (folder / "text").write_bytes(broken)
        assert messages(folder)[0].startswith(rule)
        assert fixed(folder) == UTTS
        assert (folder / "text").read_bytes() == raw
    (folder / "text").write_bytes(raw.replace(b"of ann-1", b"\xe9"))
    assert messages(folder)[0].startswith("text:1: not UTF-8: 'ann-1 words é'")
    assert fixed(folder) == ["ann-2", "bob-1"]


@pytest.mark.parametrize("file", ["wav.scp", "text", "utt2spk", "utt2task"])
def test_id_in_one_file_and_not_in_the_other(folder, file):
    lines = (folder / file).read_text().splitlines(keepends=True)
    (folder / file).write_text("".join(lines[:1] + lines[2:]))
    found = [m for m in messages(folder) if "no usable line" in m]
    assert len(found) == 1 and f"in {file}: 'ann-2'" in found[0] and ":2: " in found[0]
    assert fixed(folder) == ["ann-1", "bob-1"]


def test_empty_file(folder):
    (folder / "text").write_text("")
    assert len(messages(folder)) == 3
    with pytest.raises(PamError, match="nothing was changed: no good utterance would be left"):
        fix(folder)
    assert (folder / "utt2spk").read_text() and not (folder / ".backup").exists()


def test_spk2utt_not_the_inverse(folder):
    edit(folder, "spk2utt", "ann ann-1 ann-2", "ann ann-1")
    assert messages(folder) == [
        "spk2utt:1: not the inverse of utt2spk for speaker 'ann': "
        f"run utils/fix_data_dir.sh {folder}"
    ]
    edit(folder, "spk2utt", "bob bob-1", "carl bob-1")
    assert len(messages(folder)) == 3
    assert fixed(folder) == UTTS


def test_speaker_that_is_no_prefix_is_a_warning(folder):
    DataDir(text_files() | {"utt2spk": dict.fromkeys(UTTS, "bob")}).write(folder)
    assert messages(folder) == []
    assert messages(folder, warnings=True) == [
        "utt2spk:1: speaker 'bob' is not a prefix of 'ann-1': "
        "begin ids with their speaker, so that both sort alike (2 do not)"
    ]
    assert len(DataDir.read(folder)) == 3


def test_unknown_task(folder):
    edit(folder, "utt2task", "ann-2 asr_clean", "ann-2 asr_claen")
    assert messages(folder)[0] == (
        "utt2task:2: unknown task 'asr_claen': did you mean 'asr_clean'? "
        "known: ac, asr_clean, asr_noisy, snv; "
        "a new task is a file egs/RECIPE/conf/prompts/asr_claen.yaml"
    )
    assert fixed(folder) == ["ann-1", "bob-1"]


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("rec1 3 1.5", "segments:2: not a segment: 'rec1 3 1.5'"),
        ("rec1 3 3", "segments:2: not a segment:"),
        ("rec1 -1 3", "segments:2: not a segment:"),
        ("rec1 0 nan", "segments:2: not a segment:"),
        ("rec1 0 inf", "segments:2: not a segment:"),
        ("rec1 0", "segments:2: not a segment:"),
        ("rec1 0 1 A", "segments:2: not a segment:"),
        ("rec9 0 1", "segments:2: unknown recording 'rec9': add it to wav.scp or remove"),
    ],
)
def test_segments(folder, value, rule):
    DataDir(segmented()).write(folder)
    assert messages(folder) == messages(folder, warnings=True) == []
    edit(folder, "segments", "rec1 1.5 3", value)
    assert messages(folder)[0].startswith(rule)
    assert fixed(folder) == ["ann-1", "bob-1"]


def test_segments_end_with_their_audio(folder):
    DataDir(segmented()).write(folder)
    seconds = {"/audio/rec1.wav": 2.4, "/audio/rec2.wav": None}.get
    assert messages(folder, seconds=seconds) == [
        "segments:2: segment ends after the audio: 'rec1 1.5 3': the recording has 2.40 s: "
        "correct or remove the segment",
        "text:2: id has no usable line in segments: 'ann-2': "
        "add or correct its line there, or remove it here",
    ]
    assert fixed(folder, seconds=seconds) == ["ann-1", "bob-1"]


def test_recording_without_segments_is_a_warning(folder):
    data = DataDir(segmented())
    data["wav.scp"]["rec0"] = "/audio/rec0.wav"
    data.write(folder)
    assert messages(folder) == []
    assert messages(folder, warnings=True)[0].startswith("wav.scp:1: recording without segments")


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "many", "1_000", "9" * 5000])
def test_counts(folder, value):
    counted = {"utt2num_samples": dict.fromkeys(UTTS, "16000")}
    DataDir(text_files() | counted).write(folder)
    edit(folder, "utt2num_samples", "ann-2 16000", f"ann-2 {value}")
    assert messages(folder)[0].startswith("utt2num_samples:2: not a count")
    assert fixed(folder) == ["ann-1", "bob-1"]


def test_clusters_of_utterances(folder):
    """utt2cluster, where it is there, for some or all: checked, mended, cut and joined."""
    own = {"ann-1": "meeting", "bob-1": "meeting"}
    DataDir(text_files() | {"utt2cluster": own}).write(folder)
    data = DataDir.read(folder)
    assert messages(folder) == messages(folder, warnings=True) == []
    assert [data.cluster(utt) for utt in UTTS] == ["meeting", "ann", "meeting"]  # else the speaker
    assert data.subset(["ann-1"])["utt2cluster"] == {"ann-1": "meeting"}
    other = DataDir(text_files(["carl-1"]))
    assert DataDir.combine({"a": data, "b": other})["utt2cluster"] == own
    assert other.cluster("carl-1") == "carl"
    (folder / "utt2cluster").write_text("ann-1 a meeting\nann-2 meeting\nzoe-1 meeting\n")
    assert messages(folder) == [
        "utt2cluster:1: bad character in the id of the cluster 'a meeting': use no spaces, control "
        "characters, slashes or BOM in ids",
        "utt2cluster:3: id without an utterance 'zoe-1': remove the line or correct the id",
    ]
    assert fixed(folder) == UTTS
    assert DataDir.read(folder)["utt2cluster"] == {"ann-2": "meeting"}


def test_optional_files(folder):
    more = {"prompt": {"ann-1": "Who?"}, "text_ref2": {"bob-1": "x"}, "utt2dur": {"ann-2": "1.5"}}
    DataDir(text_files() | more).write(folder)
    assert messages(folder) == messages(folder, warnings=True) == []
    with (folder / "text_ref2").open("a") as file:
        file.write("carl-1 y\n")
    assert messages(folder) == [
        "text_ref2:2: id without an utterance 'carl-1': remove the line or correct the id"
    ]
    edit(folder, "utt2dur", "1.5", "1,5")
    assert "utt2dur:1: not a duration '1,5': write a positive number" in messages(folder)
    assert fixed(folder) == UTTS
    assert "utt2dur" not in DataDir.read(folder)


def test_misspelled_file_is_a_warning(folder):
    (folder / "text_ref_2").write_text("ann-1 x\n")
    for name in ("bad_utts", "sets.json", "made.json"):
        (folder / name).write_text("x")
    assert messages(folder) == []
    assert len(messages(folder, warnings=True)) == 1


def test_audio_files_are_looked_at(folder):
    wrong = {"/audio/ann-2.wav": "too quiet: speak up"}
    assert messages(folder, audio=wrong.get)[0] == "wav.scp:2: bad audio: too quiet: speak up"
    assert fixed(folder, audio=wrong.get) == ["ann-1", "bob-1"]
    edit(folder, "wav.scp", "/audio/ann-1.wav", "sph2pipe /audio/ann-1.sph |")
    assert messages(folder)[0].startswith("wav.scp:1: commands are not run: 'sph2pipe")
