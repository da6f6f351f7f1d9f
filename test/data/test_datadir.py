"""Data directories: what is written is read, refused where it would not be, cut and joined."""

import subprocess

import pytest
from hypothesis import given, settings
from small_dirs import UTTS, data_dirs, messages, segmented, text_files

from pam.atomic import part_of
from pam.data.datadir import DataDir, spk2utt
from pam.errors import PamError


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
    DataDir(text_files(utts)).write(tmp_path)
    for file in tmp_path.iterdir():
        subprocess.run(["sort", "-c", file], env={"LC_ALL": "C"}, check=True)


@settings(max_examples=30, deadline=None)
@given(data_dirs())
def test_round_trip(tmp_path_factory, data):
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    data.write(first)
    back = DataDir.read(first)
    assert back == data
    for name, entries in data.files.items():  # the order of filling changes no byte
        data.files[name] = dict(reversed(entries.items()))
    data.write(second)
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_rewriting_removes_files_that_are_gone(folder):
    (folder / "bad_utts").write_text("x\treason\n")
    data = DataDir.read(folder)
    data.files["prompt"] = {"ann-1": "Who speaks?"}
    data.write(folder)
    assert "prompt" in DataDir.read(folder)
    DataDir(text_files()).write(folder)
    assert "prompt" not in DataDir.read(folder) and (folder / "bad_utts").exists()


def test_write_refuses_what_read_would(folder):
    def refused(match, **changed):
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        with pytest.raises(PamError, match=match):
            DataDir(text_files() | changed).write(folder)
        assert before == {file.name: file.read_bytes() for file in folder.iterdir()}

    refused("utt2task: missing", utt2task={})
    refused("utt2task: unknown task 'speech'", utt2task=dict.fromkeys(UTTS, "speech"))
    refused("text: line break or control", text=dict.fromkeys(UTTS, "one\ntwo"))
    refused("text: empty value", text=dict.fromkeys(UTTS, ""))
    refused("id has no usable line in utt2spk, utt2task, wav.scp", text=dict.fromkeys("abc", "x"))
    refused("unknown text file: did you mean 'prompt'", **{"prompts": {"ann-1": "x"}})
    refused("spk2utt: unknown text file", spk2utt={"ann": "ann-1"})
    refused("bad character in the id", **text_files(["a b"]))


def test_full_disk_leaves_the_directory_as_it_was(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    part_of(folder / "text").symlink_to("/dev/full")
    with pytest.raises(PamError, match="text: cannot be written: the disk is full"):
        DataDir(text_files(["carl-1"])).write(folder)
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_audio_and_references():
    data = DataDir(segmented())
    data.files |= {"text_ref10": {}, "text_ref2": {}}
    assert data.audio("ann-2") == ("/audio/rec1.wav", 1.5, 3.0)
    assert DataDir(text_files()).audio("ann-2") == ("/audio/ann-2.wav", None, None)
    assert data.references == ["text", "text_ref2", "text_ref10"]


def test_spk2utt():
    assert spk2utt({"b-2": "b", "a-1": "a", "b-1": "b"}) == {"a": "a-1", "b": "b-1 b-2"}


def test_subset():
    data = DataDir(segmented() | {"prompt": {"bob-1": "Who?"}})
    part = data.subset(["ann-2", "ann-1"])
    assert part.utterances == ["ann-1", "ann-2"] and "prompt" not in part
    assert list(part["wav.scp"]) == ["rec1"]
    with pytest.raises(PamError, match="'carl-1' is not an utterance"):
        data.subset(["carl-1"])


def test_combine():
    first, second = DataDir(text_files()), DataDir(text_files(["carl-1"]))
    second.files["prompt"] = {"carl-1": "Who?"}
    both = DataDir.combine({"first": first, "second": second})
    assert both.utterances == [*UTTS, "carl-1"] and both["prompt"] == {"carl-1": "Who?"}
    assert len(first) == 3
    with pytest.raises(PamError, match="'ann-1' is in both first and again: give the ids"):
        DataDir.combine({"first": first, "second": second, "again": DataDir(text_files())})
    with pytest.raises(PamError, match="only s have segments: run the dump stage first"):
        DataDir.combine({"first": first, "s": DataDir(segmented())})
