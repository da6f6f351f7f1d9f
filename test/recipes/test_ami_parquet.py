"""The AMI recipe on an imitation of the Hugging Face data set, in Parquet and in Arrow files."""

import subprocess
import sys
from pathlib import Path

import pytest
from imitations import AMI_GOOD, ami_parquet, ami_row, level, preparation, write_parquet

from pam.data.datadir import DataDir, validate
from pam.errors import PamError

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/ami"
sys.path[:0] = [str(RECIPE / "local")]

import ami_parquet as reader  # noqa: E402
from ami_utterances import EMPTY, NO_AUDIO, NO_TIME  # noqa: E402


@pytest.fixture
def file(tmp_path) -> Path:
    """One of its files."""
    ami_parquet(tmp_path, "parquet")
    return tmp_path / "train-00000-of-00001.parquet"


def test_rows_and_audio(file, tmp_path):
    faults = {EMPTY: [], NO_TIME: [], NO_AUDIO: []}
    rows = list(reader.read_rows([file], faults))
    assert [row.utterance.text for row in rows[:2]] == ["i've gotten mm-hmm", "it's a flac"]
    first = rows[0].utterance
    assert (first.start, first.end, first.recording) == (3302.97, 3307.18, "AMI_EN2001a_H04")
    assert first.speaker_id == "AMI_EN2001a_H04_MEO069"
    assert first.id == "AMI_EN2001a_H04_MEO069_0330297_0330718"
    assert [found[-15:] for found in faults[EMPTY]] == ["0000150_0000300"]
    assert len(faults[NO_TIME]) == 1

    rows = [row for row in rows if row.utterance.text != "twice"]
    paths = reader.write_audio(rows, tmp_path / "audio", faults)
    assert Path(paths[first.id]).read_bytes() == level(0.1)
    assert paths[first.id].endswith(".wav") and paths[rows[1].utterance.id].endswith(".flac")
    assert str(tmp_path / "outside.wav") in paths.values()
    assert [name.split()[0][-15:] for name in faults[NO_AUDIO]] == [
        "0000500_0000600",
        "0000600_0000700",
    ]


def test_audio_is_written_once(file, tmp_path, monkeypatch):
    rows = list(reader.read_rows([file], {EMPTY: [], NO_TIME: []}))
    chosen = [row for row in rows if row.number in (8, 9, 41)]
    paths = reader.write_audio(chosen, tmp_path / "audio", {})
    assert [Path(paths[row.utterance.id]).read_bytes() for row in chosen] == [
        level(0.01 * n) for n in (0, 1, 33)
    ]
    monkeypatch.setattr(reader, "numbered_rows", lambda *_: pytest.fail("read again"))
    assert reader.write_audio(chosen, tmp_path / "audio", {}) == paths


def test_a_copy_without_audio_is_refused(tmp_path):
    """As the hub's library saves a data set whose audio it has not embedded."""
    for name in ("train", "validation", "test"):
        write_parquet(tmp_path / f"{name}.parquet", [ami_row(100, 200, "HI", None)])
    module = preparation("ami")
    with pytest.raises(PamError, match="no audio in the set train: copy the data set with it"):
        module.main(["--parquet", str(tmp_path), "--out", str(tmp_path / "data")])
    listed = (tmp_path / "data/ami_train/left_out.log").read_text()
    assert listed.startswith("no audio\tAMI_EN2001a_H04_MEO069_0000100_0000200 (row 0 of")


def test_another_configuration_is_refused(tmp_path):
    file = tmp_path / "train.parquet"
    write_parquet(file, [{"audio_id": "AMI_EN2001a_SDM_MEO069_0000500_0000600", "text": "x"}])
    with pytest.raises(PamError, match="row 0: audio_id 'AMI_EN2001a_SDM.*use the config ihm"):
        list(reader.read_rows([file], {}))
    write_parquet(file, [{"id": "x", "text": "y"}])
    with pytest.raises(PamError, match="no column 'audio_id', it has id, text"):
        list(reader.read_rows([file], {}))


def test_files_of_the_splits(tmp_path):
    names = ["ihm/train-00000-of-00002.parquet", "ihm/train-00001-of-00002.parquet"]
    names += ["ihm/validation-00000-of-00001.parquet", "ihm/test-00000-of-00001.parquet"]
    names += ["sdm/train-00000-of-00001.parquet", "train/cached.arrow"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = reader.files_in(tmp_path)
    assert {name: len(files) for name, files in found.items()} == {"train": 2, "dev": 1, "test": 1}
    with pytest.raises(PamError, match="no \\*.parquet or \\*.arrow files"):
        reader.files_in(tmp_path / "none")


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_stages_1_and_2(tmp_path, form):
    ami_parquet(tmp_path / "ihm", form)
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
        assert len(raw) == AMI_GOOD
        assert raw["text"]["AMI_EN2001a_H04_MEO069_0000100_0000200"] == "it's a flac"
        assert raw["wav.scp"]["AMI_EN2001a_H04_MEO069_0000100_0000200"].endswith(".flac")
