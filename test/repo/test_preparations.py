"""Preparations of corpora that the user brings, on imitations of them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pam.data.datadir import DataDir

ROOT = Path(__file__).resolve().parents[2]


def prepare(recipe: Path, *options: str | Path) -> tuple[int, str]:
    process = subprocess.run(
        [sys.executable, recipe / "local/prepare.py", *options], capture_output=True, text=True
    )
    return process.returncode, process.stdout + process.stderr


def write_audio(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.zeros(16000, dtype=np.float32), 16000)


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    for speaker in (84, 1272):
        chapter = tmp_path / f"LibriSpeech/dev-clean/{speaker}/7"
        lines = []
        for number in range(6):
            utt = f"{speaker}-7-{number:04d}"
            write_audio(chapter / f"{utt}.flac")
            lines.append(f"{utt} IT'S  NUMBER {number}\n")
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))
    return tmp_path / "LibriSpeech"


LIBRISPEECH = ROOT / "egs/librispeech"


def test_librispeech(librispeech, tmp_path):
    options = ["--corpus", librispeech, "--out", tmp_path / "data", "--parts", "dev-clean"]
    status, output = prepare(LIBRISPEECH, *options, "--size", "long")
    assert status == 0, output
    assert "12 utterances, published: 2703" in output
    data = DataDir.read(tmp_path / "data/librispeech_dev_clean")
    assert len(data) == 12
    assert data["text"]["84-7-0003"] == "it's number 3"
    assert data["utt2spk"]["1272-7-0000"] == "1272"
    assert set(data["utt2task"].values()) == {"asr_clean"}
    assert Path(data["wav.scp"]["84-7-0003"]).is_file()

    prepare(LIBRISPEECH, *options, "--size", "tiny")
    data = DataDir.read(tmp_path / "data/librispeech_dev_clean")
    assert len(data) == 8 and set(data["utt2spk"].values()) == {"84", "1272"}


def test_librispeech_names_what_is_missing(librispeech, tmp_path):
    out = ["--out", tmp_path / "data"]
    status, output = prepare(LIBRISPEECH, *out)
    assert status == 1 and output.startswith("error: LIBRISPEECH is not set")
    status, output = prepare(LIBRISPEECH, "--corpus", librispeech, *out, "--parts", "test-clean")
    assert status == 1 and "unpack test-clean.tar.gz" in output
    audio = librispeech / "dev-clean/84/7/84-7-0002.flac"
    audio.unlink()
    status, output = prepare(LIBRISPEECH, "--corpus", librispeech, *out, "--parts", "dev-clean")
    assert status == 1 and str(audio) in output


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy with a recipe `birds` made by utils/new_recipe.sh."""
    for part in ("utils", "egs/TEMPLATE"):
        shutil.copytree(ROOT / part, tmp_path / "project" / part)
    (tmp_path / "project/pam").symlink_to(ROOT / "pam")
    new = tmp_path / "project/utils/new_recipe.sh"
    subprocess.run([new, "birds"], check=True, capture_output=True)
    return tmp_path / "project"


def test_new_recipe(project):
    recipe = project / "egs/birds"
    names = subprocess.run(
        [recipe / "run.sh", "--print", "test_sets"], capture_output=True, text=True, check=True
    )
    assert names.stdout == "birds_test\n"
    for file in recipe.rglob("*"):
        assert not file.is_file() or "TEMPLATE" not in file.read_text(), file


@pytest.mark.parametrize("name", ["birds", "Birds", "a b", "../x", ""])
def test_new_recipe_refuses_bad_names(project, name):
    script = project / "utils/new_recipe.sh"
    process = subprocess.run([script, name], capture_output=True, text=True)
    assert process.returncode == 1
    assert re.match(r"error: (usage|.*exists already)", process.stderr)


def test_new_recipe_prepares_tables(project, tmp_path):
    recipe, corpus = project / "egs/birds", tmp_path / "corpus"
    write_audio(corpus / "wav/a.flac")
    for part in ("train", "dev", "test"):
        (corpus / f"{part}.tsv").write_text("wav/a.flac\tanna\ta robin sings\n" * 10)
    options = ["--corpus", corpus, "--name", "birds", "--task", "ac", "--out", tmp_path / "data"]
    status, output = prepare(recipe, *options, "--size", "tiny")
    assert status == 0, output
    data = DataDir.read(tmp_path / "data/birds_train")
    assert len(data) == 8 and data["text"]["birds_train-anna-000000"] == "a robin sings"

    (corpus / "dev.tsv").write_text("wav/b.flac\tanna\ta robin sings\n")
    status, output = prepare(recipe, *options)
    assert status == 1 and "dev.tsv:1" in output and "no such file" in output
