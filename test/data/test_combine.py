"""Combining dumped sets: what the multitask directory holds, and what is an error."""

import json
import multiprocessing
import shutil
import time

import numpy as np
import pytest

from pam.bin import combine as verb
from pam.bin.combine import main
from pam.config.made import Making, read_record
from pam.data import archive
from pam.data import combine as module
from pam.data.combine import SetSpec, combine
from pam.data.datadir import DataDir, validate
from pam.data.scp import read_text_file, write_text_file
from pam.errors import PamError

ENCODERS = {"whisper_tiny_en": 3, "wakehubert_tiny": 2}


def states(utt, dim):
    frames = len(utt) + dim  # the encoders differ by one frame
    return np.full((frames, dim), len(utt), np.float16)


def make_set(dump, name, task, utts, **more):
    files = {
        "wav.scp": {utt: f"/dump/raw/{name}/{utt}.flac" for utt in utts},
        "text": {utt: f"answer {utt}" for utt in utts},
        "utt2spk": {utt: utt.split("-")[0] for utt in utts},
        "utt2task": dict.fromkeys(utts, task),
        "utt2num_samples": {utt: str(16000 * (i + 1)) for i, utt in enumerate(utts)},
    }
    DataDir(files | more).write(dump / "raw" / name)
    for encoder, dim in ENCODERS.items():
        folder = dump / encoder / name
        arrays = {utt: states(utt, dim) for utt in utts}
        folder.mkdir(parents=True)
        archive.write_archive(folder / "feats.1.ark", folder / "feats.scp", arrays.items())
        frames = {utt: str(len(array)) for utt, array in arrays.items()}
        write_text_file(folder / "utt2num_frames", frames)
    return dump / "raw" / name


@pytest.fixture
def dump(tmp_path):
    make_set(tmp_path, "asr_clean_train", "asr_clean", ["ann-1", "ann-22", "zoe-1"])
    make_set(tmp_path, "ac_train", "ac", ["rain-1", "bark-1"], prompt={"bark-1": "What barks?"})
    return tmp_path


def specs(dump, *names):
    return [SetSpec(dump / "raw" / name) for name in names or ("asr_clean_train", "ac_train")]


def run(dump, *names, **options):
    options = {"encoders": list(ENCODERS), "encoder_dir": dump} | options
    return combine(specs(dump, *names), dump / "train", **options)


def test_everything_is_there(dump):
    summary = run(dump)
    data = DataDir.read(dump / "train")
    assert data.utterances == ["ann-1", "ann-22", "bark-1", "rain-1", "zoe-1"]
    assert data["utt2task"]["rain-1"] == "ac" and data["utt2task"]["zoe-1"] == "asr_clean"
    assert data["prompt"] == {"bark-1": "What barks?"}
    assert not [p for p in validate(dump / "train") if not p.warning]
    for encoder, dim in ENCODERS.items():
        for utt, pointer in data[f"feats_{encoder}.scp"].items():
            np.testing.assert_array_equal(archive.load(pointer, utt), states(utt, dim))
    least = {utt: str(len(utt) + min(ENCODERS.values())) for utt in data.utterances}
    assert data["utt2num_frames"] == least
    assert json.loads((dump / "train" / "sets.json").read_text()) == {
        "sets": summary,
        "encoders": list(ENCODERS),
    }
    assert summary["asr_clean_train"] == {
        "task": "asr_clean",
        "utterances": 3,
        "hours": round(6 / 3600, 4),
    }


def test_again_with_less_leaves_nothing_behind(dump):
    run(dump)
    run(dump, "asr_clean_train", encoders=["wakehubert_tiny"])
    data = DataDir.read(dump / "train")
    assert len(data) == 3 and "prompt" not in data and "feats_whisper_tiny_en.scp" not in data
    assert sorted(file.name for file in dump.iterdir() if "train" in file.name) == ["train"]


def test_order_of_sets_changes_no_file(dump):
    run(dump, "asr_clean_train", "ac_train")
    before = {file.name: file.read_bytes() for file in (dump / "train").iterdir()}
    run(dump, "ac_train", "asr_clean_train")
    after = {file.name: file.read_bytes() for file in (dump / "train").iterdir()}
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == ["sets.json"]


def test_online_features_have_nominal_lengths(dump):
    run(dump, encoders=[])
    data = DataDir.read(dump / "train")
    assert data["utt2num_frames"]["zoe-1"] == "75"  # 3 s at 25 Hz
    assert not [name for name in data.files if name.startswith("feats")]


@pytest.mark.parametrize("encoders", [[], ["wakehubert_tiny"]])
def test_features_that_a_set_brings_are_not_taken_over(dump, encoders):
    """A dump of an earlier version has those of its source, which other sets lack."""
    run(dump, encoders=encoders)
    before = DataDir.read(dump / "train")
    folder = dump / "raw/ac_train"
    pointers = {"bark-1": "/mfcc.ark:6", "rain-1": "/mfcc.ark:99"}
    more = {"feats.scp": pointers, "feats_whisper_tiny_en.scp": pointers}
    more["utt2num_frames"] = dict.fromkeys(pointers, "100")
    DataDir(DataDir.read(folder).files | more).write(folder)
    run(dump, encoders=encoders)
    assert DataDir.read(dump / "train") == before


def test_id_in_two_sets_names_both(dump):
    make_set(dump, "snv_train", "snv", ["ann-22", "x-1"])
    with pytest.raises(PamError, match="'ann-22' is in both asr_clean_train and snv_train: give"):
        run(dump, "asr_clean_train", "ac_train", "snv_train")
    assert [file.name for file in dump.iterdir() if "train" in file.name] == []


def test_utterance_that_an_encoder_lacks_is_named(dump):
    file = dump / "wakehubert_tiny" / "ac_train" / "feats.scp"
    write_text_file(file, {"bark-1": read_text_file(file)["bark-1"]})
    with pytest.raises(PamError, match=r"wakehubert_tiny/ac_train/feats.scp: 'rain-1' is missing"):
        run(dump)
    file.unlink()
    with pytest.raises(PamError, match=r"feats.scp: missing: run the dump stage"):
        run(dump)
    assert not (dump / "train").exists()


@pytest.mark.parametrize("count", ["many", "-3", "0", "7.5"])
def test_a_damaged_number_of_frames_is_named(dump, count):
    file = dump / "wakehubert_tiny" / "ac_train" / "utt2num_frames"
    write_text_file(file, read_text_file(file) | {"rain-1": count})
    with pytest.raises(PamError, match=f"utt2num_frames: 'rain-1': '{count}' is not a count: rem"):
        run(dump)


def test_failure_keeps_the_combined_set_of_before(dump):
    run(dump)
    before = {file.name: file.read_bytes() for file in (dump / "train").iterdir()}
    with pytest.raises(PamError):
        run(dump, encoders=["wakehubert_tiny", "beats"])
    assert before == {file.name: file.read_bytes() for file in (dump / "train").iterdir()}


def test_entries_that_are_not_used_are_counted(dump, caplog):
    caplog.set_level("INFO")
    file = dump / "wakehubert_tiny" / "ac_train" / "feats.scp"
    write_text_file(file, read_text_file(file) | {"other-1": "/x.ark:3"})
    run(dump)
    assert f"{file}: 1 entries are not used" in caplog.text
    assert "other-1" not in DataDir.read(dump / "train")["feats_wakehubert_tiny.scp"]


def test_wrong_sets_and_names(dump):
    (dump / "raw" / "ac_train" / "utt2num_samples").unlink()
    with pytest.raises(PamError, match="ac_train: not dumped .*: run the dump stage first"):
        run(dump)
    with pytest.raises(PamError, match="set 'asr_clean_train' is given twice"):
        run(dump, "asr_clean_train", "asr_clean_train")
    with pytest.raises(PamError, match="encoder 'a-b': use letters"):
        run(dump, "asr_clean_train", encoders=["a-b"])
    with pytest.raises(PamError, match="raw: is not a combined set"):
        combine(specs(dump, "asr_clean_train"), dump / "raw")
    with pytest.raises(PamError, match="no such data directory"):
        run(dump, "none")


def test_command_and_task_of_a_set(dump):
    sets = [f"{dump}/raw/asr_clean_train:asr_noisy", f"{dump}/raw/ac_train"]
    main(
        ["--train", *sets, "--dev", sets[1], "--out", f"{dump}/all", "--encoder_dir", str(dump)]
        + ["--encoders", *ENCODERS]
    )
    assert DataDir.read(dump / "all/train")["utt2task"]["ann-1"] == "asr_noisy"
    assert set(DataDir.read(dump / "all/dev")["utt2task"].values()) == {"ac"}
    with pytest.raises(PamError, match="unknown task 'asr_clen': did you mean 'asr_clean'"):
        SetSpec.parse(f"{dump}/raw/ac_train:asr_clen")


def options_of(dump, *encoders):
    sets = [str(dump / "raw/asr_clean_train"), str(dump / "raw/ac_train")]
    options = ["--train", *sets, "--dev", sets[1], "--out", str(dump / "all")]
    return [*options, "--encoder_dir", str(dump), "--encoders", *encoders]


def test_programs_that_combine_the_same_sets_take_turns(dump, monkeypatch):
    """The second waits, and then finds it complete."""
    fork = multiprocessing.get_context("fork")
    begun, go_on, worked = fork.Event(), fork.Event(), fork.Value("i", 0)
    work = verb.work

    def slow_work(args):
        with worked:
            worked.value += 1
        begun.set()
        assert go_on.wait(60)
        work(args)

    monkeypatch.setattr(verb, "work", slow_work)
    programs = [fork.Process(target=main, args=[options_of(dump)]) for _ in range(2)]
    programs[0].start()
    assert begun.wait(60)
    programs[1].start()
    programs[1].join(0.5)
    assert programs[1].is_alive() and worked.value == 1
    go_on.set()
    for program in programs:
        program.join(60)
        assert program.exitcode == 0
    assert worked.value == 1
    assert {path.name for path in (dump / "all").iterdir()} == {"train", "dev", "made.json"}


def test_programs_that_combine_the_same_sets_without_locks(dump, monkeypatch, caplog):
    """The second does not wait; both make the whole, and what a killed one left is removed."""
    fork = multiprocessing.get_context("fork")
    go_on, merge = fork.Event(), module._merge_features

    def refuse(*_):
        raise OSError(37, "No locks available")

    def started(wait):
        """A program that waits before it writes the features of the first set."""
        begun = fork.Event()

        def slow_merge(*args):
            if not begun.is_set():
                begun.set()
                assert wait()
            return merge(*args)

        with monkeypatch.context() as slow:
            slow.setattr(module, "_merge_features", slow_merge)
            program = fork.Process(target=main, args=[options_of(dump)])
            program.start()
        assert begun.wait(60)
        return program

    monkeypatch.setattr("fcntl.flock", refuse)
    first, killed = started(lambda: go_on.wait(60)), started(lambda: time.sleep(60))
    killed.kill()
    killed.join()
    assert main(options_of(dump)) == 0 and "no locks" in caplog.text
    before = {file: file.read_bytes() for file in (dump / "all/train").iterdir()}
    go_on.set()
    first.join(60)
    assert first.exitcode == 0
    assert {path.name for path in (dump / "all").iterdir()} == {"train", "dev", "made.json"}
    assert before == {file: file.read_bytes() for file in (dump / "all/train").iterdir()}
    assert len(DataDir.read(dump / "all/train")) == 5


def test_a_folder_that_another_program_makes_at_the_last_moment(dump, monkeypatch):
    run(dump)
    with monkeypatch.context() as other:
        other.setattr(
            "pam.atomic.shutil.rmtree", lambda *_, **__: None
        )  # as if it were there again
        with pytest.raises(PamError, match=r"train: cannot be written: another program has just"):
            run(dump)
    assert len(DataDir.read(dump / "train")) == 5


def test_the_record_has_the_settings_of_the_states(dump):
    """As in those of earlier versions, where raw/SET had them; states may be removed later."""
    specs = {name: {"family": "any", "dim": dim} for name, dim in ENCODERS.items()}
    for spec, folder in ((specs[f.parent.name], f) for n in ENCODERS for f in (dump / n).iterdir()):
        Making(folder, "dump", {"encoder": spec, "dtype": "float16"}).finish()
    for folder in (dump / "raw").iterdir():  # as of an earlier version
        Making(folder, "dump", {"feats": "dumped", "encoders": specs}).finish()
    assert main(options_of(dump, *ENCODERS)) == 0
    settings = read_record(dump / "all", "combine")["settings"]
    assert settings["feats"] == "dumped" and "dtype" not in settings
    for name, spec in specs.items():
        assert {key: settings[f"encoders.{name}.{key}"] for key in spec} == spec
    for folder in (dump / "raw").iterdir():
        (folder / "made.json").unlink()
        Making(folder, "dump", {"feats": "dumped"}).finish()
    assert main([*options_of(dump, *ENCODERS), "--pending"]) == 0
    for name in ENCODERS:
        shutil.rmtree(dump / name)
    assert main([*options_of(dump, *ENCODERS), "--pending"]) == 0
    Making(dump / next(iter(ENCODERS)) / "ac_train", "dump", {"encoder": {"dim": 9}}).finish()
    Making(
        dump / next(iter(ENCODERS)) / "asr_clean_train", "dump", {"encoder": {"dim": 9}}
    ).finish()
    with pytest.raises(PamError, match="was made with other settings"):
        main([*options_of(dump, *ENCODERS), "--pending"])
