"""Stage 2 without encoders: what it writes, that it resumes, what memory an utterance needs."""

import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import SAMPLES, STATED, encode

from pam.bin.combine import main as combine
from pam.bin.dump import main as dump_main
from pam.bin.validate import main as validate
from pam.config.made import FILE, PENDING, Making, read_record
from pam.data import scan
from pam.data.audio import load_audio
from pam.data.concat import concat_entry, is_concat
from pam.data.datadir import DataDir
from pam.data.raw import LengthLimit, dump_audio
from pam.data.scp import write_text_file
from pam.data.webdataset import writing_shard
from pam.errors import MachineError, PamError


def write_set(folder: Path, wav: Path, segments: dict[str, str], rate: int = 16000) -> Path:
    """Utterances with their segments of one recording of a second."""
    files = {
        "segments": {utt: f"rec {times}" for utt, times in segments.items()},
        "wav.scp": {"rec": str(wav)},
    }
    return write_data_dir(folder, wav, files, list(segments), rate)


def write_data_dir(folder: Path, wav: Path, files: dict, utts: list[str], rate=16000) -> Path:
    soundfile.write(wav, 0.1 * np.sin(np.arange(rate)), rate)
    files |= {
        "text": {utt: f"words of {utt}" for utt in utts},
        "utt2spk": {utt: utt.partition("-")[0] for utt in utts},
        "utt2task": dict.fromkeys(utts, "asr_clean"),
    }
    DataDir(files).write(folder)
    return folder


TONE = np.sin(np.arange(8000))
GOOD = {"a-1": "0 0.9", "a-2": "0.1 0.9"}
SHORT, LATE = {"z-1": "0.5 0.51"}, {"z-2": "0.5 9"}


def test_bad_utterances_are_listed_and_left_out(tmp_path):
    data = write_set(tmp_path / "set", tmp_path / "x.wav", GOOD | SHORT | LATE)
    out = tmp_path / "raw/set"
    with pytest.raises(PamError, match="2 of 4 utterances are bad, the first is z-1.*too short"):
        dump_audio(data, out)
    assert not (out / "wav.scp").exists()
    assert set(dump_audio(data, out, max_bad=0.5)) == {"z-1", "z-2"}
    assert DataDir.read(out)["utt2num_samples"] == {"a-1": "14400", "a-2": "12800"}
    assert (out / "bad_utts").read_text().startswith("z-1\t")


def test_what_was_scanned_is_not_scanned_again(tmp_path, monkeypatch):
    data = write_set(tmp_path / "set", tmp_path / "x.wav", {"é-1": "0 1"} | LATE)
    out = tmp_path / "raw/set"
    first = dump_audio(data, out, max_bad=0.5)
    before = DataDir.read(out)
    (out / "wav.scp").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(scan, "convert", lambda source: pytest.fail("converted again"))
        assert dump_audio(data, out, max_bad=0.5) == first
    assert DataDir.read(out) == before
    write_set(tmp_path / "set", tmp_path / "x.wav", GOOD)  # other utterances: all over again
    assert dump_audio(data, out) == {} and DataDir.read(out).utterances == ["a-1", "a-2"]


def write_files(folder: Path, utts: dict[str, float], rate: int = 16000) -> Path:
    """A file for each utterance, of so many seconds; 0: one that is no audio."""
    folder.mkdir(parents=True)
    for utt, seconds in utts.items():
        write_file(folder / f"{utt}.wav", seconds, rate)
    files = {
        "wav.scp": {utt: str(folder / f"{utt}.wav") for utt in utts},
        "text": dict.fromkeys(utts, "words"),
        "utt2spk": {utt: utt.partition("-")[0] for utt in utts},
        "utt2task": dict.fromkeys(utts, "asr_clean"),
    }
    DataDir(files).write(folder / "set")
    return folder / "set"


def write_file(file: Path, seconds: float, rate: int = 16000) -> None:
    if seconds:
        soundfile.write(file, 0.1 * np.sin(np.arange(round(seconds * rate))), rate)
    else:
        file.write_bytes(b"RIFF, but nothing of the kind")


def converted(monkeypatch) -> list[str]:
    """The utterances that are converted from now on."""
    seen, convert = [], scan.convert
    monkeypatch.setattr(scan, "convert", lambda source: seen.append(source.utt) or convert(source))
    return seen


@pytest.mark.parametrize("rate", [16000, 8000])
def test_a_file_that_was_bad_and_is_replaced_is_looked_at_again(tmp_path, monkeypatch, rate):
    """The same path, the same command; what was good is not done twice."""
    data = write_files(tmp_path / "wav", {"a-1": 1, "a-2": 0, "a-3": 1}, rate)
    with pytest.raises(PamError, match="1 of 3 utterances are bad, the first is a-2"):
        dump_audio(data, tmp_path / "raw")
    seen = converted(monkeypatch)
    with pytest.raises(PamError, match="1 of 3 utterances are bad"):
        dump_audio(data, tmp_path / "raw")
    assert seen == []
    write_file(tmp_path / "wav/a-2.wav", 0.5, rate)
    assert dump_audio(data, tmp_path / "raw") == {} and seen == ["a-2"]
    samples = DataDir.read(tmp_path / "raw")["utt2num_samples"]
    assert samples == {"a-1": "16000", "a-2": "8000", "a-3": "16000"}
    assert (tmp_path / "raw/bad_utts").read_text() == ""


def test_a_file_that_comes_later_is_found(tmp_path):
    data = write_files(tmp_path / "wav", {"a-1": 1, "a-2": 1})
    (tmp_path / "wav/a-2.wav").rename(tmp_path / "a-2.wav")
    with pytest.raises(PamError, match="a-2.*no such audio file"):
        dump_audio(data, tmp_path / "raw")
    (tmp_path / "a-2.wav").rename(tmp_path / "wav/a-2.wav")
    assert dump_audio(data, tmp_path / "raw") == {}


def test_a_piece_of_a_concatenation_may_be_replaced_too(tmp_path):
    data = DataDir.read(write_files(tmp_path / "wav", {"a-1": 1, "a-2": 0}))
    both = concat_entry([(path, None, None) for path in data["wav.scp"].values()])
    data.files["wav.scp"] = {"a-1": both, "a-2": data["wav.scp"]["a-1"]}
    data.write(tmp_path / "wav/set")
    with pytest.raises(PamError, match="1 of 2 utterances are bad, the first is a-1"):
        dump_audio(tmp_path / "wav/set", tmp_path / "raw")
    write_file(tmp_path / "wav/a-2.wav", 0.5)
    assert dump_audio(tmp_path / "wav/set", tmp_path / "raw") == {}
    assert DataDir.read(tmp_path / "raw")["utt2num_samples"]["a-1"] == "24000"


def test_a_corrected_file_costs_its_changed_lines_only(tmp_path, monkeypatch):
    """Also where a line is dropped: all others have another number then."""
    utts = {f"a-{n}": 1 for n in range(5)} | {"a-2": 0}
    data = write_files(tmp_path / "wav", utts, rate=8000)
    with pytest.raises(PamError, match="1 of 5"):
        dump_audio(data, tmp_path / "raw")
    seen, read = converted(monkeypatch), DataDir.read(data)
    kept = read.subset(["a-0", "a-3", "a-4"])
    kept.files["wav.scp"]["a-3"] = kept["wav.scp"]["a-4"]
    kept.write(data)
    assert dump_audio(data, tmp_path / "raw") == {} and seen == ["a-3"]
    files = {file.name for file in (tmp_path / "raw/audio").rglob("*.flac")}
    assert files == {"a-0.flac", "a-3.flac", "a-4.flac"}


def test_a_raised_tolerance_does_nothing_twice(tmp_path, monkeypatch):
    data = write_files(tmp_path / "wav", {"a-1": 1, "a-2": 0, "a-3": 1})
    with pytest.raises(PamError, match="more than --max_bad 0.50%, mend the data or raise it"):
        dump_audio(data, tmp_path / "raw")
    seen = converted(monkeypatch)
    assert set(dump_audio(data, tmp_path / "raw", max_bad=0.4)) == {"a-2"} and seen == []


def test_a_bad_file_that_is_cured_without_a_change_is_looked_at_again(tmp_path, monkeypatch):
    """By other rights, or by a libsndfile that can decode it."""
    data = write_files(tmp_path / "wav", {"a-1": 1, "a-2": 1})
    read, cured = scan.read_audio, []

    def reading(path, *times):
        if path.endswith("a-2.wav") and not cured:
            raise PamError(f"{path}: cannot be read (Permission denied): change its rights")
        return read(path, *times)

    monkeypatch.setattr(scan, "read_audio", reading)
    cures = {
        "rights": lambda: (tmp_path / "wav/a-2.wav").chmod(0o600),
        "decoder": lambda: monkeypatch.setattr(soundfile, "__libsndfile_version__", "9.9.9"),
    }
    for name, cure in cures.items():
        cured.clear()
        out = tmp_path / name
        with pytest.raises(PamError, match="1 of 2 utterances are bad.*change its rights"):
            dump_audio(data, out)
        cured.append(True)
        with pytest.raises(PamError, match="1 of 2 utterances are bad"):
            dump_audio(data, out)
        cure()
        assert dump_audio(data, out) == {}


@pytest.mark.parametrize("nj", [1, 2])
def test_what_the_machine_cannot_read_now_is_not_bad(tmp_path, monkeypatch, nj):
    """An error of a disk, or too many open files: the same command goes on later."""
    data = write_files(tmp_path / "wav", {f"a-{n}": 1 for n in range(70)})
    read = scan.read_audio

    def failing(path, *times):
        if path.endswith("a-7.wav"):
            raise MachineError(f"{path}: cannot be read (Input/output error): try again later")
        return read(path, *times)

    with monkeypatch.context() as once:
        once.setattr(scan, "read_audio", failing)
        with pytest.raises(MachineError, match="a-7.wav: cannot be read"):
            dump_audio(data, tmp_path / "raw", nj, max_bad=0.5)
    assert not (tmp_path / "raw/wav.scp").exists()
    assert dump_audio(data, tmp_path / "raw", nj) == {}


def test_a_stopped_scan_does_not_keep_what_was_replaced_meanwhile(tmp_path):
    """FLAC files of a scan that was killed are used again, but not those of another source."""
    data = write_files(tmp_path / "wav", {"a-1": 1, "a-2": 1}, rate=8000)
    dump_audio(data, tmp_path / "raw")
    for file in ("wav.scp", "scan.jsonl"):
        (tmp_path / "raw" / file).unlink()
    write_file(tmp_path / "wav/a-2.wav", 0.5, 8000)
    dump_audio(data, tmp_path / "raw")
    assert DataDir.read(tmp_path / "raw")["utt2num_samples"] == {"a-1": "16000", "a-2": "8000"}


def test_copies_outlive_a_source_that_is_away(tmp_path, monkeypatch):
    data = write_files(tmp_path / "wav", {"a-1": 1, "a-2": 1}, rate=8000)
    dump_audio(data, tmp_path / "raw")
    for file in (tmp_path / "wav").glob("*.wav"):
        file.unlink()  # as where a disk is not mounted
    seen = converted(monkeypatch)
    (tmp_path / "raw/wav.scp").unlink()
    assert dump_audio(data, tmp_path / "raw") == {} and seen == []


def test_lengths_are_limited_counted_and_listed(tmp_path, caplog, monkeypatch):
    """What is dropped by its length is not bad, be it too short for an encoder."""
    caplog.set_level("INFO")
    utts = {"a-1": 0.01, "a-2": 0.5, "a-3": 1, "a-4": 2, "a-5": 2.5}
    data = write_files(tmp_path / "wav", utts)
    out = tmp_path / "raw"
    assert dump_audio(data, out, limit=LengthLimit(0.5, 2)) == {}
    assert DataDir.read(out).utterances == ["a-2", "a-3", "a-4"]
    assert (out / "dropped_utts").read_text() == (
        "a-1\t0.010\tshorter than --min_seconds 0.5\na-5\t2.500\tlonger than --max_seconds 2\n"
    )
    assert "raw: 2 of 5 utterances are dropped by their length, listed in" in caplog.text
    seen = converted(monkeypatch)
    dump_audio(data, out, limit=LengthLimit(0.5))
    assert DataDir.read(out).utterances == ["a-2", "a-3", "a-4", "a-5"] and seen == []
    with pytest.raises(PamError, match="5 of 5 utterances are dropped .*choose other limits"):
        dump_audio(data, out, limit=LengthLimit(most=0.001))


def test_a_test_set_loses_nothing_by_its_lengths(tmp_path, caplog):
    caplog.set_level("INFO")
    data = write_files(tmp_path / "wav", {"a-1": 1, "a-2": 2})
    dump_audio(data, tmp_path / "raw", limit=LengthLimit(most=1.5, drops=False))
    assert DataDir.read(tmp_path / "raw").utterances == ["a-1", "a-2"]
    assert "1 of 2 utterances are outside --min_seconds and --max_seconds: kept" in caplog.text
    assert (tmp_path / "raw/dropped_utts").read_text() == ""


def test_the_shortest_clips_of_a_test_set_are_padded(tmp_path, caplog):
    """Whether they are files, parts of a recording or copies; other sets leave them out."""
    caplog.set_level("INFO")
    of_tests = LengthLimit(drops=False)
    parts = write_set(tmp_path / "set", tmp_path / "x.wav", GOOD | SHORT)
    for data, utt in (
        (parts, "z-1"),
        (write_files(tmp_path / "files", {"a-1": 1, "a-2": 0.01}), "a-2"),
        (write_files(tmp_path / "copies", {"a-1": 1, "a-2": 0.01}, rate=8000), "a-2"),
    ):
        out = tmp_path / "raw" / data.parent.name
        for _ in range(2):  # the second time nothing is scanned
            assert dump_audio(data, out, limit=of_tests) == {}
            raw = DataDir.read(out)
            assert raw["utt2num_samples"][utt] == "1600" and len(raw) == len(DataDir.read(data))
            samples = load_audio(raw["wav.scp"][utt])
            np.testing.assert_allclose(
                samples[:160], load_audio(*DataDir.read(data).audio(utt)), atol=1e-4
            )
            assert len(samples) == 1600 and not samples[160:].any()
        assert f"{data.parent.name}: 1 utterances are shorter than 0.1 s: padded" in caplog.text
        assert list(dump_audio(data, out, max_bad=0.6)) == [utt]


def test_audio_alone_needs_no_gpu(tmp_path):
    """A login node can prepare the audio of a training on GPUs."""
    data = write_files(tmp_path / "wav", {"a-1": 1})
    more = ["--feats", "online", "--ngpu", "8", "--out", str(tmp_path / "raw")]
    dump_main(["--data", str(data), *more])
    assert len(DataDir.read(tmp_path / "raw/set")) == 1


def test_limits_from_the_command_line(tmp_path):
    data = write_files(tmp_path / "wav", {"a-1": 1, "a-2": 2})
    limits = ["--feats", "online", "--max_seconds", "1.5", "--data", str(data)]
    for more, kept in (([], 1), (["--limited", "other"], 2), (["--limited", "set", "x"], 1)):
        raw = tmp_path / "raw" / str(kept)
        dump_main([*limits, *more, "--out", str(raw)])
        assert len(DataDir.read(raw / "set")) == kept
    with pytest.raises(PamError, match="2/set was made with other settings; .*--dumpdir"):
        dump_main([*limits, "--out", str(tmp_path / "raw/2")])


def test_a_clip_that_is_too_short_names_its_file(tmp_path):
    """The user's own, not the copy."""
    data = write_files(tmp_path / "my wav", {"a-1": 1, "a-2": 0.01}, rate=8000)
    with pytest.raises(PamError, match=f"is a-2 .{tmp_path}/my wav/a-2.wav: 160 samples are too"):
        dump_audio(data, tmp_path / "raw")
    data = write_set(tmp_path / "set", tmp_path / "x.wav", GOOD | SHORT)
    with pytest.raises(PamError, match="is z-1 .*/x.wav from 0.5 to 0.51 s: 160 samples are too"):
        dump_audio(data, tmp_path / "raw2")


@pytest.mark.parametrize("rate", [16000, 8000])
def test_segments_are_copied_only_to_convert_them(tmp_path, rate):
    data = write_set(tmp_path / "set", tmp_path / "x.wav", GOOD, rate)
    dump_audio(data, tmp_path / "raw/set")
    read, raw = DataDir.read(data), DataDir.read(tmp_path / "raw/set")
    assert "segments" not in raw and raw["utt2num_samples"] == {"a-1": "14400", "a-2": "12800"}
    for utt, entry in raw["wav.scp"].items():
        assert is_concat(entry) == (rate == 16000) != entry.endswith(f"audio/00000/{utt}.flac")
        np.testing.assert_allclose(load_audio(entry), load_audio(*read.audio(utt)), atol=2e-5)
    assert (tmp_path / "raw/set/audio").exists() == (rate == 8000)
    assert validate([str(tmp_path / "raw/set"), "--audio", "decode"]) == 0


@pytest.mark.parametrize("kind", ["flac", "wav", "shard"])
def test_segments_of_a_recording_that_is_read_whole_at_each_access(tmp_path, monkeypatch, kind):
    """A large FLAC, and any large member of a shard: their segments become files."""
    suffix = "flac" if kind == "flac" else "wav"
    recording = tmp_path / f"x.{suffix}"
    data = write_set(tmp_path / "set", recording, GOOD)
    if kind == "shard":
        with writing_shard(tmp_path / "s.tar") as tar:
            write_text_file(data / "wav.scp", {"rec": tar.add("x.wav", recording.read_bytes())})
    size, read = recording.stat().st_size, DataDir.read(data)
    for limit in (size, size - 1):
        monkeypatch.setattr(scan, "LARGE_BYTES", limit)
        out = tmp_path / f"raw/{limit}"
        dump_audio(data, out)
        for utt, entry in DataDir.read(out)["wav.scp"].items():
            is_file = limit < size and kind != "wav"
            assert entry.endswith(f"audio/00000/{utt}.flac") == is_file != is_concat(entry)
            np.testing.assert_array_equal(load_audio(entry), load_audio(*read.audio(utt)))
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.flac")}
    (out / "scan.jsonl").unlink()  # as if it had been killed
    dump_audio(data, out)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.flac")} == before


def test_tasks_write_to_folders_of_their_own_and_are_resumed(tmp_path, monkeypatch):
    """Processes that make files in one folder spin for its lock: twice the CPU with two of them."""
    monkeypatch.setattr(scan, "UTTERANCES_PER_TASK", 2)
    utts = [f"s-{n}" for n in range(5)]
    data = write_set(tmp_path / "set", tmp_path / "x.wav", dict.fromkeys(utts, "0 0.9"), rate=8000)
    alone, shared = tmp_path / "raw/alone", tmp_path / "raw/shared"
    dump_audio(data, alone, nj=1)
    folders = {folder.name: contents(folder) for folder in (alone / "audio").iterdir()}
    assert {name: [*files] for name, files in folders.items()} == {
        "00000": ["s-0.flac", "s-1.flac"],
        "00001": ["s-2.flac", "s-3.flac"],
        "00002": ["s-4.flac"],
    }

    dump_audio(data, shared, nj=2)  # the plain reference is what one process made
    assert {folder.name: contents(folder) for folder in (shared / "audio").iterdir()} == folders
    wavs = [DataDir.read(out)["wav.scp"] for out in (alone, shared)]
    assert wavs[1] == {utt: path.replace("alone", "shared") for utt, path in wavs[0].items()}

    made = (shared / "audio/00000/s-1.flac").stat().st_mtime_ns
    for file in ("wav.scp", "scan.jsonl", "audio/00001/s-3.flac"):  # as if stopped in between
        (shared / file).unlink()
    dump_audio(data, shared, nj=2)
    assert {folder.name: contents(folder) for folder in (shared / "audio").iterdir()} == folders
    assert (shared / "audio/00000/s-1.flac").stat().st_mtime_ns == made


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("nj", [1, 2])
def test_audio_that_was_mended_is_listed_and_counted(tmp_path, caplog, nj, monkeypatch):
    monkeypatch.setattr(scan, "UTTERANCES_PER_TASK", 2)
    one_too_many = STATED["MP3"](encode("MP3"), lambda count: count + 1)
    antiphase = np.stack([np.sin(np.arange(8000)), -np.sin(np.arange(8000))], axis=1)
    files = {name[0]: tmp_path / name for name in ("a.mp3", "b.wav", "c.flac")}
    files["a"].write_bytes(one_too_many)
    soundfile.write(files["b"], antiphase, 16000)
    files["c"].write_bytes(encode("FLAC"))
    texts = {"wav.scp": {utt: str(file) for utt, file in files.items()}}
    data = write_data_dir(tmp_path / "other", tmp_path / "x.wav", texts, list("abc"))
    with caplog.at_level("WARNING"):
        assert dump_audio(data, tmp_path / "raw/set", nj) == {}
    notes = dict(
        line.split("\t") for line in (tmp_path / "raw/set/audio_notes").read_text().splitlines()
    )
    assert [*notes] == ["a", "b"]
    assert re.fullmatch(
        r".*/a.mp3: its header promises \d+ samples .*, it holds \d+ .*", notes["a"]
    )
    assert notes["b"].startswith(f"{files['b']}: its channels cancel each other")
    (told,) = [record.getMessage() for record in caplog.records]
    assert "audio_notes: 2 utterances" in told and notes["a"] in told


@pytest.mark.parametrize("nj", [1, 2])
def test_samples_beyond_full_scale(tmp_path, nj):
    """Those of integers as floats are bad, even in a file that would stay as it is; what is clipped
    where it is written gets a note."""
    loud = {"a": (1.5, 8000), "b": (1.5, 16000), "c": (32768, 8000), "d": (32768, 16000)}
    for name, (peak, rate) in loud.items():
        soundfile.write(tmp_path / f"{name}.wav", peak * TONE, rate, subtype="FLOAT")
    files = {"wav.scp": {name: str(tmp_path / f"{name}.wav") for name in loud}}
    data = write_data_dir(tmp_path / "set", tmp_path / "x.wav", files, [*loud])
    bad = dump_audio(data, tmp_path / "raw/set", nj, max_bad=0.5)
    assert [*bad] == ["c", "d"] and all("which should be in ±1" in why for why in bad.values())
    (note,) = (tmp_path / "raw/set/audio_notes").read_text().splitlines()
    assert re.fullmatch(r"a\t.*/a.flac: its samples of up to 1\.5\d* were clipped to ±1", note)


def test_what_libsndfile_cannot_read_alone_is_converted(tmp_path):
    """Other readers of wav.scp may not know how: the dump leaves plain FLAC."""
    unpadded = encode("WAV")
    unpadded = unpadded[:36] + b"note\3\0\0\0odd" + unpadded[36:]
    (tmp_path / "a.wav").write_bytes(unpadded)
    texts = {"wav.scp": {"a": str(tmp_path / "a.wav")}}
    data = write_data_dir(tmp_path / "set", tmp_path / "x.wav", texts, ["a"])
    assert dump_audio(data, tmp_path / "raw/set") == {}
    entry = DataDir.read(tmp_path / "raw/set")["wav.scp"]["a"]
    assert entry.endswith("/a.flac") and soundfile.info(entry).frames == SAMPLES
    np.testing.assert_array_equal(load_audio(entry), load_audio(tmp_path / "a.wav"))


@pytest.fixture
def recipe(tmp_path):
    """data/set, and a function that runs stage 2 of it, and then stage 3."""
    write_set(tmp_path / "data/set", tmp_path / "x.wav", GOOD, rate=8000)
    raw = ["--out", str(tmp_path / "dump/raw")]
    sets = ["--train", str(tmp_path / "dump/raw/set"), "--dev", str(tmp_path / "dump/raw/set")]
    data = ["--data", str(tmp_path / "data/set")]

    def run(*options):
        status = dump_main([*data, *raw, "--feats", "online", *options])
        if not options:
            status += combine([*sets, "--out", str(tmp_path / "dump/combined")])
        return status

    return run


def test_corrected_and_added_data_reach_the_dump(tmp_path, recipe, caplog, monkeypatch):
    """Audio that did not change is not read again; a prepared set that is away is as it was."""
    caplog.set_level("INFO")
    data, raw, combined = (
        tmp_path / name for name in ("data/set", "dump/raw/set", "dump/combined")
    )
    assert recipe() == 0
    assert recipe("--pending") == 0
    assert "has changed" not in caplog.text
    read = []
    convert = scan.convert
    monkeypatch.setattr(scan, "convert", lambda source: read.append(source.utt) or convert(source))

    write_text_file(data / "text", {utt: f"corrected {utt}" for utt in GOOD})
    assert recipe("--pending") == PENDING
    assert f"{raw}: {data} has changed: dumping it again" in caplog.text
    assert recipe() == 0 and recipe("--pending") == 0 and read == []
    for folder in (raw, combined / "train"):
        assert DataDir.read(folder)["text"]["a-1"] == "corrected a-1"

    files = DataDir.read(data).files
    more = {"segments": "rec 0.2 0.8", "text": "one more", "utt2spk": "a", "utt2task": "asr_clean"}
    DataDir({n: files[n] | ({"a-3": more[n]} if n in more else {}) for n in files}).write(data)
    assert recipe() == 0 and read == ["a-3"]
    assert DataDir.read(combined / "train").utterances == ["a-1", "a-2", "a-3"]

    DataDir(DataDir.read(data).subset(["a-1"]).files).write(data)
    assert recipe() == 0
    assert DataDir.read(combined / "dev").utterances == ["a-1"]
    for file in data.iterdir():
        file.unlink()
    with pytest.raises(PamError, match="is missing: run stage 1 first"):
        recipe()
    data.rmdir()  # to save space
    assert recipe() == 0


@pytest.mark.parametrize("name", ["feats.scp", "feats_whisper.scp", "utt2num_frames"])
def test_features_of_the_prepared_set_are_not_those_of_the_dump(tmp_path, recipe, name):
    """A set that comes from Kaldi may have them; the other sets have none."""
    data = DataDir.read(tmp_path / "data/set")
    values = dict.fromkeys(data.utterances, "90" if name == "utt2num_frames" else "/mfcc.ark:6")
    DataDir(data.files | {name: values}).write(tmp_path / "data/set")
    assert recipe() == 0
    assert name not in DataDir.read(tmp_path / "dump/raw/set")
    combined = DataDir.read(tmp_path / "dump/combined/train")
    assert combined["utt2num_frames"] == {"a-1": "22", "a-2": "20"}
    assert not [file for file in combined.files if file.startswith("feats")]


def test_a_dump_of_an_earlier_version_is_complete_until_it_is_made_again(tmp_path, recipe):
    """Its record has no digest of the prepared set, and settings of encoders."""
    data, raw = tmp_path / "data/set", tmp_path / "dump/raw/set"
    assert recipe() == 0
    (raw / FILE).unlink()
    old = Making(raw, "dump", {"feats": "online", "encoders": {"a": {"dim": 4}}})
    old.finish()
    write_text_file(data / "text", {utt: f"corrected {utt}" for utt in GOOD})
    assert recipe("--pending") == 0 and read_record(raw, "dump")["inputs"] == {}
    (raw / "wav.scp").unlink()
    assert recipe() == 0
    record = read_record(raw, "dump")
    assert record["settings"] == {"feats": "online"} and record["inputs"]["prepared set"]
    assert DataDir.read(raw)["text"]["a-1"] == "corrected a-1"
    write_text_file(data / "text", {utt: f"again {utt}" for utt in GOOD})
    assert recipe("--pending") == PENDING


def test_licences_that_are_stated_later_reach_what_is_trained_on(tmp_path, recipe):
    assert recipe() == 0
    Making(tmp_path / "data", "data", licences={"set": "CC0"}).finish()
    assert recipe() == 0
    for folder, stage in (("dump/raw/set", "dump"), ("dump/combined", "combine")):
        assert read_record(tmp_path / folder, stage)["licences"] == {"set": "CC0"}


def test_digest_is_that_of_the_list():
    import hashlib
    import json

    items = [["a", 1, None], ["ü", 2.5, "x"]]
    plain = hashlib.sha256(json.dumps(items).encode()).hexdigest()
    assert scan.digest_of(map(json.dumps, items)) == plain
    assert scan.digest_of([]) == hashlib.sha256(b"[]").hexdigest()


def test_no_torch_for_audio_alone(tmp_path):
    data = write_set(tmp_path / "set", tmp_path / "x.wav", GOOD)
    code = f"""
import sys
from pam.bin.dump import main
main(["--data", {str(data)!r}, "--out", {str(tmp_path / "raw")!r}, "--feats", "online"])
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert (tmp_path / "raw/set/wav.scp").is_file()


UTTERANCES = 1000
# Bytes an utterance at the peak, by tracemalloc, with paths of about 60 characters. Measured for
# 2,000 segments: 590, 981 and 856. 300,000 utterances then need less than 0.5 GB.
LIMITS = {"validate": 1000, "dump": 1500, "combine": 1300}


def test_memory_for_each_utterance(tmp_path, capsys):
    """The least of three rounds: in one of them Python's table of interned strings may double, by
    megabytes where other tests have filled it."""
    utts = [f"speaker{n // 50:04d}-utterance-{n:07d}" for n in range(UTTERANCES)]
    wav = tmp_path / "x.wav"
    files = {"wav.scp": dict.fromkeys(utts, str(wav))}
    data = write_data_dir(tmp_path / "set", wav, files, utts)
    peaks = {name: [] for name in LIMITS}
    for number in range(3):
        raw = tmp_path / f"raw{number}/set"
        sets = ["--train", str(raw), "--dev", str(raw)]
        sets += ["--out", str(tmp_path / f"combined{number}")]
        steps = {
            "validate": lambda: validate([str(data)]),
            "dump": lambda raw=raw: dump_audio(data, raw),
            "combine": lambda sets=sets: combine(sets),
        }
        for name, step in steps.items():
            tracemalloc.start()
            step()
            peaks[name].append(tracemalloc.get_traced_memory()[1] / UTTERANCES)
            tracemalloc.stop()
    assert all(min(peaks[name]) < limit for name, limit in LIMITS.items()), peaks
