"""The AMI recipe on an imitation of the Hugging Face data set, in Parquet and in Arrow files.

The rows are made once; where pyarrow is not installed, only what needs its files is skipped.
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

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


class Batch:
    """What the reader uses of pyarrow.RecordBatch."""

    def __init__(self, rows: list[dict]):
        self.rows, self.num_rows = rows, len(rows)

    def slice(self, start: int, count: int) -> "Batch":
        return Batch(self.rows[start : start + count])

    def to_pylist(self) -> list[dict]:
        return self.rows


@pytest.fixture
def in_memory(monkeypatch, tmp_path) -> tuple[Path, list[tuple[int, int]]]:
    """A file whose rows are those of `split`, in groups of 8, and which groups were read."""
    soundfile.write(tmp_path / "outside.wav", np.full(4000, 0.4), 16000)
    rows, read = split(str(tmp_path / "outside.wav")), []

    def batches(file, columns, wanted=lambda first, end: True):
        for first in range(0, len(rows), 8):
            if wanted(first, first + 8):
                read.append((first, first + 8))
                taken = [{name: row[name] for name in columns} for row in rows[first : first + 8]]
                yield first, Batch(taken)

    monkeypatch.setattr(ami_parquet, "batches", batches)
    return tmp_path / "train.parquet", read


def test_rows_and_audio(in_memory, tmp_path):
    file, _ = in_memory
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


def test_only_wanted_groups_are_read_and_audio_is_written_once(in_memory, tmp_path):
    file, read = in_memory
    rows = list(ami_parquet.read_rows([file], {EMPTY: [], NO_TIME: []}))
    chosen = [row for row in rows if row.number in (8, 9, 41)]
    read.clear()
    ami_parquet.write_audio(chosen, tmp_path / "audio", {})
    assert read == [(8, 16), (40, 48)]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "audio").iterdir()}
    read.clear()
    assert len(ami_parquet.write_audio(chosen, tmp_path / "audio", {})) == len(times) == 3
    assert read == [] and times == {path: path.stat().st_mtime_ns for path in times}


def test_another_configuration_is_refused(in_memory, monkeypatch):
    bad = {"audio_id": "AMI_EN2001a_SDM_MEO069_0000500_0000600", "text": "x"}
    monkeypatch.setattr(ami_parquet, "batches", lambda *_: [(0, Batch([bad]))])
    with pytest.raises(UserError, match="row 0: audio_id 'AMI_EN2001a_SDM.*use the config ihm"):
        list(ami_parquet.read_rows([in_memory[0]], {}))


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


def test_without_pyarrow(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="needs pyarrow: install it with `python -m pip install"):
        list(ami_parquet.batches(tmp_path / "train.parquet", ["text"]))


def write_files(folder: Path, form: str, outside: str) -> None:
    """The data set as it is downloaded (Parquet) or as it lies in a cache (Arrow streams)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for name in ("train", "validation", "test"):
        table = pa.Table.from_pylist(split(outside))
        if form == "parquet":
            pq.write_table(table, folder / f"{name}-00000-of-00001.parquet", row_group_size=8)
        else:
            file = str(folder / f"ami-{name}.arrow")
            with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=8)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_stages_1_and_2(tmp_path, form):
    pytest.importorskip("pyarrow", reason="an optional dependency: reading the data set's files")
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


def test_damaged_and_other_files(tmp_path):
    pa = pytest.importorskip(
        "pyarrow", reason="an optional dependency: reading the data set's files"
    )
    import pyarrow.parquet as pq

    file = tmp_path / "train.parquet"
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="damaged .*: fetch the data set again"):
        list(ami_parquet.read_rows([file], {}))
    pq.write_table(pa.Table.from_pylist([{"id": "x", "text": "y"}]), file)
    with pytest.raises(UserError, match="no column 'audio_id', it has id, text"):
        list(ami_parquet.read_rows([file], {}))
