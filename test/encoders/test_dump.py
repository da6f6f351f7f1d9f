"""Stage 2 with tiny encoders: what it writes, what it refuses, and that it resumes."""

import copy
import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
import soundfile
import torch
import yaml
from processes import locked_by_another

from pam.bin.combine import main as combine
from pam.bin.dump import main
from pam.config.made import FILE, PENDING, Making, read_record
from pam.data import archive
from pam.data.audio import load_audio
from pam.data.concat import concat_entry
from pam.data.datadir import DataDir
from pam.data.pack import pack
from pam.data.raw import MIN_SAMPLES, LengthLimit
from pam.data.scan import scan
from pam.data.scp import read_text_file, write_text_file
from pam.encoders import AudioEncoder, gpus, load_encoder, shards
from pam.encoders.dump import DumpOptions, dump
from pam.errors import MachineError, PamError

NAMES = {"enc_a": "whisper_unpadded", "enc_b": "moonshine"}
RATES = {"s-1": 16000, "s-2": 8000, "s-3": 44100, "s-4": 16000, "s-5": 16000}
SECONDS = {"s-1": 1.0, "s-2": 0.7, "s-3": 0.5, "s-4": 2.3, "s-5": 0.9}


def write_wav(path: Path, seconds: float, rate: int, channels: int = 1) -> None:
    generator = np.random.default_rng(len(path.name) + int(100 * seconds))
    samples = 0.1 * generator.standard_normal((round(seconds * rate), channels))
    soundfile.write(path, samples, rate)


@pytest.fixture
def data(tmp_path) -> Path:
    """A set of five good utterances: three to refer to, two to convert."""
    (tmp_path / "wav").mkdir()
    for utt, rate in RATES.items():
        write_wav(tmp_path / "wav" / f"{utt}.wav", SECONDS[utt], rate)
    files = {
        "wav.scp": {utt: str(tmp_path / "wav" / f"{utt}.wav") for utt in RATES},
        "text": {utt: f"words of {utt}" for utt in RATES},
        "utt2spk": dict.fromkeys(RATES, "s"),
        "utt2task": dict.fromkeys(RATES, "asr_clean"),
    }
    DataDir(files).write(tmp_path / "data" / "set")
    return tmp_path / "data" / "set"


@pytest.fixture
def options(tmp_path, tiny_specs, monkeypatch) -> DumpOptions:
    monkeypatch.setattr(shards, "SHARD_SECONDS", 1.5)  # hence several shards
    encoders = {name: tiny_specs[case] for name, case in NAMES.items()}
    return DumpOptions(encoders, tmp_path / "dump")


def states_of(folder: Path, utt: str) -> np.ndarray:
    return archive.load(read_text_file(folder / "feats.scp")[utt], utt)


def out_of(options: DumpOptions) -> Path:
    return options.encoder_dir / "raw" / "set"


def append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


def add_utterance(data: Path, utt: str, wav: Path | str, text: str) -> None:
    append(data / "wav.scp", f"{utt} {wav}")
    append(data / "text", f"{utt} {text}".rstrip())
    append(data / "utt2spk", f"{utt} s")
    append(data / "utt2task", f"{utt} asr_clean")
    utts = [line.split()[0] for line in (data / "utt2spk").read_text().splitlines()]
    (data / "spk2utt").write_text(f"s {' '.join(utts)}\n")


def test_writes_audio_states_and_text_files(data, options):
    assert dump(data, out_of(options), options) == {}
    raw = DataDir.read(out_of(options))
    assert raw.utterances == sorted(RATES)
    assert raw["text"] == DataDir.read(data)["text"]
    for utt, path in raw["wav.scp"].items():
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert int(raw["utt2num_samples"][utt]) == info.frames == round(SECONDS[utt] * 16000)
        was_referred = RATES[utt] == 16000
        assert (Path(path).parent == data.parent.parent / "wav") == was_referred
    assert (out_of(options) / "bad_utts").read_text() == ""


def test_dumped_equals_on_the_fly(data, options, tiny_specs):
    dump(data, out_of(options), options)
    raw = DataDir.read(out_of(options))
    for name, case in NAMES.items():
        encoder = load_encoder(tiny_specs[case])
        folder = options.encoder_dir / name / "set"
        frames = read_text_file(folder / "utt2num_frames")
        assert len(list(folder.glob("feats.*.ark"))) > 1 and not (folder / ".parts").exists()
        assert list(read_text_file(folder / "feats.scp")) == list(frames) == sorted(RATES)
        for utt, pointer in archive.read_scp(folder / "feats.scp").items():
            stored = archive.load(pointer, utt)
            audio = torch.from_numpy(load_audio(raw["wav.scp"][utt]))[None]
            states = encoder(audio, torch.tensor([audio.shape[1]]))[0][0]
            assert stored.dtype == np.float16
            assert len(stored) == int(frames[utt]) == encoder.output_length(audio.shape[1])
            as_stored = stored.reshape(len(stored), encoder.num_states, encoder.dim)
            # Rounding to float16's 11 bits: at most 2^-11 = 4.9e-4.
            np.testing.assert_allclose(
                as_stored, states.transpose(0, 1).numpy(), rtol=6e-4, atol=1e-4
            )
        about = json.loads((folder / "dump.json").read_text())
        settings = read_record(folder, "dump")["settings"]
        assert (settings["num_states"], settings["dim"]) == (encoder.num_states, encoder.dim)
        assert about["hours"] == pytest.approx(sum(SECONDS.values()) / 3600, abs=1e-4)


def test_segments_become_utterances(data, options):
    wav = data.parent.parent / "wav" / "s-4.wav"
    files = DataDir.read(data).subset(["s-4", "s-5"]).files
    files["wav.scp"] = {"rec": str(wav)}
    files["segments"] = {"s-4": "rec 0.5 1.5", "s-5": "rec 1.5 2.25"}
    DataDir(files).write(data)
    dump(data, out_of(options), options)
    raw = DataDir.read(out_of(options))
    assert "segments" not in raw
    whole = load_audio(wav)
    np.testing.assert_allclose(load_audio(raw["wav.scp"]["s-4"]), whole[8000:24000], atol=2e-5)
    assert raw["utt2num_samples"] == {"s-4": "16000", "s-5": "12000"}


def test_a_concatenation_stays_one(data, options):
    """Nothing is copied: the entry goes to raw/SET, and the encoders read its pieces."""
    wav = data.parent.parent / "wav"
    read = DataDir.read(data).subset(["s-1", "s-2"])
    entry = concat_entry([(str(wav / "s-3.wav"), None, None), (str(wav / "s-4.wav"), 0.5, 1.5)])
    read.files["wav.scp"]["s-1"] = entry
    read.files["choices"] = {"s-1": '{"A": "1", "B": "2"}'}
    read.write(data)
    assert dump(data, out_of(options), options) == {}
    raw = DataDir.read(out_of(options))
    assert raw["wav.scp"]["s-1"] == entry and raw["utt2num_samples"]["s-1"] == "24000"
    assert raw["choices"] == {"s-1": '{"A": "1", "B": "2"}'}
    assert [file.name for file in (out_of(options) / "audio").rglob("*.*")] == ["s-2.flac"]
    frames = read_text_file(options.encoder_dir / "enc_a" / "set" / "utt2num_frames")
    assert 35 <= int(frames["s-1"]) <= 38

    (wav / "s-3.wav").unlink()
    shutil.rmtree(out_of(options))
    options.max_bad = 0.6
    assert "s-3.wav: no such audio file" in dump(data, out_of(options), options)["s-1"]


def make_bad(kind: str, wav: Path) -> tuple[Path, str]:
    """(audio file, transcript) that are wrong in one way."""
    path = wav / "bad.wav"
    write_wav(path, 1.0, 16000)
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:9000])
    elif kind == "NaN":
        samples = np.full(16000, np.nan, dtype=np.float32)
        soundfile.write(path, samples, 16000, subtype="FLOAT")
    elif kind == "0 samples":
        soundfile.write(path, np.zeros(0), 16000)
    elif kind == "too short":
        write_wav(path, 0.01, 16000)
    return path, "" if kind == "empty transcript" else "words"


REASONS = {
    "missing": "no such audio file",
    "truncated": "truncated",
    "NaN": "NaN",
    "0 samples": "0 samples",
    "too short": "160 samples are too short: 0.1 s, 1600 samples, are needed",
    "empty transcript": "empty transcript",
}


@pytest.mark.parametrize("kind", REASONS)
def test_bad_utterances_are_listed_and_left_out(data, options, kind):
    add_utterance(data, "s-9", *make_bad(kind, data.parent.parent / "wav"))
    with pytest.raises(PamError, match=rf"1 of 6 .*s-9 .*{REASONS[kind]}.*--max_bad 0.50%"):
        dump(data, out_of(options), options)
    assert not (out_of(options) / "wav.scp").exists()
    assert not list(options.encoder_dir.glob("*/set/feats.scp"))
    options.max_bad = 0.2
    assert list(dump(data, out_of(options), options)) == ["s-9"]
    listed = (out_of(options) / "bad_utts").read_text().split("\t")
    assert listed[0] == "s-9" and REASONS[kind] in listed[1]
    assert DataDir.read(out_of(options)).utterances == sorted(RATES)


def test_encoders_do_not_see_what_is_dropped_by_its_length(data, options, monkeypatch):
    seen, run = [], shards.ShardEncoder.__call__
    monkeypatch.setattr(
        shards.ShardEncoder,
        "__call__",
        lambda self, shard: seen.extend(clip.utt for clip in shard.clips) or run(self, shard),
    )
    options.limit = LengthLimit(0.6, 2.0)
    assert dump(data, out_of(options), options) == {}
    kept = {"s-1", "s-2", "s-5"}
    assert set(seen) == kept and set(DataDir.read(out_of(options)).utterances) == kept
    for name in NAMES:
        assert set(read_text_file(options.encoder_dir / name / "set/feats.scp")) == kept


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 70000.0])
def test_states_that_do_not_fit_float16_make_an_utterance_bad(data, options, monkeypatch, value):
    flatten = shards.flatten
    frames = load_encoder(options.encoders["enc_b"]).output_length(round(0.7 * 16000))

    def spoil(states):
        is_s2 = states.shape[:2] == (3, frames) and states.shape[2] == 32
        return flatten(states * value if is_s2 else states)

    monkeypatch.setattr(shards, "flatten", spoil)
    options.max_bad = 1.0
    bad = dump(data, out_of(options), options)
    assert set(bad) == {"s-2"} and "does not fit float16" in bad["s-2"]
    # Every encoder leaves it out, so that all folders hold the same utterances.
    for folder in ("raw", *NAMES):
        assert "s-2" not in read_text_file(
            options.encoder_dir / folder / "set" / ("wav.scp" if folder == "raw" else "feats.scp")
        )


def test_other_faults_of_the_directory_are_not_passed_over(data, options):
    text = (data / "text").read_text().splitlines()
    (data / "text").write_text("\n".join(reversed(text)) + "\n")
    with pytest.raises(PamError, match="not sorted"):
        dump(data, out_of(options), options)


class Killed(BaseException):
    """Like a signal: nothing in the program may catch it."""


def kill_after(monkeypatch, calls: int, name: str = "write_archive") -> None:
    """At the next call of this function after so many."""
    write = getattr(shards, name)
    seen = []

    def dying(*args):
        if len(seen) == calls:
            raise Killed
        seen.append(args)
        return write(*args)

    monkeypatch.setattr(shards, name, dying)


def test_a_killed_dump_does_only_what_is_missing(data, options, monkeypatch):
    reference = DumpOptions(options.encoders, options.encoder_dir.parent / "reference")
    dump(data, out_of(reference), reference)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        dump(data, out_of(options), options)
    done = {p: p.stat().st_mtime_ns for p in options.encoder_dir.glob("*/set/feats.*.ark")}
    assert len(done) == 3
    assert not list(options.encoder_dir.glob("*/set/feats.scp"))
    removed, _ = done.popitem()
    removed.unlink()  # though its receipt is there
    dump(data, out_of(options), options)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    for name in NAMES:
        for utt, pointer in archive.read_scp(options.encoder_dir / name / "set/feats.scp").items():
            other = archive.read_scp(reference.encoder_dir / name / "set/feats.scp")[utt]
            np.testing.assert_array_equal(archive.load(pointer, utt), archive.load(other, utt))


def test_a_complete_dump_is_left_alone(data, options):
    dump(data, out_of(options), options)
    before = {p: p.stat().st_mtime_ns for p in options.encoder_dir.glob("enc*/set/*")}
    dump(data, out_of(options), options)
    assert {p: p.stat().st_mtime_ns for p in options.encoder_dir.glob("enc*/set/*")} == before


def test_an_added_encoder_leaves_the_others_alone(data, options, tiny_specs):
    dump(data, out_of(options), options)
    before = {p: p.stat().st_mtime_ns for p in options.encoder_dir.glob("enc*/set/*")}
    options.encoders = {**options.encoders, "new": tiny_specs["wakehubert"]}
    dump(data, out_of(options), options)
    assert {p: p.stat().st_mtime_ns for p in options.encoder_dir.glob("enc*/set/*")} == before
    assert len(read_text_file(options.encoder_dir / "new" / "set" / "feats.scp")) == 5


def test_other_settings_or_audio_start_again(data, options, tiny_specs):
    dump(data, out_of(options), options)
    first = states_of(options.encoder_dir / "enc_a/set", "s-1")
    spec = {**tiny_specs["whisper_unpadded"], "conf": {"pad_to_30s": False, "tail_s": 1.0}}
    options.encoders = {**options.encoders, "enc_a": spec}
    dump(data, out_of(options), options)
    second = states_of(options.encoder_dir / "enc_a/set", "s-1")
    assert not np.array_equal(first, second)
    DataDir(DataDir.read(data).subset(["s-1", "s-2", "s-3"]).files).write(data)
    dump(data, out_of(options), options)
    assert DataDir.read(out_of(options)).utterances == ["s-1", "s-2", "s-3"]
    assert set(read_text_file(options.encoder_dir / "enc_b/set/feats.scp")) == {"s-1", "s-2", "s-3"}


def test_a_file_that_was_replaced_by_one_of_the_same_length(data, options):
    """Corrected texts alone make no states again."""
    options.encoders = {"enc_b": options.encoders["enc_b"]}
    folder = options.encoder_dir / "enc_b/set"
    dump(data, out_of(options), options)
    before = states_of(folder, "s-1")
    made = {file: file.stat().st_mtime_ns for file in folder.glob("feats.*.ark")}
    write_text_file(data / "text", {utt: f"corrected {utt}" for utt in RATES})
    dump(data, out_of(options), options)
    assert DataDir.read(out_of(options))["text"]["s-1"] == "corrected s-1"
    assert {file: file.stat().st_mtime_ns for file in folder.glob("feats.*.ark")} == made
    wav = data.parents[1] / "wav/s-1.wav"
    soundfile.write(wav, soundfile.read(wav)[0][::-1], 16000)
    dump(data, out_of(options), options)
    after = states_of(folder, "s-1")
    assert after.shape == before.shape and not np.array_equal(before, after)


def pointers_of(options: DumpOptions) -> dict[Path, dict[str, str]]:
    """Of each encoder's folder: utterance → place of its states."""
    folders = [options.encoder_dir / name / "set" for name in options.encoders]
    return {folder: archive.read_scp(folder / "feats.scp") for folder in folders}


def replace_audio(data: Path) -> None:
    """Other audio of the same lengths, so that all states lie at the same places of the files."""
    for wav in (data.parents[1] / "wav").iterdir():
        samples, rate = soundfile.read(wav)
        soundfile.write(wav, samples[::-1], rate)


def test_states_that_were_dumped_again_are_combined_again(data, options, tmp_path):
    """Even if no text has changed. States that are gone, to save space, change nothing."""
    options.encoders = {"enc_b": options.encoders["enc_b"]}
    sets = ["--train", str(out_of(options)), "--dev", str(out_of(options))]
    places = ["--out", str(tmp_path / "combined"), "--encoder_dir", str(options.encoder_dir)]
    run = [*sets, *places, "--encoders", "enc_b"]
    dump(data, out_of(options), options)
    assert combine(run) == 0 and combine([*run, "--pending"]) == 0
    replace_audio(data)
    dump(data, out_of(options), options)
    assert combine([*run, "--pending"]) == PENDING
    assert combine(run) == 0 and combine([*run, "--pending"]) == 0
    for utt, pointer in archive.read_scp(tmp_path / "combined/dev/feats_enc_b.scp").items():
        assert archive.load(pointer, utt).size

    earlier = json.loads((tmp_path / "combined" / FILE).read_text())
    earlier["combine"]["inputs"] = {"set": earlier["combine"]["inputs"]["set"]}
    (tmp_path / "combined" / FILE).write_text(json.dumps(earlier))
    assert combine([*run, "--pending"]) == 0
    shutil.rmtree(options.encoder_dir / "enc_b")
    assert combine([*run, "--pending"]) == 0


@pytest.mark.parametrize("change", ["audio", "utterances"])
def test_lists_of_before_do_not_name_states_of_after(data, options, change):
    """Those of a combined set, for example. The files of before are removed."""
    dump(data, out_of(options), options)
    before = pointers_of(options)
    if change == "audio":
        replace_audio(data)
    else:
        DataDir(DataDir.read(data).subset(["s-2", "s-3", "s-4"]).files).write(data)
    dump(data, out_of(options), options)
    for folder, after in pointers_of(options).items():
        for utt, pointer in before[folder].items():
            with pytest.raises(PamError, match="missing archive .* remove the combined set and"):
                archive.load(pointer, utt)
        listed = {pointer.rpartition(":")[0] for pointer in after.values()}
        assert listed == {str(file) for file in folder.glob("*.ark")}


def test_a_killed_dump_keeps_the_states_of_before(data, options, monkeypatch):
    """A training may read them. They go when the list of the new ones stands."""
    reference = DumpOptions(options.encoders, options.encoder_dir.parent / "reference")
    dump(data, out_of(options), options)
    before = pointers_of(options)
    states = {utt: archive.load(p, utt) for utt, p in before[min(before)].items()}
    replace_audio(data)
    dump(data, out_of(reference), reference)
    steps = [("write_archive", 0), ("write_archive", 2), ("write_text_file", 1)]
    for name, calls in steps:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, calls, name)
            dump(data, out_of(options), options)
        assert not list(options.encoder_dir.glob("*/set/feats.scp"))
        for utt, pointer in before[min(before)].items():
            np.testing.assert_array_equal(archive.load(pointer, utt), states[utt])

    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 0, "remove_unlisted")
        dump(data, out_of(options), options)
    made = {p: p.stat().st_mtime_ns for p in options.encoder_dir.glob("*/set/feats.*.ark")}
    dump(data, out_of(options), options)
    left = {p: p.stat().st_mtime_ns for p in options.encoder_dir.glob("*/set/feats.*.ark")}
    assert left.items() < made.items()
    for mine, other in zip(*map(pointers_of, (options, reference)), strict=True):
        assert dump_files(options, mine.parent.name) == dump_files(reference, other.parent.name)


def as_an_earlier_version_names_them(folder: Path) -> None:
    """feats.INDEX.ark; a dump that was made again used the same names."""
    for file in folder.glob("feats.*.ark"):
        old = file.with_name(f"feats.{file.name.split('.')[-2]}.ark")
        file.rename(old)
        for scp in [*folder.glob("feats.scp"), *folder.glob(".parts/*.scp")]:
            scp.write_text(scp.read_text().replace(f"{file}:", f"{old}:"))


def test_a_dump_of_an_earlier_version_is_left_alone_and_resumed(data, options, monkeypatch):
    dump(data, out_of(options), options)
    states = {utt: states_of(options.encoder_dir / "enc_a/set", utt) for utt in RATES}
    for folder in pointers_of(options):
        as_an_earlier_version_names_them(folder)
    before = {p: p.stat().st_mtime_ns for p in options.encoder_dir.glob("enc*/set/*")}
    dump(data, out_of(options), options)
    assert {p: p.stat().st_mtime_ns for p in options.encoder_dir.glob("enc*/set/*")} == before

    shutil.rmtree(options.encoder_dir / "enc_a")
    options.encoders = {"enc_a": options.encoders["enc_a"]}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 1)
        dump(data, out_of(options), options)
    as_an_earlier_version_names_them(options.encoder_dir / "enc_a/set")
    names = {p.name for p in (options.encoder_dir / "enc_a/set").glob("*.ark")}
    assert len(names) == 1
    dump(data, out_of(options), options)
    assert names < {p.name for p in (options.encoder_dir / "enc_a/set").glob("*.ark")}
    for utt, of_utt in states.items():
        found = states_of(options.encoder_dir / "enc_a/set", utt)
        np.testing.assert_array_equal(found, of_utt)


def test_a_short_utterance_is_bad_for_all_scales(data, options, tiny_specs):
    """Else each change of the scale makes the states of the encoders anew that both have."""
    samples = 640
    lengths = [load_encoder(spec).output_length(samples) for spec in options.encoders.values()]
    assert sorted(lengths) == [0, 1]  # one of the encoders would take it
    path = data.parents[1] / "wav/s-9.wav"
    write_wav(path, samples / 16000, 16000)
    add_utterance(data, "s-9", path, "short")
    options.max_bad = 0.5
    encoders = options.encoders
    scales = [{name: encoders[name]} for name in NAMES]
    made = []
    for scale in [*scales, encoders, *scales]:
        options.encoders = scale
        assert list(dump(data, out_of(options), options)) == ["s-9"]
        made.append(
            {file: file.stat().st_mtime_ns for file in options.encoder_dir.glob("*/set/*.ark")}
        )
    assert made[1] == made[2] == made[3] == made[4]


def test_every_family_takes_the_shortest_clip(tiny_specs):
    for spec in tiny_specs.values():
        assert load_encoder(spec).output_length(MIN_SAMPLES) >= 1


def test_what_is_bad_for_an_encoder_of_another_scale_stays_out(data, options):
    """All folders hold the same utterances, since scales share raw/SET."""
    one, other = ({name: options.encoders[name]} for name in NAMES)
    options.encoders, options.max_bad = one, 0.5
    dump(data, out_of(options), options)
    summary = options.encoder_dir / "enc_a/set/dump.json"
    found = json.loads(summary.read_text()) | {"bad": {"s-2": "enc_a: does not fit float16"}}
    summary.write_text(json.dumps(found))
    options.encoders = other
    assert [*dump(data, out_of(options), options)] == ["s-2"]
    assert "s-2" not in DataDir.read(out_of(options))["text"]
    DataDir(DataDir.read(data).subset(["s-1", "s-2"]).files).write(data)  # it may be good now
    assert dump(data, out_of(options), options) == {}


def test_batches_count_the_silence_that_whisper_adds(tiny_encoders):
    """Whisper computes 30 s for a clip of 1 s: 30 of these are 15 minutes."""
    made = [shards.Clip(f"u-{n:02d}", "", 16000) for n in range(60)]

    def sizes_of(case: str, seconds: float) -> list[int]:
        return [len(batch) for batch in shards.batches(made, tiny_encoders[case], seconds)]

    sizes = {case: sizes_of(case, 30) for case in ("whisper", "whisper_unpadded", "moonshine")}
    assert sizes == {"whisper": [1] * 60, "whisper_unpadded": [23, 23, 14], "moonshine": [30, 30]}
    assert sizes_of("whisper", 90) == [3] * 20


def test_a_gpu_has_larger_batches(data, options, tiny_encoders, monkeypatch):
    """Else Whisper, padded to 30 s, would leave most of it idle. The meta device has no values."""
    seen = []
    monkeypatch.setattr(
        shards.ShardEncoder,
        "_within_memory",
        lambda self, encoder, clips, samples: (
            seen.append(len(clips)) or [(None, "unread")] * len(clips)
        ),
    )
    clips = scan(DataDir.read(data), out_of(options), 1).clips * 2
    shard = shards.Shard("it", options.encoder_dir, "digest", 0, clips)
    for device in ("cpu", "meta"):
        work = shards.ShardEncoder({"it": copy.deepcopy(tiny_encoders["whisper"])}, device)
        list(work._states(shard, shards.Receipt()))
    assert seen == [1] * 10 + [4, 4, 2]


ON_CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
OUT_OF_MEMORY = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 96.56 GiB."),
    "cpu": RuntimeError(ON_CPU),
    "windows": RuntimeError(
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
    ),
    "library": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "numpy": MemoryError(),
}


def limit_memory(monkeypatch, seconds: float, error: Exception) -> list[int]:
    """Encoders that read more at once raise `error`; returns the sizes of batches they read."""
    forward, sizes = AudioEncoder.forward, []

    def limited(self, audio, lengths):
        if audio.numel() > seconds * 16000:
            raise error
        sizes.append(len(audio))
        return forward(self, audio, lengths)

    monkeypatch.setattr(shards, "SHARD_SECONDS", 100)
    monkeypatch.setattr(shards, "BATCH_SECONDS", 2.1)
    monkeypatch.setattr(AudioEncoder, "forward", limited)
    return sizes


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_an_utterance_that_does_not_fit_the_memory_is_bad(data, options, monkeypatch, kind):
    """Larger batches are split, and the others are encoded."""
    reference = DumpOptions(options.encoders, options.encoder_dir.parent / "reference")
    dump(data, out_of(reference), reference)
    sizes = limit_memory(monkeypatch, 1.6, OUT_OF_MEMORY[kind])
    options.max_bad = 0.2
    bad = dump(data, out_of(options), options)
    assert list(bad) == ["s-4"] and "2.3 s need more memory than there is: cut it" in bad["s-4"]
    assert sizes == [2, 1, 1] * 2  # 0.5 and 0.7 s; 0.9 and 1.0 s do not fit together
    for mine, other in zip(*map(pointers_of, (options, reference)), strict=True):
        assert set(read_text_file(mine / "feats.scp")) == {"s-1", "s-2", "s-3", "s-5"}
        for utt in read_text_file(mine / "feats.scp"):
            wanted = states_of(other, utt)
            np.testing.assert_allclose(states_of(mine, utt), wanted, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("gpu", "CUDA out of memory"),
        ("cpu", "Default.* 4000000000000000 bytes"),
        ("numpy", "Mem.*"),
    ],
)
def test_memory_that_others_use_makes_no_utterance_bad(data, options, monkeypatch, kind, told):
    """One that is shorter than a batch fits, when the machine is free again."""
    with monkeypatch.context() as patch:
        limit_memory(patch, 0.8, OUT_OF_MEMORY[kind])
        what = rf"s-5.wav: 0.9 s do not fit the memory that is free \({told}\): "
        with pytest.raises(MachineError, match=f"{what}.*the same command resumes"):
            dump(data, out_of(options), options)
    assert dump(data, out_of(options), options) == {}


def test_other_errors_of_an_encoder_are_no_lack_of_memory(data, options, monkeypatch):
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    limit_memory(monkeypatch, 1.6, error)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        dump(data, out_of(options), options)


def test_too_small_a_disk_is_refused_before_writing(data, options, monkeypatch):
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("pam.encoders.dump.shutil.disk_usage", lambda path: usage)
    with pytest.raises(PamError, match=r"states need 0.00 GB \(enc_a .*use --feats online"):
        dump(data, out_of(options), options)
    assert not list(options.encoder_dir.glob("*/set/*.ark"))


def test_a_disk_without_room_for_the_states_of_before_and_after(data, options, monkeypatch):
    """The user may remove those of before; here nobody reads them."""
    dump(data, out_of(options), options)
    sizes = {p: p.stat().st_size for p in options.encoder_dir.glob("enc*/set/*.ark")}
    replace_audio(data)
    usage = type("Usage", (), {"free": 1000})()
    with monkeypatch.context() as patch:
        patch.setattr("pam.encoders.dump.shutil.disk_usage", lambda path: usage)
        patch.setattr("pam.encoders.dump.GIGABYTE", sum(sizes.values()) / 3)
        both = r"enc_a/set/feats\.\w{12}\.\*\.ark and enc_b/set/feats\.\w{12}\.\*\.ark"
        told = f"remove {both}, 3.00 GB of before,"
        with pytest.raises(PamError, match=f"{told} unless a training reads them, "):
            dump(data, out_of(options), options)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 1)
        dump(data, out_of(options), options)
    for file in sizes:
        file.unlink()
    monkeypatch.setattr("pam.encoders.dump.shutil.disk_usage", lambda path: usage)
    with pytest.raises(PamError, match=r"GB are free: free some space, choose another"):
        dump(data, out_of(options), options)
    monkeypatch.undo()
    assert dump(data, out_of(options), options) == {}
    for folder, pointers in pointers_of(options).items():
        size = sum(file.stat().st_size for file in archive.archives(folder / "feats.scp"))
        about = json.loads((folder / "dump.json").read_text())
        assert len(pointers) == 5 and about["gigabytes"] == round(size / 1e9, 4)


def test_a_disk_that_fills_leaves_nothing_half_written(data, options, monkeypatch):
    flatten, calls = shards.flatten, []

    def full(states):
        calls.append(states)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return flatten(states)

    with monkeypatch.context() as patch, pytest.raises(PamError, match="disk is full"):
        patch.setattr(shards, "flatten", full)
        dump(data, out_of(options), options)
    assert not list(options.encoder_dir.rglob("*.part"))
    assert not list(options.encoder_dir.glob("*/set/feats.scp"))
    assert not (out_of(options) / "wav.scp").exists()
    for path in options.encoder_dir.glob("*/set/feats.*.ark"):
        index = path.name.split(".")[-2]
        assert (path.parent / ".parts" / f"{index}.json").is_file()
    dump(data, out_of(options), options)
    assert DataDir.read(out_of(options)).utterances == sorted(RATES)


def test_predicted_size_is_the_size(data, options):
    dump(data, out_of(options), options)
    for name, spec in options.encoders.items():
        encoder = load_encoder(spec)
        lengths = read_text_file(out_of(options) / "utt2num_samples")
        clips = [shards.Clip(utt, "", int(n)) for utt, n in lengths.items()]
        found = sum(p.stat().st_size for p in (options.encoder_dir / name / "set").glob("*.ark"))
        predicted = shards.predicted_bytes(encoder, clips)
        assert 0 <= found - predicted < 200 * len(clips)  # headers and ids


def test_two_processes_give_what_one_gives(data, options):
    dump(data, out_of(options), options)
    two = DumpOptions(options.encoders, options.encoder_dir.parent / "two", nj=2)
    dump(data, out_of(two), two)
    for name in NAMES:
        pointers = archive.read_scp(two.encoder_dir / name / "set/feats.scp")
        for utt, pointer in archive.read_scp(options.encoder_dir / name / "set/feats.scp").items():
            mine, other = archive.load(pointer, utt), archive.load(pointers[utt], utt)
            np.testing.assert_array_equal(mine, other)


def no_fork():
    raise AssertionError("a process that may hold a GPU forks")


@pytest.mark.parametrize("gpus", [1, 2])
def test_gpus_give_what_processes_give(data, options, monkeypatch, gpus):
    """The processor stands for the GPUs. Nothing forks; audio is read on threads."""
    dump(data, out_of(options), options)
    two = replace(options, encoder_dir=options.encoder_dir.parent / "gpus", gpus=gpus, nj=4)
    monkeypatch.setattr("pam.encoders.gpus.DEVICE", "cpu")
    monkeypatch.setattr("pam.data.scan.run_tasks", lambda f, tasks, nj: map(f, tasks))
    monkeypatch.setattr(os, "fork", no_fork)
    dump(data, out_of(two), two)
    for name in NAMES:
        assert dump_files(two, name) == dump_files(options, name)


def dump_files(options: DumpOptions, name: str) -> dict[str, bytes]:
    folder = options.encoder_dir / name / "set"
    return {file.name: file.read_bytes() for file in folder.glob("feats.*.ark")}


def test_a_process_for_each_gpu(monkeypatch):
    """Each sees one GPU of those that the caller may see, and knows of it before torch computes."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.visible_gpus(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3,7")
    assert gpus.visible_gpus(2) == ["5", "3"]
    devices = SimpleQueue()
    devices.put("3")
    made = []
    monkeypatch.setattr(gpus, "end_with_parent", lambda parent: None)
    monkeypatch.setattr(gpus, "ShardEncoder", lambda *args: made.append((args, seen())))
    gpus._start(devices, {}, "cuda", 4, os.getpid())
    assert made == [(({}, "cuda", 4), "3")]


def seen() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_a_fault_on_a_gpu_is_raised(data, options, monkeypatch):
    """What a process there raises reaches the user as it is."""
    monkeypatch.setattr("pam.encoders.gpus.DEVICE", "cpu")
    monkeypatch.setattr("pam.encoders.dump.scan", changed(data))
    options.gpus = 1
    with pytest.raises(PamError, match="20800 samples, 36800 when it was checked"):
        dump(data, out_of(options), options)


def changed(data: Path):
    def scan_then_change(*args):
        found = scan(*args)
        write_wav(data.parent.parent / "wav" / "s-4.wav", 1.3, 16000)
        return found

    return scan_then_change


def test_threads_read_ahead_in_order(monkeypatch):
    """At most so many batches ahead: memory does not grow with the set."""
    started = []
    monkeypatch.setattr(shards, "load", lambda clip: started.append(clip) or clip)
    batches = [[n, n + 100] for n in range(20)]
    for number, (clips, samples) in enumerate(shards.loaded(batches, 3)):
        assert clips == samples == batches[number]
        assert len(started) <= 2 * (number + 1 + shards.BATCHES_AHEAD)
    assert len(started) == 40


def test_a_second_dump_of_the_same_set_is_refused(data, options):
    refused = pytest.raises(PamError, match="another dump of this set is running")
    with locked_by_another(out_of(options), "dump of this set"), refused:
        dump(data, out_of(options), options)
    assert dump(data, out_of(options), options) == {}


def test_audio_only(data, options):
    options.encoders = {}
    dump(data, out_of(options), options)
    assert DataDir.read(out_of(options)).utterances == sorted(RATES)
    assert [path.name for path in options.encoder_dir.iterdir()] == ["raw"]


def scale_of(path: Path, encoders: dict) -> list[str]:
    path.write_text(yaml.safe_dump({"encoders": encoders}))
    return ["--scale_config", str(path)]


def test_a_scale_with_another_encoder_stores_its_states_alone(data, options, tmp_path, tiny_specs):
    """After a dump of this version, and of an earlier one, which recorded the encoders in raw/SET.

    An encoder with other settings is another encoder, and needs another name.
    """
    raw, dumped = out_of(options), options.encoder_dir
    run = ["--data", str(data), "--out", str(raw.parent), "--encoder_dir", str(dumped)]
    old, new = {"enc_b": tiny_specs["moonshine"]}, {"new": tiny_specs["wakehubert"]}
    assert main([*run, *scale_of(tmp_path / "old.yaml", old)]) == 0
    record = read_record(raw, "dump")
    (raw / FILE).unlink()
    Making(raw, "dump", {**record["settings"], "encoders": old}).finish()
    both = [*run, *scale_of(tmp_path / "new.yaml", old | new)]
    assert main([*run, *scale_of(tmp_path / "old.yaml", old), "--pending"]) == 0
    assert main([*both, "--pending"]) == PENDING
    before = {p: p.stat().st_mtime_ns for p in dumped.glob("enc*/set/*")}
    assert main(both) == 0 and main([*both, "--pending"]) == 0
    assert {p: p.stat().st_mtime_ns for p in dumped.glob("enc*/set/*")} == before
    assert set(read_text_file(dumped / "new/set/feats.scp")) == set(RATES)
    assert main([*run, *scale_of(tmp_path / "old.yaml", old), "--pending"]) == 0

    edited = {"enc_b": old["enc_b"] | {"conf": {"tail_s": 1.0}}}
    for options_of_dump in ([], ["--pending"]):
        refused = pytest.raises(PamError, match="enc_b/set was made with other settings; remove it")
        with refused:
            main([*run, *scale_of(tmp_path / "edited.yaml", edited | new), *options_of_dump])
    with pytest.raises(PamError, match="raw/set was made with other settings; remove the folders"):
        main([*run, "--feats", "online"])


def test_a_packed_dump_has_the_lists_of_its_states(data, options, tmp_path):
    """The states stay where they are. What a dump would replace is refused."""
    dumped, packed = options.encoder_dir, tmp_path / "packed"

    def run(folder, encoders, *more):
        scale = scale_of(tmp_path / "scale.yaml", encoders)
        places = ["--out", str(folder / "raw"), "--encoder_dir", str(folder)]
        return main(["--data", str(data), *places, *scale, *more])

    one = {"enc_b": options.encoders["enc_b"]}
    assert run(dumped, one) == 0
    pack(dumped / "raw/set", packed / "raw/set", 1 << 20)
    assert run(packed, one, "--pending") == 0
    assert {file.name for file in (packed / "enc_b/set").iterdir()} == {
        *("dump.json", "feats.scp", "made.json", "utt2num_frames")
    }
    sets = ["--train", str(packed / "raw/set"), "--dev", str(packed / "raw/set")]
    places = ["--out", str(packed / "combined"), "--encoder_dir", str(packed)]
    assert combine([*sets, *places, "--encoders", "enc_b"]) == 0
    for utt, pointer in archive.read_scp(packed / "combined/dev/feats_enc_b.scp").items():
        assert pointer.startswith(str(dumped)) and archive.load(pointer, utt).size

    before = {path: path.read_bytes() for path in packed.rglob("*.scp")}
    for more in ([], ["--pending"]):
        with pytest.raises(PamError, match="raw/set: is a packed copy, and .* pack it again"):
            run(packed, options.encoders, *more)
    write_text_file(data / "text", dict.fromkeys(RATES, "corrected"))
    with pytest.raises(PamError, match="raw/set: is a packed copy, and .* pack it again"):
        run(packed, one)
    assert {path: path.read_bytes() for path in packed.rglob("*.scp")} == before
    assert run(dumped, options.encoders) == 0
    pack(dumped / "raw/set", packed / "raw/set", 1 << 20)
    assert run(packed, options.encoders, "--pending") == 0
    assert DataDir.read(packed / "raw/set")["text"]["s-1"] == "corrected"


def test_command_line(data, options, tmp_path, tiny_specs, capsys):
    config = tmp_path / "scale.yaml"
    config.write_text(yaml.safe_dump({"encoders": {"enc_b": tiny_specs["moonshine"]}}))
    raw = str(out_of(options).parent)
    arguments = ["--data", str(data), "--out", raw, "--scale_config", str(config)]
    arguments += ["--encoder_dir", str(options.encoder_dir), "--max_bad", "0.5%", "--nj", "1"]
    main(arguments)
    assert len(read_text_file(options.encoder_dir / "enc_b" / "set" / "feats.scp")) == 5
    with pytest.raises(SystemExit):
        main([*arguments, "--max_bad", "150%"])
    assert re.search("expected a share", capsys.readouterr().err)
    config.write_text("encoders: {}\n")
    with pytest.raises(PamError, match="no encoders"):
        main(arguments)
