"""The AMI recipe on an imitation of the Hugging Face data set, in Parquet and in Arrow files."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from imitations import write_arrow, write_parquet

from pam.data.datadir import DataDir, validate
from pam.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/ami"
sys.path[:0] = [str(RECIPE / "local")]

import ami_parquet  # noqa: E402
from ami_utterances import EMPTY, NO_AUDIO, NO_TIME  # noqa: E402


def encoded(level: float, form: str = "WAV") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.full(4000, level), 16000, format=form)
    return out.getvalue()


def row(start: int, end: int, text: str, audio: bytes | None, path: str | None = None) -> dict:
    utt = f"AMI_EN2001a_H04_MEO069_{start:07d}_{end:07d}"
    return {
        "meeting_id": "EN2001a",
        "audio_id": utt,
        "text": text,
        "audio": {"bytes": audio, "path": path or f"train_{utt.lower()}.wav"},
        "begin_time": float(np.float32(start / 100)),
        "end_time": float(np.float32(end / 100)),
        "microphone_id": "H04",
        "speaker_id": "MEO069",
    }


def split(outside: str | None = None) -> list[dict]:
    """Good rows in both forms and by path, and what is wrong in rows; 40 rows more."""
    return [
        row(330297, 330718, "I'VE GOTTEN <unk> MM-HMM", encoded(0.1)),
        row(100, 200, "IT'S  A FLAC", encoded(0.2, "FLAC")),
        row(150, 300, "<unk>", encoded(0.3)),
        row(400, 400, "NO TIME", encoded(0.3)),
        row(500, 600, "NO AUDIO", None),
        row(600, 700, "NOT AUDIO", b"????????"),
        row(700, 800, "OUTSIDE", None, outside),
        row(100, 200, "TWICE", encoded(0.2)),
        *(row(1000 + n, 1100 + n, f"NUMBER {n}", encoded(0.01 * n)) for n in range(40)),
    ]


GOOD = 2 + 40  # and one more where `outside` is a file


@pytest.fixture
def file(tmp_path) -> Path:
    """The rows of `split`, in groups of 8."""
    soundfile.write(tmp_path / "outside.wav", np.full(4000, 0.4), 16000)
    write_parquet(tmp_path / "train.parquet", split(str(tmp_path / "outside.wav")), 8)
    return tmp_path / "train.parquet"


def test_rows_and_audio(file, tmp_path):
    faults = {EMPTY: [], NO_TIME: [], NO_AUDIO: []}
    rows = list(ami_parquet.read_rows([file], faults))
    assert [row.utterance.text for row in rows[:2]] == ["i've gotten mm-hmm", "it's a flac"]
    first = rows[0].utterance
    assert (first.start, first.end, first.recording) == (3302.97, 3307.18, "AMI_EN2001a_H04")
    assert first.speaker_id == "AMI_EN2001a_H04_MEO069"
    assert first.id == "AMI_EN2001a_H04_MEO069_0330297_0330718"
    assert [found[-15:] for found in faults[EMPTY]] == ["0000150_0000300"]
    assert len(faults[NO_TIME]) == 1

    rows = [row for row in rows if row.utterance.text != "twice"]
    paths = ami_parquet.write_audio(rows, tmp_path / "audio", faults)
    assert Path(paths[first.id]).read_bytes() == encoded(0.1)
    assert paths[first.id].endswith(".wav") and paths[rows[1].utterance.id].endswith(".flac")
    assert str(tmp_path / "outside.wav") in paths.values()
    assert [name.split()[0][-15:] for name in faults[NO_AUDIO]] == [
        "0000500_0000600",
        "0000600_0000700",
    ]


def test_audio_is_written_once(file, tmp_path, monkeypatch):
    rows = list(ami_parquet.read_rows([file], {EMPTY: [], NO_TIME: []}))
    chosen = [row for row in rows if row.number in (8, 9, 41)]
    paths = ami_parquet.write_audio(chosen, tmp_path / "audio", {})
    assert [Path(paths[row.utterance.id]).read_bytes() for row in chosen] == [
        encoded(0.01 * n) for n in (0, 1, 33)
    ]
    monkeypatch.setattr(ami_parquet, "numbered_rows", lambda *_: pytest.fail("read again"))
    assert ami_parquet.write_audio(chosen, tmp_path / "audio", {}) == paths


def test_another_configuration_is_refused(tmp_path):
    file = tmp_path / "train.parquet"
    write_parquet(file, [{"audio_id": "AMI_EN2001a_SDM_MEO069_0000500_0000600", "text": "x"}])
    with pytest.raises(UserError, match="row 0: audio_id 'AMI_EN2001a_SDM.*use the config ihm"):
        list(ami_parquet.read_rows([file], {}))
    write_parquet(file, [{"id": "x", "text": "y"}])
    with pytest.raises(UserError, match="no column 'audio_id', it has id, text"):
        list(ami_parquet.read_rows([file], {}))


def test_files_of_the_splits(tmp_path):
    names = ["ihm/train-00000-of-00002.parquet", "ihm/train-00001-of-00002.parquet"]
    names += ["ihm/validation-00000-of-00001.parquet", "ihm/test-00000-of-00001.parquet"]
    names += ["sdm/train-00000-of-00001.parquet", "train/cached.arrow"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = ami_parquet.files_in(tmp_path)
    assert {name: len(files) for name, files in found.items()} == {"train": 2, "dev": 1, "test": 1}
    with pytest.raises(UserError, match="no \\*.parquet or \\*.arrow files"):
        ami_parquet.files_in(tmp_path / "none")


def write_files(folder: Path, form: str, outside: str) -> None:
    """The data set as it is downloaded (Parquet) or as it lies in a cache (Arrow streams)."""
    for name in ("train", "validation", "test"):
        if form == "parquet":
            write_parquet(folder / f"{name}-00000-of-00001.parquet", split(outside), 8)
        else:
            write_arrow(folder / f"ami-{name}.arrow", split(outside), 8)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_stages_1_and_2(tmp_path, form):
    soundfile.write(tmp_path / "outside.wav", np.full(4000, 0.4), 16000)
    write_files(tmp_path / "ihm", form, str(tmp_path / "outside.wav"))
    process = subprocess.run(
        [RECIPE / "run.sh", "--stop_stage", "2", "--feats", "online", "--python", sys.executable]
        + [f"--datadir={tmp_path}/data", f"--dumpdir={tmp_path}/dump", "--nj", "1"],
        env={"AMI_PARQUET": str(tmp_path / "ihm"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ami_train: expected 108502 utterances, found 45" in process.stdout
    assert "1 left out, the same id twice: AMI_EN2001a_H04_MEO069_0000100" in process.stdout
    for name in ("train", "dev", "test"):
        assert not [p for p in validate(tmp_path / f"data/ami_{name}") if not p.warning]
        raw = DataDir.read(tmp_path / f"dump/raw/ami_{name}")
        assert len(raw) == GOOD + 1
        assert raw["text"]["AMI_EN2001a_H04_MEO069_0000100_0000200"] == "it's a flac"
        assert raw["wav.scp"]["AMI_EN2001a_H04_MEO069_0000100_0000200"].endswith(".flac")
