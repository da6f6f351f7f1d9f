"""New recipes: what utils/new_recipe.sh copies, and its preparation of tables."""

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


def test_new_recipe_starts_again_after_a_run_that_was_stopped(project):
    (project / "egs/frogs.part").mkdir()
    subprocess.run([project / "utils/new_recipe.sh", "frogs"], check=True, capture_output=True)
    names = {path.name for path in (project / "egs/TEMPLATE").iterdir()}
    assert {path.name for path in (project / "egs/frogs").iterdir()} == names
    assert not (project / "egs/frogs.part").exists()


def test_tables_as_other_programs_save_them(project, tmp_path):
    """A byte order mark, Windows line ends, a control character, an empty line at the end."""
    recipe, corpus = project / "egs/birds", tmp_path / "corpus"
    write_audio(corpus / "naïve.flac")
    line = "\ufeffnaïve.flac\tzoë\ta robin\u2028sings\r\n\r\n".encode()
    for part in ("train", "dev", "test"):
        (corpus / f"{part}.tsv").write_bytes(line)
    options = ["--corpus", corpus, "--name", "birds", "--task", "ac", "--out", tmp_path / "data"]
    status, output = prepare(recipe, *options)
    assert status == 0, output
    data = DataDir.read(tmp_path / "data/birds_train")
    assert data["text"] == {"birds_train-zoë-000000": "a robin sings"}
    (corpus / "dev.tsv").write_bytes(line.decode().encode("latin-1", "replace"))
    status, output = prepare(recipe, *options)
    assert status == 1 and "dev.tsv:1: not UTF-8 (byte 0xef): " in output
    assert "Traceback" not in output


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
