"""Data directories: the rules, each with its message, and that fixing leaves a valid directory."""

import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pam.data.datadir import DataDir, check, fix, spk2utt, validate
from pam.data.tasks import task_names
from pam.errors import UserError

UTTS = ["ann-1", "ann-2", "bob-1"]


def tables(utts=tuple(UTTS)):
    return {
        "wav.scp": {utt: f"/audio/{utt}.wav" for utt in utts},
        "text": {utt: f"words of {utt}" for utt in utts},
        "utt2spk": {utt: utt.split("-")[0] for utt in utts},
        "utt2task": dict.fromkeys(utts, "asr_clean"),
    }


@pytest.fixture
def folder(tmp_path):
    DataDir(tables()).write(tmp_path / "set")
    return tmp_path / "set"


def edit(folder, file, old, new):
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


def messages(folder, warnings=False, **options):
    found = [p for p in validate(folder, **options) if p.warning == warnings]
    return [str(problem).removeprefix(f"{folder}/") for problem in found]


def fixed(folder, **options):
    """The utterances left after fixing; the directory is valid then, and a second fix is idle."""
    fix(folder, **options)
    assert messages(folder, **options) == []
    assert all(problem.warning for problem in fix(folder, **options))
    return DataDir.read(folder).utterances


def segmented():
    more = {
        "wav.scp": {"rec1": "/audio/rec1.wav", "rec2": "/audio/rec2.wav"},
        "segments": {"ann-1": "rec1 0.0 1.5", "ann-2": "rec1 1.5 3", "bob-1": "rec2 0 2"},
    }
    return tables() | more


# --- reading and writing --------------------------------------------------------------------------


def test_files_as_written(folder):
    assert sorted(file.name for file in folder.iterdir()) == [
        "spk2utt",
        "text",
        "utt2spk",
        "utt2task",
        "wav.scp",
    ]
    assert (folder / "spk2utt").read_text() == "ann ann-1 ann-2\nbob bob-1\n"
    assert (folder / "text").read_text().splitlines()[1] == "ann-2 words of ann-2"
    assert messages(folder) == messages(folder, warnings=True) == []


def test_sorted_as_sort_does(tmp_path):
    utts = ["B-1", "a", "a-1", "a_1", "aB", "a1", "é-2", "é-10", "\U0001f600", "\uff5e"]
    DataDir(tables(utts)).write(tmp_path)
    for file in tmp_path.iterdir():
        subprocess.run(["sort", "-c", file], env={"LC_ALL": "C"}, check=True)


IDS = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters="/\ufeff"),
    min_size=1,
    max_size=12,
)
VALUES = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=12
).map(lambda value: value.strip() or "-")


@st.composite
def data_dirs(draw):
    utts = draw(st.lists(IDS, min_size=1, max_size=6, unique=True))
    each = {"text": VALUES, "utt2spk": IDS, "utt2task": st.sampled_from(task_names())}
    made = {name: {utt: draw(values) for utt in utts} for name, values in each.items()}
    recordings = utts
    if draw(st.booleans()):
        recordings = draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
        named = {utt: draw(st.sampled_from(recordings)) for utt in utts}
        recordings = sorted(set(named.values()))
        made["segments"] = {utt: f"{recording} 0.5 1e1" for utt, recording in named.items()}
    made["wav.scp"] = {recording: f"/audio/{draw(VALUES)}.wav" for recording in recordings}
    for name in draw(
        st.sets(st.sampled_from(["prompt", "text_ref2", "text_ref10", "text_warmup"]))
    ):
        some = draw(st.sets(st.sampled_from(utts), min_size=1))
        made[name] = {utt: draw(VALUES) for utt in some}
    for name in draw(st.sets(st.sampled_from(["utt2num_samples", "utt2num_frames"]))):
        made[name] = {utt: str(draw(st.integers(1, 10**9))) for utt in utts}
    return DataDir(made)


@settings(max_examples=30, deadline=None)
@given(data_dirs())
def test_round_trip(tmp_path_factory, data):
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    data.write(first)
    back = DataDir.read(first)
    assert back == data
    for name, table in data.tables.items():  # the order of filling changes no byte
        data.tables[name] = dict(reversed(table.items()))
    data.write(second)
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_rewriting_removes_tables_that_are_gone(folder):
    (folder / "bad_utts").write_text("x\treason\n")
    data = DataDir.read(folder)
    data.tables["prompt"] = {"ann-1": "Who speaks?"}
    data.write(folder)
    assert "prompt" in DataDir.read(folder)
    DataDir(tables()).write(folder)
    assert "prompt" not in DataDir.read(folder) and (folder / "bad_utts").exists()


def test_write_refuses_what_read_would(folder):
    def refused(match, **changed):
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        with pytest.raises(UserError, match=match):
            DataDir(tables() | changed).write(folder)
        assert before == {file.name: file.read_bytes() for file in folder.iterdir()}

    refused("utt2task: missing", utt2task={})
    refused("utt2task: unknown task 'speech'", utt2task=dict.fromkeys(UTTS, "speech"))
    refused("text: line break or control", text=dict.fromkeys(UTTS, "one\ntwo"))
    refused("text: empty value", text=dict.fromkeys(UTTS, ""))
    refused("id has no usable line in utt2spk, utt2task, wav.scp", text=dict.fromkeys("abc", "x"))
    refused("unknown table: did you mean 'prompt'", **{"prompts": {"ann-1": "x"}})
    refused("spk2utt: unknown table", spk2utt={"ann": "ann-1"})
    refused("bad character in the id", **tables(["a b"]))


def test_full_disk_leaves_the_directory_as_it_was(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "text.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="text: cannot be written: the disk is full"):
        DataDir(tables(["carl-1"])).write(folder)
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_audio_and_references():
    data = DataDir(segmented())
    data.tables |= {"text_ref10": {}, "text_ref2": {}}
    assert data.audio("ann-2") == ("/audio/rec1.wav", 1.5, 3.0)
    assert DataDir(tables()).audio("ann-2") == ("/audio/ann-2.wav", None, None)
    assert data.references == ["text", "text_ref2", "text_ref10"]


def test_spk2utt():
    assert spk2utt({"b-2": "b", "a-1": "a", "b-1": "b"}) == {"a": "a-1", "b": "b-1 b-2"}


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wav.scp", "text", "utt2spk", "utt2task"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    assert f"{name}: missing file: run the recipe's data stage again" in messages(folder)
    with pytest.raises(UserError, match="missing file"):
        DataDir.read(folder)
    with pytest.raises(UserError, match=f"nothing was changed.*{name}: missing file"):
        fix(folder)


def test_missing_spk2utt_is_made(folder):
    (folder / "spk2utt").unlink()
    assert messages(folder) == [f"spk2utt: missing file: run utils/fix_data_dir.sh {folder}"]
    assert fixed(folder) == UTTS


def test_missing_directory(tmp_path):
    with pytest.raises(UserError, match="no such data directory: run the recipe's data stage"):
        DataDir.read(tmp_path / "none")


def test_unsorted(folder):
    lines = (folder / "text").read_text().splitlines(keepends=True)
    (folder / "text").write_text("".join(reversed(lines)))
    assert messages(folder)[0] == (
        "text:2: not sorted: after 'bob-1' comes 'ann-2': sort with LC_ALL=C"
    )
    with pytest.raises(UserError, match="not sorted.*2 errors in all, utils/fix_data_dir.sh"):
        DataDir.read(folder)
    assert fixed(folder) == UTTS


def test_duplicated_id(folder):
    edit(folder, "text", "bob-1", "ann-2")
    assert messages(folder) == [
        "text:3: duplicated id 'ann-2': keep one of its lines",
        "utt2spk:3: id has no usable line in text: 'bob-1': "
        "add or mend its line there, or remove it here",
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


@pytest.mark.parametrize("breaker", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_transcript_with_another_line_break(folder, breaker):
    text = (folder / "text").read_bytes().replace(b"of ann-2", f"of{breaker}ann-2".encode())
    (folder / "text").write_bytes(text)
    assert messages(folder)[0].startswith("text:2: line break or control character in 'ann-2")
    assert fixed(folder) == ["ann-1", "bob-1"]


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
    with pytest.raises(UserError, match="nothing was changed, no good utterance would be left"):
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
    DataDir(tables() | {"utt2spk": dict.fromkeys(UTTS, "bob")}).write(folder)
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
        "known: ac, asr_clean, asr_noisy, snv"
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
        "segments:2: segment ends after the audio: 'rec1 1.5 3': its recording has 2.40 s: "
        "correct or remove the segment",
        "text:2: id has no usable line in segments: 'ann-2': "
        "add or mend its line there, or remove it here",
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
    DataDir(tables() | counted).write(folder)
    edit(folder, "utt2num_samples", "ann-2 16000", f"ann-2 {value}")
    assert messages(folder)[0].startswith("utt2num_samples:2: not a count")
    assert fixed(folder) == ["ann-1", "bob-1"]


def test_optional_files(folder):
    more = {"prompt": {"ann-1": "Who?"}, "text_ref2": {"bob-1": "x"}, "utt2dur": {"ann-2": "1.5"}}
    DataDir(tables() | more).write(folder)
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
    for name in ("bad_utts", "sets.json", ".settings"):
        (folder / name).write_text("x")
    assert messages(folder) == []
    assert len(messages(folder, warnings=True)) == 1


def test_audio_files_are_looked_at(folder):
    wrong = {"/audio/ann-2.wav": "too quiet: speak up"}
    assert messages(folder, audio=wrong.get)[0] == "wav.scp:2: bad audio: too quiet: speak up"
    assert fixed(folder, audio=wrong.get) == ["ann-1", "bob-1"]
    edit(folder, "wav.scp", "/audio/ann-1.wav", "sph2pipe /audio/ann-1.sph |")
    assert messages(folder)[0].startswith("wav.scp:1: commands are not run: 'sph2pipe")


# --- fixing anything ------------------------------------------------------------------------------


def test_fix_keeps_a_backup_and_tells_all(folder):
    edit(folder, "text", "ann-2 words of ann-2", "ann-2")
    before = (folder / "text").read_bytes()
    assert [problem.rule for problem in fix(folder)][0] == "empty value"
    assert (folder / ".backup" / "text").read_bytes() == before


def test_fix_of_a_good_directory_writes_nothing(folder):
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert fix(folder) == []
    assert times == {file: file.stat().st_mtime_ns for file in folder.iterdir()}


FILES = ["wav.scp", "text", "utt2spk", "utt2task", "spk2utt", "segments", "prompt", "text_ref2"]
PIECES = st.sampled_from(
    [*UTTS, "ann", "asr_clean", "snv", "rec1", "0", "1.5", "nan", " ", "  ", "\t", "\n", "\r\n"]
    + ["\x0b", "\x00", "\u2028", "\ufeff", "é", "/", "x|", "-"]
)
RAW = st.one_of(
    st.binary(max_size=60), st.lists(PIECES, max_size=25).map(lambda p: "".join(p).encode())
)


@settings(max_examples=75, deadline=None)
@given(st.dictionaries(st.sampled_from([*FILES, "utt2dur", "utt2num_frames", "feats_x.scp"]), RAW))
def test_fix_of_random_files(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("random")
    for name in FILES[:5]:
        (folder / name).write_bytes(files.pop(name, b"ann-1 x\n"))
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    assert_fixable(folder)


@settings(max_examples=75, deadline=None)
@given(data_dirs(), st.integers(0, 2**32), st.integers(1, 6))
def test_fix_of_damaged_directories(tmp_path_factory, data, seed, wounds):
    folder = tmp_path_factory.mktemp("damaged")
    data.write(folder)
    chance = random.Random(seed)
    for _ in range(wounds):
        damage(chance.choice(sorted(folder.iterdir())), chance)
    assert_fixable(folder)


def damage(file: Path, chance: random.Random) -> None:
    raw = file.read_bytes()
    lines = raw.splitlines(keepends=True)
    at, line = chance.randrange(len(raw) + 1), chance.randrange(max(1, len(lines)))
    junk = chance.choice(
        [b"\n", b"\r", b"\xff", b" ", b"\x0b", b"\x00", b"a", b"\t", b"\xef\xbb\xbf"]
    )
    wounds = [
        raw[:at],
        raw[:at] + junk + raw[at:],
        raw[:at] + raw[at + 1 :],
        b"".join(reversed(lines)),
        b"".join(lines + lines[line : line + 1]),
        b"".join(lines[:line] + lines[line + 1 :]),
    ]
    file.write_bytes(chance.choice(wounds))


def assert_fixable(folder):
    """Fixing leaves a valid directory, or changes nothing where nothing is good."""
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    try:
        problems = fix(folder)
    except UserError as error:
        assert "nothing was changed" in str(error) and "\n" not in str(error)
        assert before == {file.name: file.read_bytes() for file in folder.iterdir()}
        return
    left, remaining = check(folder)
    assert all(problem.warning for problem in remaining), remaining
    assert DataDir.read(folder) == left and len(left) > 0
    assert all("\n" not in str(problem) for problem in problems)
    assert all(p.remedy for p in problems)


# --- subset and combine ---------------------------------------------------------------------------


def test_subset():
    data = DataDir(segmented() | {"prompt": {"bob-1": "Who?"}})
    part = data.subset(["ann-2", "ann-1"])
    assert part.utterances == ["ann-1", "ann-2"] and "prompt" not in part
    assert list(part["wav.scp"]) == ["rec1"]
    with pytest.raises(UserError, match="'carl-1' is not an utterance"):
        data.subset(["carl-1"])


def test_combine():
    first, second = DataDir(tables()), DataDir(tables(["carl-1"]))
    second.tables["prompt"] = {"carl-1": "Who?"}
    both = DataDir.combine({"first": first, "second": second})
    assert both.utterances == [*UTTS, "carl-1"] and both["prompt"] == {"carl-1": "Who?"}
    assert len(first) == 3
    with pytest.raises(UserError, match="'ann-1' is in both first and again: give the ids"):
        DataDir.combine({"first": first, "second": second, "again": DataDir(tables())})
    with pytest.raises(UserError, match="only s have segments: run the dump stage first"):
        DataDir.combine({"first": first, "s": DataDir(segmented())})
