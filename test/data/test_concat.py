"""Concatenations: entries of wav.scp that name several pieces of audio."""

import numpy as np
import pytest
import soundfile

from pam.data.audio import load_audio
from pam.data.concat import concat_entry, files_of, is_concat, parse_concat
from pam.data.datadir import DataDir, validate
from pam.errors import PamError

NAMES = ("-it's é.wav", "two words.flac")


@pytest.fixture
def clips(tmp_path):
    rng = np.random.default_rng(0)
    for name, rate in zip(NAMES, (8000, 16000), strict=True):
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(rate), rate)
    return [str(tmp_path / name) for name in NAMES]


def test_pieces_are_read_in_a_row(clips):
    first, second = (load_audio(clip) for clip in clips)
    entry = concat_entry([(clips[1], None, None), (clips[0], 0.25, 0.5), (clips[1], 0.75, None)])
    read_back = load_audio(entry)
    expected = [second, load_audio(clips[0], 0.25, 0.5), second[12000:]]
    np.testing.assert_array_equal(read_back, np.concatenate(expected))
    assert len(read_back) == 16000 + 4000 + 4000 and len(first) == 16000


def test_an_entry_reads_back(clips):
    pieces = [(clips[0], None, None), (clips[1], 0.5, None), (clips[1], None, 0.5)]
    entry = concat_entry(pieces)
    assert parse_concat(entry) == pieces
    assert is_concat(entry) and not is_concat(clips[0])
    assert files_of(entry) == [clips[0], clips[1], clips[1]] and files_of(clips[0]) == [clips[0]]


def test_paths_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert files_of(concat_entry([("a.mp3", None, None)])) == [str(tmp_path / "a.mp3")]


@pytest.mark.parametrize(
    "entry",
    ["[]", "{}", "x", '"a.wav"', "[1]", '[["a.wav", 1]]', '[["a.wav", 2, 1]]', '[["a.wav", -1, 1]]',
     '[["a.wav", "0", "1"]]', '[[null, 0, 1]]', '[""]', '[["a.wav", true, 2]]'],
)  # fmt: skip
def test_malformed_entries_are_refused(entry):
    with pytest.raises(PamError, match="not a concatenation: write"):
        parse_concat(f"concat:{entry}")


def test_a_bad_piece_is_named(clips, tmp_path):
    entry = concat_entry([(clips[0], None, None), (str(tmp_path / "none.mp3"), None, None)])
    with pytest.raises(PamError, match="none.mp3: no such audio file"):
        load_audio(entry)
    with pytest.raises(PamError, match="no segments of a concatenation"):
        load_audio(concat_entry([(clips[0], None, None)]), 0.0, 0.5)


def test_in_a_data_directory(clips, tmp_path):
    """It is written and read as any entry; checks look at each of its files."""
    entry = concat_entry([(clip, None, None) for clip in clips])
    files = {
        "wav.scp": {"u1": entry, "u2": clips[0]},
        "text": {"u1": "two", "u2": "one"},
        "utt2spk": {"u1": "u1", "u2": "u2"},
        "utt2task": dict.fromkeys(("u1", "u2"), "snv"),
    }
    DataDir(files).write(tmp_path / "data")
    read = DataDir.read(tmp_path / "data")
    assert read.files["wav.scp"] == files["wav.scp"]
    seen = []
    assert validate(tmp_path / "data", lambda path: seen.append(path)) == []
    assert seen == [*clips, clips[0]]
    problems = validate(tmp_path / "data", lambda path: path.endswith(".flac") and "bad" or None)
    assert [p.rule for p in problems if not p.warning][0] == "bad audio"
    files["wav.scp"]["u2"] = "concat:[1]"
    with pytest.raises(PamError, match="not a concatenation"):
        DataDir(files).write(tmp_path / "other")
