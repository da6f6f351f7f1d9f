"""Copies of data sets of the hub: rows of Parquet and Arrow files, and the audio in their cells."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from audio_files import SAMPLES, encode
from imitations import encoded, write_arrow, write_parquet

from pam.data import parquet
from pam.data.audio import load_audio
from pam.data.parquet import audio_file, columns, find_audio, find_parquet, numbered_rows, rows
from pam.errors import PamError

ROOT = Path(__file__).resolve().parents[2]
ROWS = [{"n": n, "text": f"naïve {n}", "audio": {"bytes": bytes([n]), "path": None}}
        for n in range(30)]  # fmt: skip


@pytest.fixture(params=["parquet", "arrow"])
def file(tmp_path, request) -> Path:
    """The rows in groups of twelve, more than are read at once."""
    file = tmp_path / f"a.{request.param}"
    (write_parquet if request.param == "parquet" else write_arrow)(file, ROWS, 12)
    return file


def test_a_part_of_a_split_is_refused(tmp_path):
    (tmp_path / "default" / "train").mkdir(parents=True)
    write_parquet(tmp_path / "default/train/partial-0.parquet", ROWS, 12)
    assert [file.name for file in find_parquet(tmp_path)] == ["partial-0.parquet"]
    (tmp_path / "default" / "train").rename(tmp_path / "default" / "partial-train")
    with pytest.raises(PamError, match="partial-train/partial-0.parquet: only a part of the split"):
        find_parquet(tmp_path)


def test_rows_of_all_files(file):
    assert columns(file) == ["n", "text", "audio"]
    assert list(rows([file, file], ["n", "text"])) == 2 * [
        {"n": row["n"], "text": row["text"]} for row in ROWS
    ]
    assert list(numbered_rows(file, ["audio"])) == [
        (n, {"audio": row["audio"]}) for n, row in enumerate(ROWS)
    ]
    with pytest.raises(PamError, match=rf"{file.name}: no column 'm', it has n, text, audio"):
        next(rows([file], ["n", "m"]))


def test_chosen_rows(file):
    for chosen in ({0}, {11, 12}, {29, 3, 4, 13}, set(), {30}):
        expected = [(n, {"n": n}) for n in sorted(chosen) if n < 30]
        assert list(numbered_rows(file, ["n"], chosen)) == expected


def test_groups_without_chosen_rows_are_not_read(tmp_path, monkeypatch):
    read = []

    class Watched(parquet.ParquetFile):
        def iter_batches(self, *arguments, row_groups, **options):
            read.extend(row_groups)
            return super().iter_batches(*arguments, row_groups=row_groups, **options)

    monkeypatch.setattr(parquet, "ParquetFile", Watched)
    write_parquet(tmp_path / "a.parquet", ROWS, 12)
    assert [n for n, _ in numbered_rows(tmp_path / "a.parquet", ["n"], [28, 2])] == [2, 28]
    assert read == [0, 2]


PEAK = """
import sys, pyarrow
from pathlib import Path
from pam.data.parquet import rows
assert sum(len(row["audio"]["bytes"]) for row in rows([Path(sys.argv[1])], ["audio"])) == 20_000_000
print(pyarrow.default_memory_pool().max_memory())
"""


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_memory_is_not_that_of_a_group(tmp_path, suffix):
    """A group's audio may be gigabytes; of Parquet a page must fit, here one of eight rows."""
    noise, file = np.random.default_rng(0), tmp_path / f"a.{suffix}"
    cells = [{"audio": {"bytes": noise.bytes(100_000), "path": "a"}} for _ in range(200)]
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(cells), file, write_batch_size=8)
    else:
        write_arrow(file, cells, len(cells))
    command = [sys.executable, "-c", PEAK, file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Measured: 6.7 MB and 0; buffered otherwise, Parquet needs 25.6 MB.
    assert int(done.stdout) < 10_000_000


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"version https://git-lfs.g"])
def test_damaged_files(file, content):
    file.write_bytes(content)
    kind = {".parquet": "Parquet", ".arrow": "Arrow"}[file.suffix]
    with pytest.raises(PamError, match=rf"{file.name}: truncated or no {kind} file .*: copy it"):
        next(rows([file], ["n"]))


def test_truncated_files(file):
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(PamError, match="truncated or no (Parquet|Arrow) file"):
        list(rows([file], ["n"]))


@pytest.mark.parametrize("kind", ["FLAC", "WAV", "OGG", "MP3"])
def test_audio_becomes_a_file(tmp_path, kind):
    """Its suffix is that of the content, whatever the path says."""
    content = encoded(0.5, 16000, 0, kind)
    file = audio_file({"bytes": content, "path": "x.bin"}, tmp_path / "audio", "an id")
    assert file == tmp_path / f"audio/an id.{kind.lower()}" == find_audio(file.parent, "an id")
    assert file.read_bytes() == content and soundfile.info(file).samplerate == 16000
    file.write_bytes(b"as it is")
    assert audio_file({"bytes": content, "path": None}, file.parent, "an id") == file
    assert file.read_bytes() == b"as it is"
    assert find_audio(file.parent, "another id") is None


FORMS = {
    ("WAV", "PCM_16", "LITTLE"): ".wav", ("WAV", "PCM_16", "BIG"): ".wav",
    ("RF64", "PCM_16", None): ".wav", ("W64", "PCM_16", None): ".w64",
    ("AIFF", "PCM_16", None): ".aiff", ("AIFF", "FLOAT", None): ".aiff",
    ("AU", "PCM_16", "BIG"): ".au", ("AU", "PCM_16", "LITTLE"): ".au",
    ("CAF", "PCM_16", None): ".caf", ("NIST", "PCM_16", None): ".sph",
    ("OGG", "OPUS", None): ".ogg", ("MP3", "MPEG_LAYER_III", None): ".mp3",
}  # fmt: skip


@pytest.mark.parametrize(("form", "suffix"), FORMS.items(), ids=str)
def test_every_form_of_audio_becomes_a_file(tmp_path, form, suffix):
    kind, subtype, endian = form
    content = encode(kind, subtype, **({"endian": endian} if endian else {}))
    file = audio_file({"bytes": content, "path": None}, tmp_path, "an id")
    assert file == tmp_path / f"an id{suffix}" == find_audio(tmp_path, "an id")
    assert abs(len(load_audio(file)) - SAMPLES) <= 1


@pytest.mark.parametrize(
    "content", [b"RIFF\x10\0\0\0AVI LIST", b"FORM\0\0\0\x10ILBMBMHD", b"\xff\xd8\xff\xe0"]
)
def test_films_and_pictures_are_no_audio(tmp_path, content):
    assert audio_file({"bytes": content + bytes(100), "path": None}, tmp_path, "x") is None


def test_audio_without_a_name_is_written_once(tmp_path):
    cells = [{"bytes": encoded(0.1, 16000, seed), "path": None} for seed in (0, 1, 0)]
    files = [audio_file(cell, tmp_path) for cell in cells]
    assert files[0] == files[2] != files[1]
    assert sorted(tmp_path.iterdir()) == sorted({*files})


def test_audio_outside_is_only_named(tmp_path, monkeypatch):
    outside = tmp_path / "outside.wav"
    outside.write_bytes(encoded(0.1, 16000, 0))
    assert audio_file({"bytes": None, "path": str(outside)}, tmp_path / "audio") == outside
    monkeypatch.chdir(tmp_path)
    lacking = [None, {}, {"bytes": b"", "path": None}, {"bytes": None, "path": "outside.wav"}]
    lacking += [{"bytes": None, "path": "/nowhere.wav"}, {"bytes": b"<html>", "path": "a.wav"}]
    assert [audio_file(cell, tmp_path / "audio", "x") for cell in lacking] == 6 * [None]
    assert not (tmp_path / "audio").exists()
