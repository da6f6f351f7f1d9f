"""Corpora in other forms become data directories: lhotse, Hugging Face on disk, WebDataset."""

import gzip
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from imitations import encoded, sound, write, write_arrow, write_parquet
from processes import locked_by_another

from pam.bin import shard as shard_verb
from pam.data import hub
from pam.data.audio import load_audio
from pam.data.datadir import DataDir
from pam.data.shards import is_member
from pam.data.webdataset import writing_shard
from pam.errors import PamError
from pam.lock import alone_at

import_verb = importlib.import_module("pam.bin.import")
ROOT = Path(__file__).resolve().parents[2]


def imported(source, out, *options):
    """The directory that the program makes; it has validated it."""
    sources = source if isinstance(source, list) else [source]
    arguments = [*map(str, sources), "--out", str(out), "--task", "asr_clean", *map(str, options)]
    assert import_verb.main(arguments) == 0
    return DataDir.read(out)


def refusal(tmp_path, source, *options):
    """The message about a source that cannot be imported: one line, and nothing was written."""
    with pytest.raises(PamError) as raised:
        imported(source, tmp_path / "refused", *options)
    assert not (tmp_path / "refused/wav.scp").exists()
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(f"{tmp_path}/", "")


def test_a_second_import_to_the_same_set_is_refused(tmp_path):
    with locked_by_another(tmp_path / "refused", "import", alone_at):
        assert "refused: another import is running (process" in refusal(tmp_path, tmp_path)


# ---- lhotse


def manifest(file, entries):
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    file.write_bytes(gzip.compress(lines.encode()) if file.suffix == ".gz" else lines.encode())
    return file


def recording(folder, name, seconds=2.0, channels=1, rate=16000):
    """An entry of recordings.jsonl, and its file; channel n is noise of seed n."""
    file = folder / f"{name}.wav"
    file.parent.mkdir(parents=True, exist_ok=True)
    samples_NC = np.stack([sound(seconds, rate, n) for n in range(channels)], axis=1)
    soundfile.write(file, samples_NC, rate)
    source = {"type": "file", "channels": list(range(channels)), "source": str(file)}
    return {"id": name, "sources": [source], "sampling_rate": rate, "duration": seconds,
            "num_samples": round(seconds * rate), "channel_ids": source["channels"]}  # fmt: skip


def supervision(name, rec, start=0.0, duration=2.0, **more):
    return {"id": name, "recording_id": rec, "start": start, "duration": duration, "channel": 0,
            "text": f"words of {name}", "speaker": name.split("-")[0]} | more  # fmt: skip


def lhotse(folder, recordings, supervisions, end=".gz"):
    return [manifest(folder / f"recordings.jsonl{end}", recordings),
            manifest(folder / f"supervisions.jsonl{end}", supervisions)]  # fmt: skip


@pytest.mark.parametrize("end", ["", ".gz"])
def test_whole_recordings_need_no_segments(tmp_path, end):
    names = ["ann-1", "ann-2", "bob-1"]
    recordings = [recording(tmp_path, f"rec {name}") for name in names]
    spoken = [supervision(name, f"rec {name}") for name in names[::-1]]
    data = imported(lhotse(tmp_path, recordings, spoken, end), tmp_path / "set", "--prefix", "x-")
    assert data.utterances == ["x-ann-1", "x-ann-2", "x-bob-1"]
    assert data["wav.scp"]["x-bob-1"] == str(tmp_path / "rec bob-1.wav")
    assert data["text"]["x-ann-2"] == "words of ann-2"
    assert data["utt2spk"] == {"x-ann-1": "x-ann", "x-ann-2": "x-ann", "x-bob-1": "x-bob"}
    assert set(data["utt2task"].values()) == {"asr_clean"} and "segments" not in data


def test_parts_of_recordings_become_segments(tmp_path):
    recordings = [recording(tmp_path, "rec1", 2.0), recording(tmp_path, "rec2", 1.0)]
    spoken = [
        supervision("1", "rec1", 0.0, 0.5, speaker="ann"),
        supervision("2", "rec1", 1.25, 0.7503, speaker="ann"),  # ends after the audio by rounding
        supervision("3", "rec2", 0.0, 1.0, speaker=None),
        supervision("4", "rec2", 0.5, 0.5, text=" \n"),
    ]
    data = imported(lhotse(tmp_path, recordings, spoken), tmp_path / "set")
    assert data["segments"] == {
        "3": "rec2 0.0000 1.0000",
        "ann-1": "rec1 0.0000 0.5000",
        "ann-2": "rec1 1.2500 2.0000",
    }
    assert data["utt2spk"] == {"3": "3", "ann-1": "ann", "ann-2": "ann"}
    expected = soundfile.read(tmp_path / "rec1.wav")[0][20000:]
    np.testing.assert_allclose(load_audio(*data.audio("ann-2")), expected, atol=1e-6)
    left_out = (tmp_path / "set/left_out.log").read_text()
    assert left_out == f"without text\t{tmp_path}/supervisions.jsonl.gz:4\n"


def cut(name, rec, start, duration, supervisions, **more):
    return {"id": name, "type": "MonoCut", "start": start, "duration": duration, "channel": 0,
            "recording": rec, "supervisions": supervisions} | more  # fmt: skip


def test_supervisions_of_cuts_count_from_the_beginning_of_the_cut(tmp_path):
    rec = recording(tmp_path, "rec", 3.0)
    cuts = [
        cut("c1", rec, 0.5, 1.0, [supervision("ann-1", "rec", 0.0, 1.0)]),
        cut(
            "c2",
            rec,
            1.5,
            1.5,
            [supervision("ann-2", "rec", 0.25, 0.5), supervision("bob-1", "rec", 1.0, 0.5)],
        ),
        cut("c3", rec, 1.5, 0.5, [supervision("ann-3", "rec", -1.0, 1.2)]),
        cut("c4", rec, 1.5, 0.5, []),
    ]
    del cuts[0]["channel"]  # fmt: skip
    data = imported(manifest(tmp_path / "cuts.jsonl.gz", cuts), tmp_path / "set")
    assert data["segments"] == {
        "ann-1": "rec 0.5000 1.5000",
        "ann-2": "rec 1.7500 2.2500",
        "bob-1": "rec 2.5000 3.0000",
    }
    assert (tmp_path / "set/left_out.log").read_text().splitlines() == [
        f"with a supervision that is not inside its cut\t{tmp_path}/cuts.jsonl.gz:3",
        f"without a supervision\t{tmp_path}/cuts.jsonl.gz:4",
    ]


@pytest.mark.parametrize("rate", [16000, 8000])
def test_one_channel_of_several(tmp_path, rate):
    recordings = [recording(tmp_path, "rec", 2.0, 2, rate)]
    spoken = [supervision(f"ann-{c}", "rec", channel=c) for c in (0, 1)]
    manifests = lhotse(tmp_path, recordings, spoken)
    data = imported(manifests, tmp_path / "set")
    samples = soundfile.read(tmp_path / "rec.wav")[0]
    for channel in (0, 1):
        audio = load_audio(*data.audio(f"ann-{channel}"))
        assert len(audio) == 32000
        expected = samples[:, channel]
        if rate == 16000:
            np.testing.assert_allclose(audio, expected, atol=2**-15)
        assert np.corrcoef(audio[:: 16000 // rate], expected)[0, 1] > 0.9
    file = tmp_path / "set/audio/rec-c1.flac"
    made = file.stat().st_ino
    imported(manifests, tmp_path / "set")
    assert file.stat().st_ino == made  # not made again


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("form", ["recordings", "cuts"])
def test_ids_of_recordings_in_several_manifests(tmp_path, form, channels):
    """One recording may be in two manifests; two recordings may not have one id."""
    both = [recording(tmp_path / name, "rec", 2.0, channels) for name in ("one", "two")]
    spoken = [supervision(name, "rec") for name in ("ann-1", "bob-1")]
    if form == "cuts":
        both = [cut(f"c{n}", rec, 0.0, 2.0, [spoken[n]]) for n, rec in enumerate(both)]
    parts = [manifest(tmp_path / f"{n}.jsonl", [entry]) for n, entry in enumerate(both)]
    more = [manifest(tmp_path / "spoken.jsonl", spoken)] if form == "recordings" else []
    assert refusal(tmp_path, [*parts, *more]) == (
        "1.jsonl:1: the recording 'rec' was used before, for one/rec.wav: make the ids unique"
    )
    same = both[0] if form == "recordings" else both[1] | {"recording": both[0]["recording"]}
    manifest(parts[1], [same])
    data = imported([*parts, *more], tmp_path / "set")
    assert data.utterances == ["ann-1", "bob-1"] and len(data["wav.scp"]) == 1


def test_ids_of_recordings_that_give_one_name_to_their_channels(tmp_path):
    recordings = [recording(tmp_path, name, 2.0, 2) for name in ("rec a", "rec_a")]
    spoken = [supervision("ann-1", "rec a"), supervision("bob-1", "rec_a")]
    assert refusal(tmp_path, lhotse(tmp_path, recordings, spoken)) == (
        "supervisions.jsonl.gz:2: the recordings 'rec a' and 'rec_a' give one name to their "
        "channels, rec_a-c0: make the ids differ in more than spaces and slashes"
    )


def test_channels_in_files_of_their_own_are_not_copied(tmp_path):
    parts = [recording(tmp_path, f"mic{n}") for n in (0, 1)]
    sources = [part["sources"][0] | {"channels": [n]} for n, part in enumerate(parts)]
    spoken = [supervision("ann-1", "rec", channel=[0, 1])]
    manifests = lhotse(tmp_path, [parts[0] | {"id": "rec", "sources": sources}], spoken)
    assert ":1: several channels (0, 1): choose one with --channel" in refusal(tmp_path, manifests)
    data = imported(manifests, tmp_path / "set", "--channel", 1)
    assert data["wav.scp"] == {"ann-1": str(tmp_path / "mic1.wav")}
    assert ":1: no channel 2: 'rec' has 0, 1" in refusal(tmp_path, manifests, "--channel", 2)


def test_relative_paths_begin_at_audio_root(tmp_path):
    entry = recording(tmp_path / "audio", "rec")
    entry["sources"][0]["source"] = "rec.wav"
    manifests = lhotse(tmp_path, [entry], [supervision("ann-1", "rec")])
    message = refusal(tmp_path, manifests)
    assert message.startswith("supervisions.jsonl.gz:1: ") and "give its folder by --aud" in message
    data = imported(manifests, tmp_path / "set", "--audio_root", tmp_path / "audio")
    assert data["wav.scp"] == {"ann-1": str(tmp_path / "audio/rec.wav")}


BAD_RECORDINGS = {
    "url": ({"sources": [{"type": "url", "channels": [0], "source": "https://a/b"}]},
            "recordings.jsonl:1: recording 'rec' is of type 'url': write its audio to files"),
    "transforms": ({"transforms": [{"name": "Speed"}]}, "recordings.jsonl:1: recording 'rec' has"),
    "sources": ({"sources": None, }, "recordings.jsonl:1: sources is None: make the manifest"),
    "source": ({"sources": ["a.wav"]}, "recordings.jsonl:1: 'a.wav' is no object: make the"),
    "duration": ({"duration": "2"}, "recordings.jsonl:1: duration is '2': make the manifest"),
    "channels": ({"sources": [{"type": "file", "channels": 0, "source": "a.wav"}]},
                 "recordings.jsonl:1: channels is 0: make the manifest again"),
    "id": ({"id": 7}, "recordings.jsonl:1: id is 7: make the manifest again"),
}  # fmt: skip
BAD_SUPERVISIONS = {
    "recording": ({"recording_id": "other"}, "supervisions.jsonl:1: no recording 'other'"),
    "text": ({"text": ["a"]}, "supervisions.jsonl:1: text is ['a']: make the manifest again"),
    "start": ({"start": None}, "supervisions.jsonl:1: start is None: make the manifest again"),
    "outside": (
        {"start": 5.0},
        "found (not inside its recording, or without length: supervisions.jsonl:1)",
    ),
    "too long": (
        {"duration": 2.6},
        "found (not inside its recording, or without length: supervisions.jsonl:1)",
    ),
    "no time": (
        {"duration": 0.0},
        "not inside its recording, or without length: supervisions.jsonl:1)",
    ),
    "channel": ({"channel": "a"}, "supervisions.jsonl:1: channel is 'a': make the manifest"),
    "channels": ({"channel": [None]}, "no channel None: 'rec' has 0, 1"),
    "a long id": ({"id": "a" * 201}, "too long an id"),
}


@pytest.mark.parametrize("case", [*BAD_RECORDINGS.values(), *BAD_SUPERVISIONS.values()],
                         ids=[*BAD_RECORDINGS, *BAD_SUPERVISIONS])  # fmt: skip
def test_bad_manifests_give_file_and_line(tmp_path, case):
    changes, message = case
    is_recording = case in BAD_RECORDINGS.values()
    entry, spoken = recording(tmp_path, "rec", channels=2), supervision("ann-1", "rec")
    entry, spoken = (entry | changes, spoken) if is_recording else (entry, spoken | changes)
    assert message in refusal(tmp_path, lhotse(tmp_path, [entry], [spoken], end=""))


BROKEN_LINES = {
    b'{"id": \n': ":2: not JSON", b"[1]\n": ":2: '[1]' is no object", b"\xff\xfe\n": "not UTF-8",
}  # fmt: skip


@pytest.mark.parametrize("line", BROKEN_LINES)
def test_broken_lines(tmp_path, line):
    recordings, spoken = lhotse(
        tmp_path, [recording(tmp_path, "rec")], [supervision("ann-1", "rec")], end=""
    )
    spoken.write_bytes(spoken.read_bytes() + line)
    message = refusal(tmp_path, [recordings, spoken])
    assert message.startswith("supervisions.jsonl") and BROKEN_LINES[line] in message


def test_what_is_no_set_of_manifests(tmp_path):
    rec = recording(tmp_path, "rec")
    recordings, spoken = lhotse(tmp_path, [rec], [supervision("ann-1", "rec")])
    assert "name its manifest of recordings too" in refusal(tmp_path, spoken)
    assert "name its manifest of supervisions too" in refusal(tmp_path, recordings)
    mixed = manifest(tmp_path / "cuts.jsonl", [{"id": "m", "type": "MixedCut", "tracks": []}])
    assert "cuts.jsonl:1: cut 'm' is a MixedCut: write its audio" in refusal(tmp_path, mixed)
    other = manifest(tmp_path / "other.jsonl", [{"a": 1}])
    assert "other.jsonl:1: no recording, supervision or cut" in refusal(tmp_path, other)
    assert "empty.jsonl: empty" in refusal(tmp_path, manifest(tmp_path / "empty.jsonl", []))
    spoken.write_bytes(spoken.read_bytes()[:-12])
    assert "supervisions.jsonl.gz: truncated" in refusal(tmp_path, [recordings, spoken])
    twice = lhotse(tmp_path, [rec], [supervision("ann-1", "rec")] * 2)
    message = refusal(tmp_path, twice)
    assert message.startswith("supervisions.jsonl.gz:2: the id 'ann-1' was used before, at")
    (tmp_path / "corpus.zip").write_bytes(b"PK")
    assert "corpus.zip: unknown form of a corpus" in refusal(tmp_path, tmp_path / "corpus.zip")
    assert "gone: no such file or folder" in refusal(tmp_path, tmp_path / "gone")


# ---- Hugging Face


def rows(count=5, kind="FLAC"):
    return [
        {
            "audio": {"bytes": encoded(0.3, 16000, n, kind), "path": f"{n}.flac"},
            "text": f"naïve {n}",
            "speaker_id": n // 2,
            "file": f"rec.{n}",
        }
        for n in range(count)
    ]


def saved(folder, table, parts=2):
    """A folder as `save_to_disk` writes it."""
    names = [f"data-{n:05d}-of-{parts:05d}.arrow" for n in range(parts)]
    folder.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(names):
        write_arrow(folder / name, table[n::parts], 2)
    state = {"_data_files": [{"filename": name} for name in names], "_split": folder.name}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


def splits(folder, names=("train", "test")):
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(names)}))
    return folder


def test_a_set_that_was_saved_to_disk(tmp_path):
    table = rows()
    source = saved(tmp_path / "ds", table)
    data = imported(source, tmp_path / "set", "--speaker_column", "speaker_id",
                    "--id_column", "file", "--prefix", "hf-")  # fmt: skip
    assert data.utterances == ["hf-0-rec.0", "hf-0-rec.1", "hf-1-rec.2", "hf-1-rec.3", "hf-2-rec.4"]
    assert all(map(is_member, data["wav.scp"].values()))
    for n, utt in enumerate(data.utterances):
        assert data["text"][utt] == f"naïve {n}"
        expected = sound(0.3, 16000, n)
        np.testing.assert_allclose(load_audio(*data.audio(utt)), expected, atol=2**-14)
    assert [file.name for file in (tmp_path / "set/shards").iterdir()] == ["ds-000000.tar"]


def test_splits(tmp_path):
    table = rows()
    for name, part in (("train", table[:3]), ("test", table[3:])):
        saved(tmp_path / "ds" / name, part, 1)
    splits(tmp_path / "ds")
    message = refusal(tmp_path, tmp_path / "ds")
    assert message == "ds: several splits: choose one with --split: train, test"
    assert "did you mean 'train'?" in refusal(tmp_path, tmp_path / "ds", "--split", "trian")
    message = refusal(tmp_path, tmp_path / "ds/train", "--split", "test")
    assert message == "ds/train: --split 'test': known: train"
    data = imported(tmp_path / "ds", tmp_path / "set", "--split", "test")
    assert data["text"] == {"test-00000000": "naïve 3", "test-00000001": "naïve 4"}
    assert data["utt2spk"] == {utt: utt for utt in data["text"]}


SNAPSHOTS = [
    ("data/train.clean-00000-of-00002.parquet", "data/train.clean-00001-of-00002.parquet",
     "data/dev-00000-of-00001-a1b2c3.parquet"),
    ("default/train.clean/0000.parquet", "default/train.clean/0001.parquet",
     "default/dev/0000.parquet"),
]  # fmt: skip


@pytest.mark.parametrize("names", SNAPSHOTS)
def test_snapshots_of_parquet(tmp_path, names):
    table = rows(6)
    for name, part in zip(names, (table[:2], table[2:4], table[4:]), strict=True):
        (tmp_path / "ds" / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(tmp_path / "ds" / name, part, 1)
    assert "several splits" in refusal(tmp_path, tmp_path / "ds")
    data = imported(tmp_path / "ds", tmp_path / "set", "--split", "train.clean")
    assert list(data["text"].values()) == [f"naïve {n}" for n in range(4)]
    assert set(data["wav.scp"]) == {f"train.clean-{n:08d}" for n in range(4)}


CONFIGS = [
    ("clean/train-00000-of-00001.parquet", "clean/dev-00000-of-00001.parquet",
     "other/train-00000-of-00001-a1b2c3.parquet"),
    ("clean/train/0000.parquet", "clean/dev/0000.parquet", "other/train/0000.parquet"),
    ("clean/train.parquet", "clean/dev.parquet", "other/train.parquet"),
]  # fmt: skip


@pytest.mark.parametrize("names", CONFIGS)
def test_configurations_of_a_snapshot_are_not_mixed(tmp_path, names):
    table = rows(3)
    for name, row in zip(names, table, strict=True):
        (tmp_path / "ds" / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(tmp_path / "ds" / name, [row], 1)
    message = refusal(tmp_path, tmp_path / "ds", "--split", "train")
    assert message == "ds: 'train' is in several folders: give one as the source: clean, other"
    data = imported(tmp_path / "ds/other", tmp_path / "set")
    assert data["text"] == {"train-00000000": "naïve 2"}
    data = imported(tmp_path / "ds", tmp_path / "set", "--split", "dev")
    assert data["text"] == {"dev-00000000": "naïve 1"}
    folder = (tmp_path / "ds" / names[2]).parent  # of the split, if its files have numbers alone
    assert list(imported(folder, tmp_path / "set")["text"].values()) == ["naïve 2"]


def test_rows_that_cannot_be_utterances(tmp_path):
    write(tmp_path / "outside.wav", encoded(0.2, 16000, 0))
    table = rows(5)
    table[0]["text"] = None
    table[1]["audio"] = None
    table[2]["audio"]["bytes"] = b"\x89PNG and so on"
    table[3]["audio"] = {"bytes": None, "path": str(tmp_path / "outside.wav")}
    table.append(table[4] | {"audio": {"bytes": None, "path": "gone.wav"}})
    data = imported(saved(tmp_path / "ds", table, 1), tmp_path / "set")
    assert data["wav.scp"]["ds-00000003"] == str(tmp_path / "outside.wav")
    assert data.utterances == ["ds-00000003", "ds-00000004"]
    file = tmp_path / "ds/data-00000-of-00001.arrow"
    assert sorted((tmp_path / "set/left_out.log").read_text().splitlines()) == [
        f"not an audio file that is known\t{file}: row 2",
        f"without audio, in the data set or at its path\t{file}: row 1",
        f"without audio, in the data set or at its path\t{file}: row 5",
        f"without text\t{file}: row 0",
    ]


def test_columns(tmp_path):
    source = saved(tmp_path / "ds", rows(2), 1)
    file = "ds/data-00000-of-00001.arrow"
    for option in ("text", "audio", "speaker", "id"):
        message = refusal(tmp_path, source, f"--{option}_column", "x")
        has = "audio, text, speaker_id, file"
        assert message == f"{file}: no column 'x': choose --{option}_column of {has}"
    assert f"{file}: row 0: speaker_id is 0, no text" in refusal(
        tmp_path, source, "--text_column", "speaker_id"
    )
    assert f"{file}: row 0: the audio has no bytes" in refusal(
        tmp_path, source, "--audio_column", "text"
    )
    assert "row 0: audio is {'bytes'" in refusal(tmp_path, source, "--speaker_column", "audio")


def test_damaged_sets(tmp_path):
    source = saved(tmp_path / "ds", rows(4))
    (source / "data-00001-of-00002.arrow").write_bytes(b"no Arrow")
    assert "data-00001-of-00002.arrow: truncated or no Arrow file" in refusal(tmp_path, source)
    assert not list((tmp_path / "refused").rglob("*.tar*"))
    outside = "'../x.arrow' is not a file of the folder"
    for name, content, message in (
        ("state", '{"_data_files": [{"filename": "../x.arrow"}]}', outside),
        ("state", '{"_data_files": [{"filename": 3}]}', "3 is not a file of the folder"),
        ("state", '{"_data_files": 3}', "no _data_files"),
        ("state", "{", "cannot be read"),
        ("dataset_dict", '{"splits": 3}', "no list of splits"),
        ("dataset_dict", '{"splits": ["../x"]}', "no list of splits"),
        ("dataset_dict", "", "cannot be read"),
    ):
        (source / f"{name}.json").write_text(content)
        assert f"ds/{name}.json: {message}" in refusal(tmp_path, source)
    (tmp_path / "nothing").mkdir()
    assert "nothing: no state.json and no Parquet file: give manifests of" in refusal(
        tmp_path, tmp_path / "nothing"
    )


def test_shards_have_a_limited_size_and_old_ones_go(tmp_path, monkeypatch):
    source = saved(tmp_path / "ds", rows(5), 1)
    monkeypatch.setattr(hub, "SHARD_BYTES", 10_000)
    data = imported(source, tmp_path / "set")
    assert len(list((tmp_path / "set/shards").iterdir())) > 1
    before = {utt: load_audio(*data.audio(utt)) for utt in data.utterances}
    monkeypatch.setattr(hub, "SHARD_BYTES", 1 << 20)
    data = imported(source, tmp_path / "set")
    assert len(list((tmp_path / "set/shards").iterdir())) == 1
    for utt, audio in before.items():
        np.testing.assert_array_equal(load_audio(*data.audio(utt)), audio)


# ---- WebDataset


def shard(file, contents):
    with writing_shard(file) as tar:
        for name, content in contents.items():
            tar.add(name, content if isinstance(content, bytes) else content.encode())
    return file


def test_shards_of_webdataset(tmp_path):
    tone = encoded(0.3, 16000, 0, "FLAC")
    shard(tmp_path / "in/train-000000.tar", {
        "a/one.flac": tone, "a/one.txt": "the first\n", "a/one.json": '{"speaker": "ann"}',
        "a/two.json": '{"text": "in json", "speaker": "ann"}', "a/two.WAV": encoded(0.2, 8000, 1),
    })  # fmt: skip
    shard(tmp_path / "in/train-000001.tar", {
        "three.flac": tone, "three.txt": "the third", "four.txt": "no audio", "five.flac": tone,
        "six.mp3": b"<html>not found</html>", "six.txt": "an error page",
    })  # fmt: skip
    data = imported(tmp_path / "in", tmp_path / "set")
    assert data["text"] == {"ann-a_one": "the first", "ann-a_two": "in json", "three": "the third"}
    assert data["utt2spk"] == {"ann-a_one": "ann", "ann-a_two": "ann", "three": "three"}
    entry = data["wav.scp"]["three"]
    assert entry.startswith(f"{tmp_path}/in/train-000001.tar:") and len(load_audio(entry)) == 4800
    assert len(load_audio(data["wav.scp"]["ann-a_two"])) == 3200
    assert (tmp_path / "set/left_out.log").read_text().splitlines() == [
        f"without audio\t{tmp_path}/in/train-000001.tar: four",
        f"without text\t{tmp_path}/in/train-000001.tar: five",
        f"not an audio file that is known\t{tmp_path}/in/train-000001.tar: six",
    ]
    one = imported(tmp_path / "in/train-000001.tar", tmp_path / "one", "--prefix", "p_")
    assert one.utterances == ["p_three"]


def test_shards_of_several_sets_are_not_mixed(tmp_path):
    tone = encoded(0.2, 16000, 0)
    for number, name in enumerate(("train-000000", "train-000001", "dev_0")):
        shard(tmp_path / f"in/{name}.tar", {f"a{number}.wav": tone, f"a{number}.txt": name})
    message = refusal(tmp_path, tmp_path / "in")
    assert message == "in: several splits: choose one with --split: dev, train"
    assert "--split 'dec': did you mean 'dev'?" in refusal(
        tmp_path, tmp_path / "in", "--split", "dec"
    )
    data = imported(tmp_path / "in", tmp_path / "set", "--split", "train")
    assert [*data["text"].values()] == ["train-000000", "train-000001"]
    both = [tmp_path / "in/dev_0.tar", tmp_path / "in/train-000000.tar"]
    assert [*imported(both, tmp_path / "both")["text"].values()] == ["train-000000", "dev_0"]
    assert "--split 'dev': known: train" in refusal(tmp_path, both[1], "--split", "dev")


def test_the_folder_of_a_split_is_the_source_by_its_relative_name(tmp_path, monkeypatch):
    (tmp_path / "ds/train").mkdir(parents=True)
    write_parquet(tmp_path / "ds/train/0000.parquet", rows(3)[:1], 1)
    monkeypatch.chdir(tmp_path / "ds/train")
    assert imported(".", tmp_path / "set").utterances == ["train-00000000"]


OF_OTHER_FORMS = {
    "lhotse": ("--split", "train", "--split has no effect on manifests of lhotse"),
    "tar": ("--channel", 1, "--channel has no effect on tar shards"),
    "hub": ("--audio_root", "/", "--audio_root has no effect on a data set of Hugging Face"),
}


@pytest.mark.parametrize("form", OF_OTHER_FORMS)
def test_options_of_other_forms(tmp_path, form):
    if form == "lhotse":
        source = lhotse(tmp_path, [recording(tmp_path, "r")], [supervision("ann-1", "r")])
    elif form == "tar":
        source = shard(tmp_path / "s.tar", {"a.wav": encoded(0.2, 16000, 0), "a.txt": "x"})
    else:
        source = tmp_path / "ds"
        source.mkdir()
        write_parquet(source / "train-00000-of-00001.parquet", rows(3), 1)
    option, value, message = OF_OTHER_FORMS[form]
    assert message in refusal(tmp_path, source, option, value)


def test_columns_of_shards(tmp_path):
    tone, other = (encoded(0.2, 16000, n) for n in (0, 1))
    about = json.dumps({"caption": "a tone", "by": 7, "length": 3})
    source = shard(tmp_path / "s.tar", {"a.x.wav": tone, "a.y.wav": other, "a.json": about})
    assert "s.tar: a: several audio files (x.wav, y.wav): choose one" in refusal(tmp_path, source)
    options = ["--audio_column", "y.wav", "--text_column", "caption", "--speaker_column", "by"]
    data = imported(source, tmp_path / "set", *options)
    assert data["text"] == {"7-a": "a tone"} and data["utt2spk"] == {"7-a": "7"}
    np.testing.assert_allclose(load_audio(*data.audio("7-a")), sound(0.2, 16000, 1), atol=2**-14)
    options[3] = "length"
    assert "s.tar: a: length is 3, not a text" in refusal(tmp_path, source, *options)


BAD_SAMPLES = {
    "{": "s.tar: a: its json is damaged", "[1]": "s.tar: a: its json is '[1]'",
    b"\xff": "s.tar: a: json is not UTF-8",
}  # fmt: skip


@pytest.mark.parametrize("content", BAD_SAMPLES)
def test_bad_samples(tmp_path, content):
    source = shard(tmp_path / "s.tar", {"a.wav": encoded(0.2, 16000, 0), "a.json": content})
    assert BAD_SAMPLES[content] in refusal(tmp_path, source)


def test_bad_shards(tmp_path):
    tone = encoded(0.2, 16000, 0)
    source = shard(tmp_path / "s.tar", {"a.wav": tone, "a.txt": "x"})
    again = shard(tmp_path / "t.tar", {"a.wav": tone, "a.txt": "y"})
    message = refusal(tmp_path, [source, again])
    assert message.startswith("t.tar: a: the id 'a' was used before, at s.tar: a: make")
    assert "no utterance was found (the source is empty)" in refusal(
        tmp_path, shard(tmp_path / "e.tar", {})
    )
    source.write_bytes(source.read_bytes()[:-9000])
    assert "s.tar: truncated" in refusal(tmp_path, source)


def test_what_was_packed_can_be_imported(tmp_path):
    files = {"wav.scp": {}, "text": {}, "utt2spk": {}, "utt2task": {}}
    for n in range(4):
        utt = f"spk{n // 2}-{n}"
        write(tmp_path / f"in/{utt}.wav", encoded(0.2, 16000, n))
        entry = {"wav.scp": tmp_path / f"in/{utt}.wav", "text": f"words {n}",
                 "utt2spk": f"spk{n // 2}", "utt2task": "asr_clean"}  # fmt: skip
        for name, value in entry.items():
            files[name][utt] = str(value)
    DataDir(files).write(tmp_path / "set")
    shard_verb.main([str(tmp_path / "set"), str(tmp_path / "packed"), "--size", "10K"])
    data = imported(tmp_path / "packed/shards", tmp_path / "again")
    assert data.files == DataDir.read(tmp_path / "packed").files


# ---- the program


def test_the_program(tmp_path):
    source = shard(tmp_path / "s.tar", {"a.wav": encoded(0.2, 16000, 0), "a.txt": "x"})

    def run(*options):
        command = [sys.executable, "-m", "pam.bin.import", source, "--out", tmp_path / "set"]
        return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)

    done = run("--task", "asr_clean")
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'set'}: valid, 1 utterances\n"
    failed = run("--task", "asr_claen")
    assert failed.returncode == 1 and "did you mean 'asr_clean'?" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


WRONG_OPTIONS = {
    "a misspelt column": ["--text_column", "txet"],
    "a column of numbers": ["--text_column", "speaker_id"],
    "ids that come twice": ["--id_column", "speaker_id"],
    "a space in the prefix": ["--prefix", "a b"],
    "damage": [],
}


@pytest.mark.parametrize("wrong", WRONG_OPTIONS)
def test_an_import_that_fails_leaves_the_one_of_before(tmp_path, wrong):
    source, options = saved(tmp_path / "ds", rows(3)), ["--split", "ds"]
    data = imported(source, tmp_path / "set", *options)
    before = contents(tmp_path / "set")
    if wrong == "damage":
        (source / "data-00001-of-00002.arrow").write_bytes(b"damaged")
    with pytest.raises(PamError):
        imported(source, tmp_path / "set", *options, *WRONG_OPTIONS[wrong])
    assert contents(tmp_path / "set") == before
    assert len(load_audio(*data.audio("ds-00000002"))) == 4800


def test_shards_of_a_killed_import_go_with_the_next(tmp_path):
    imported(saved(tmp_path / "ds", rows(3)), tmp_path / "set")
    (tmp_path / "set/shards/ds-000001.tar").write_bytes(b"whatever")
    data = imported(tmp_path / "ds", tmp_path / "set")
    (shard,) = (tmp_path / "set/shards").iterdir()
    assert all(entry.startswith(f"{shard}:") for entry in data["wav.scp"].values())


SAME_ID = {"id": "ann-1", "speaker": "ann"}


@pytest.mark.parametrize("wrong", [{"duration": None}, {"recording_id": "other"}, SAME_ID])
def test_a_failed_import_of_lhotse_leaves_the_one_of_before(tmp_path, wrong):
    """The audio of a channel too, which has the name of its recording."""
    spoken = [supervision(name, "rec") for name in ("ann-1", "bob-1")]
    manifests = lhotse(tmp_path, [recording(tmp_path, "rec", 2.0, 2)], spoken)
    imported(manifests, tmp_path / "set")
    before = contents(tmp_path / "set")
    assert [file.name for file in before if file.suffix == ".flac"] == ["rec-c0.flac"]
    other = [recording(tmp_path / "other", "rec", 3.0, 2)]
    manifests = lhotse(tmp_path / "other", other, [spoken[0], spoken[1] | wrong])
    with pytest.raises(PamError):
        imported(manifests, tmp_path / "set")
    assert contents(tmp_path / "set") == before
