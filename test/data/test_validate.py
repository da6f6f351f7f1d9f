"""The programs that validate and fix, from the shell."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pam.bin.validate import main
from pam.data.datadir import DataDir
from pam.errors import PamError

ROOT = Path(__file__).resolve().parents[2]
UTTS = ["ann-1", "ann-2", "bob-1"]


@pytest.fixture
def folder(tmp_path):
    for utt in UTTS:
        soundfile.write(tmp_path / f"{utt}.wav", np.full(800, 0.1), 16000)
    files = {
        "wav.scp": {utt: f"{tmp_path}/{utt}.wav" for utt in UTTS},
        "text": {utt: f"words of {utt}" for utt in UTTS},
        "utt2spk": {utt: utt[:3] for utt in UTTS},
        "utt2task": dict.fromkeys(UTTS, "asr_clean"),
    }
    DataDir(files).write(tmp_path / "set")
    return tmp_path / "set"


def test_valid(folder, capsys):
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: valid, 3 utterances\n"


def test_faults_are_printed_and_fixed(folder, capsys):
    (folder.parent / "ann-2.wav").unlink()
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert "error:" in out and "ann-2.wav: no such audio file: correct the path" in out
    assert f"fix the directory with: utils/fix_data_dir.sh {folder}" in out
    assert main([str(folder), "--audio", "none"]) == 0
    assert main([str(folder), "--fix"]) == 0
    out = capsys.readouterr().out
    assert "valid, 2 utterances, 2 errors mended, 1 utterances dropped: ann-2\n" in out
    assert main([str(folder)]) == 0


def test_faults_as_json(folder, capsys):
    (folder.parent / "ann-2.wav").unlink()
    assert main([str(folder), "--json"]) == 1
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["dir"], entry["valid"], entry["utterances"]) == (str(folder), False, 2)
    faults = [problem for problem in entry["problems"] if not problem["warning"]]
    assert len(faults) == 2
    assert faults[0].keys() == {"file", "line", "rule", "value", "remedy", "warning"}
    assert main([str(folder), "--json", "--audio", "none"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["valid"]


def spoil_audio(folder: Path) -> None:
    wav = folder.parent / "ann-1.wav"
    wav.write_bytes(wav.read_bytes()[:500])


def spoil_end(folder: Path) -> None:
    files = DataDir.read(folder).files
    files["segments"] = {utt: f"{utt} 0.01 {9 if utt == 'ann-1' else 0.05}" for utt in UTTS}
    DataDir(files).write(folder)


def spoil_text(old: str, new: str):
    return lambda folder: (folder / "text").write_bytes(
        (folder / "text").read_bytes().replace(old.encode(), new.encode("utf-8", "surrogateescape"))
    )


@pytest.mark.parametrize(
    ("audio", "spoil", "left"),
    [
        ("decode", spoil_audio, 2),
        ("exists", lambda folder: (folder.parent / "ann-1.wav").unlink(), 2),
        ("exists", spoil_end, 2),
        (
            "none",
            lambda folder: (folder / "utt2task").write_text("ann-2 ac\nann-1 ac\nbob-1 x\n"),
            2,
        ),
        ("none", lambda folder: (folder / "spk2utt").unlink(), 3),
        ("none", spoil_text("ann-1 ", "ann-1\xa0"), 3),
        ("none", spoil_text("of ann-1", "of\x0bann-1"), 3),
        ("none", spoil_text("of ann-1", "caf\udce9"), 2),
        ("none", spoil_text("\n", "\r\n"), 3),
        ("none", spoil_text("words of ann-1", ""), 2),
    ],
)
def test_the_hint_mends_what_was_found_and_no_more(folder, capsys, monkeypatch, audio, spoil, left):
    """Typed as it is printed, in any folder; the path has spaces and a quote."""
    folder = folder.rename(folder.parent / "it's my set")
    spoil(folder)
    monkeypatch.chdir(folder.parent)
    assert main([folder.name, "--audio", audio]) == 1
    hint = capsys.readouterr().out.splitlines()[-1].partition("fix the directory with: ")[2]
    env = os.environ | {"PAM_VENV": str(Path(os.sys.executable).parents[1])}
    subprocess.run(["bash", "-c", hint], check=True, capture_output=True, env=env, cwd="/")
    assert main([folder.name, "--audio", audio]) == 0
    assert len(DataDir.read(folder)) == left


def test_no_hint_where_nothing_would_be_left(folder, capsys):
    for file in folder.parent.glob("*.wav"):
        file.unlink()
    assert main([str(folder)]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "no utterance is good: correct the lines, or run the recipe's data stage again" in last
    (folder / "text").unlink()
    with pytest.raises(PamError, match="errors in all, run the recipe's data stage again"):
        DataDir.read(folder)


def test_segments_end_with_their_recording(folder, capsys):
    """The recordings have 0.05 s; half a second more is a rounded end, as for load_audio."""
    ends = {"ann-1": "0.05", "ann-2": "0.54", "bob-1": "0.56"}
    files = DataDir.read(folder).files
    files["segments"] = {utt: f"{utt} 0.01 {end}" for utt, end in ends.items()}
    DataDir(files).write(folder)
    assert main([str(folder), "--audio", "none"]) == 0
    assert main([str(folder)]) == 1
    assert (
        "segments:3: segment ends after the audio: 'bob-1 0.01 0.56': the recording has 0.05 s: "
        "correct or remove the segment" in capsys.readouterr().out
    )
    main([str(folder), "--fix"])
    assert "1 utterances dropped: bob-1" in capsys.readouterr().out
    assert DataDir.read(folder).utterances == ["ann-1", "ann-2"]
    (folder.parent / "ann-1.wav").write_bytes(b"RIFF")
    assert main([str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "wav.scp:1: bad audio: " in shown and "truncated or corrupt" in shown
    assert "unknown recording 'ann-1'" in shown


def test_what_is_dropped_is_said_in_short_or_in_full(folder, capsys):
    data = DataDir.read(folder)
    utts = [f"ann-{i:03d}" for i in range(40)]
    files = {name: dict.fromkeys(utts, next(iter(data[name].values()))) for name in data.files}
    for every in ([], ["--all"]):
        DataDir(files).write(folder)
        lines = (folder / "text").read_text().splitlines(keepends=True)
        (folder / "text").write_text("".join(lines[15:]))
        main([str(folder), "--fix", *every])
        last = capsys.readouterr().out.splitlines()[-1]
        assert f"15 utterances dropped: {' '.join(utts[:10])}" in last
        assert last.endswith(" …") != bool(every) and (utts[14] in last) == bool(every)


@pytest.mark.parametrize(
    ("samples", "rule"),
    [
        (np.zeros(0), "0 samples"),
        (np.array([0.1, np.nan]), "NaN or infinite samples"),
        (None, "truncated or corrupt"),
    ],
)
def test_audio_is_decoded_when_asked(folder, capsys, samples, rule):
    wav = folder.parent / "ann-1.wav"
    if samples is None:
        wav.write_bytes(wav.read_bytes()[:500])
    else:
        soundfile.write(wav, samples, 16000, subtype="FLOAT")
    assert main([str(folder)]) == 0
    assert main([str(folder), "--audio", "decode"]) == 1
    assert rule in capsys.readouterr().out
    assert main([str(folder), "--audio", "decode", "--fix"]) == 0
    assert DataDir.read(folder).utterances == ["ann-2", "bob-1"]


def test_many_faults_of_a_kind_are_counted(tmp_path, folder, capsys):
    utts = [f"ann-{i:03d}" for i in range(50)]
    data = DataDir.read(folder)
    files = {name: dict.fromkeys(utts, next(iter(data[name].values()))) for name in data.files}
    DataDir(files).write(folder)
    (folder / "text").write_text("".join(f"{utt} \n" for utt in utts[:40]) + "ann-040 x\n")
    assert main([str(folder)]) == 1
    shown = capsys.readouterr().out
    assert shown.count("empty value") == 10 and "… and 30 more of this kind" in shown
    main([str(folder), "--all"])
    assert capsys.readouterr().out.count("empty value") == 40


def shell(script, *arguments):
    return subprocess.run(
        [ROOT / "utils" / script, *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        env=os.environ | {"PAM_VENV": str(Path(os.sys.executable).parents[1])},
        check=False,
    )


def test_shell_scripts(folder):
    (folder / "spk2utt").unlink()
    bad = shell("validate_data_dir.sh", folder)
    assert bad.returncode == 1 and "spk2utt: missing file" in bad.stdout and not bad.stderr
    assert shell("fix_data_dir.sh", folder).returncode == 0
    assert shell("validate_data_dir.sh", folder).stdout == f"{folder}: valid, 3 utterances\n"
    none = shell("validate_data_dir.sh", "/nowhere")
    assert none.returncode == 1 and none.stderr.startswith(
        "error: /nowhere: no such data directory"
    )
    assert none.stderr.count("\n") == 1


def test_a_pipe_is_not_waited_for(folder):
    (folder / "text").unlink()
    os.mkfifo(folder / "text")
    with pytest.raises(PamError, match="text: this is a pipe: put a file in its place"):
        main([str(folder)])


def test_an_empty_name_is_not_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(PamError, match="DIR '': expected a data directory; the current one is ."):
        main([""])
    assert main(["."]) == 0
