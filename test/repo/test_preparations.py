"""New recipes: what utils/new_recipe.sh copies, and its preparation of tables."""

import fcntl
import os
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
        assert not file.is_file() or not re.search("TEMPLATE|CORPUS", file.read_text()), file
    assert (recipe / "db.sh").read_text().endswith("\nBIRDS=${BIRDS:-}\n")


@pytest.mark.parametrize("name", ["birds", "Birds", "a b", "../x", ""])
def test_new_recipe_refuses_bad_names(project, name):
    script = project / "utils/new_recipe.sh"
    process = subprocess.run([script, name], capture_output=True, text=True)
    assert process.returncode == 1
    assert re.match(r"error: (usage|.*exists already)", process.stderr)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("path", "error: PATH, the variable of the corpus' folder, has a value or a meaning"),
        ("pythonpath", "error: PYTHONPATH, the variable of the corpus' folder, has a value"),
        ("pam_cache", "error: PAM_CACHE, the variable of the corpus' folder, has a value or"),
        ("feathers", "folder, is one of egs/birds/db.sh egs/wings/db.sh too: choose another"),
    ],
)
def test_a_variable_is_the_folder_of_one_corpus(project, name, message):
    """`Next:` sets it in the environment, where the recipes that are joined would read it too."""
    (project / "egs/wings").mkdir()
    for db in ("birds", "wings"):
        (project / f"egs/{db}/db.sh").write_text("FEATHERS=${FEATHERS:-}\n")
    process = subprocess.run(
        [project / "utils/new_recipe.sh", name], capture_output=True, text=True
    )
    assert process.returncode == 1 and message in process.stderr
    assert process.stderr.count("\n") == 1 and not (project / "egs" / name).exists()


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


def run(recipe: Path, *options: str, **env: str) -> tuple[int, str]:
    process = subprocess.run(
        [recipe / "run.sh", "--python", sys.executable, "--stop_stage", "1", *options],
        capture_output=True,
        text=True,
        env=os.environ | env,
    )
    return process.returncode, process.stdout + process.stderr


def test_the_corpus_is_asked_for_with_an_example(project):
    recipe = project / "egs/birds"
    shutil.copytree(ROOT / "conf", project / "conf")
    status, output = run(recipe, BIRDS="")
    assert (
        status == 1
        and "BIRDS is not set: name the folder of the corpus in egs/birds/db.sh, " in (output)
    )
    assert "BIRDS=/data/birds egs/birds/run.sh" in output
    status, output = run(recipe, BIRDS="none")
    assert status == 1 and f"{recipe}/none: no such folder: correct BIRDS" in output
    (recipe / "my corpus").mkdir()
    status, output = run(recipe, BIRDS="my corpus")
    assert status == 1 and f"{recipe}/my corpus/train.tsv: missing: correct BIRDS" in output
    status, output = prepare(recipe, "--corpus", "", "--name", "birds", "--task=ac", "--out", "x")
    assert status == 1 and "set BIRDS in egs/birds/db.sh" in output


def test_what_is_edited_reaches_the_combined_sets(project, tmp_path):
    """Texts and the preparation; the same command, twice at once, is refused."""
    recipe, corpus = project / "egs/birds", tmp_path / "corpus"
    shutil.copytree(ROOT / "conf", project / "conf")
    write_audio(corpus / "a.wav")

    def edit(text: str) -> None:
        for part in ("train", "dev", "test"):
            (corpus / f"{part}.tsv").write_text(f"a.wav\t{part}\t{text}\n")

    def stages(**env: str) -> tuple[int, str]:
        online = ("--scale", "paper", "--feats", "online", "--stop_stage", "3")
        return run(recipe, *online, **{"BIRDS": str(corpus), **env})

    def texts() -> set[str]:
        [combined] = (recipe / "dump/combined").iterdir()
        return {
            text
            for part in ("train", "dev")
            for text in DataDir.read(combined / part)["text"].values()
        }

    edit("a robin")
    status, output = stages()
    assert status == 0 and texts() == {"a robin"}, output
    edit("a wren")
    with (recipe / "data/.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, output = stages()
        assert status == 1 and "data: another preparation is running: wait for it" in output
        assert "Traceback" not in output
    status, output = stages()
    assert status == 0 and texts() == {"a wren"}, output
    assert f"data: prepared again, since files of {corpus} have changed" in output
    assert "birds_train has changed: dumping it again" in output
    prepare_py = recipe / "local/prepare.py"
    prepare_py.write_text(prepare_py.read_text().replace('"text": text,', '"text": text.upper(),'))
    status, output = stages(BIRDS="")
    assert status == 1 and "BIRDS is not set" in output
    status, output = stages()
    assert status == 0 and texts() == {"A WREN"}, output
    status, output = stages(BIRDS="")  # a folder that is away is as it was
    assert status == 0 and output.count("complete: ") == 5, output


PREPARE = """prepare() {
    echo "${sets[*]}" >>asked
    for name in "${sets[@]}"; do
        mkdir -p "$datadir/$name" && touch "$datadir/$name/wav.scp"
    done
    [[ ! -e broken ]] || die broken
}
"""


def test_a_set_that_is_made_is_not_made_again_with_another(project, tmp_path):
    """What it was made of may have changed since, as where clips of YouTube are gone."""
    recipe, corpus = project / "egs/birds", tmp_path / "corpus"
    shutil.copytree(ROOT / "conf", project / "conf")
    script = (recipe / "run.sh").read_text()
    own = script[script.index("prepare() {") : script.index("}\n", script.index("prepare() {")) + 2]
    (recipe / "run.sh").write_text(script.replace(own, PREPARE))
    corpus.mkdir()
    for part in ("train", "dev", "test"):
        (corpus / f"{part}.tsv").touch()

    def asked(status: int = 0, *options: str) -> str:
        found, output = run(recipe, "--scale", "paper", *options, BIRDS=str(corpus))
        assert found == status, output
        return (recipe / "asked").read_text().splitlines()[-1]

    every = "birds_train birds_dev birds_test"
    assert asked() == every
    assert asked(0, "--more_sets", "birds_a", "--test_sets", "birds_test birds_a") == "birds_a"
    shutil.rmtree(recipe / "data/birds_dev")
    (recipe / "broken").touch()
    assert asked(1) == "birds_dev"
    (recipe / "broken").unlink()
    shutil.rmtree(recipe / "data/birds_test")
    assert asked() == "birds_dev birds_test"  # the first may be of the attempt that failed
    (corpus / "dev.tsv").write_text("changed")
    (recipe / "broken").touch()
    assert asked(1) == every
    (recipe / "broken").unlink()
    assert asked() == every


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A corpus whose tables are sorted by what is said."""
    corpus = tmp_path / "it's a  corpus"
    write_audio(corpus / 'say "a"  b.wav')
    for part in ("train", "dev", "test"):
        lines = [f'say "a"  b.wav\tanna\t{n // 252}\n' for n in range(2520)]
        (corpus / f"{part}.tsv").write_text("".join(lines))
    return corpus


def test_a_part_of_a_table_is_an_even_sample(project, digits, tmp_path):
    options = ["--corpus", digits, "--name", "birds", "--task", "ac", "--out", tmp_path / "data"]
    status, output = prepare(project / "egs/birds", *options, "--size", "short")
    assert status == 0 and "birds_train: 1000 of 2520 utterances" in output
    data = DataDir.read(tmp_path / "data/birds_train")
    assert len(data) == 1000 and set(data["text"].values()) == set("0123456789")
    assert set(data["wav.scp"].values()) == {f'{digits}/say "a"  b.wav'}
    prepare(project / "egs/birds", *options, "--size", "long")
    whole = DataDir.read(tmp_path / "data/birds_train")
    assert data["text"].items() <= whole["text"].items()  # the same ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "dev.tsv: empty: write lines of AUDIO, SPEAKER, TEXT"),
        (b"\n\n", "dev.tsv: empty: write lines of AUDIO, SPEAKER, TEXT"),
        (b"caf\xe9.wav\tanna\tx\n", "dev.tsv:1: not UTF-8 (byte 0xe9): "),
        (b"a.wav\tanna\n", "dev.tsv:1: 'a.wav\\tanna': expected AUDIO, SPEAKER, TEXT with tabs"),
    ],
)
def test_tables_that_cannot_be_used_are_named(project, digits, tmp_path, content, message):
    (digits / "dev.tsv").write_bytes(content)
    options = ["--corpus", digits, "--name", "birds", "--task", "ac", "--out", tmp_path / "data"]
    status, output = prepare(project / "egs/birds", *options)
    assert status == 1 and message in output and output.count("error") == 1
    assert "Traceback" not in output


def test_a_task_that_is_unknown_is_a_file_to_write(project, digits, tmp_path):
    options = ["--corpus", digits, "--name", "birds", "--out", tmp_path / "data"]
    status, output = prepare(project / "egs/birds", *options, "--task", "bird_song")
    assert status == 1 and "unknown task 'bird_song': " in output
    assert "a new task is a file egs/RECIPE/conf/prompts/bird_song.yaml" in output


def test_files_whose_names_are_no_utf8_are_an_error_of_one_line(project, tmp_path):
    """The example of the guide, on a folder of Latin-1 names."""
    recipe, corpus = project / "egs/birds", tmp_path / "corpus"
    example = (ROOT / "egs/TEMPLATE/README.md").read_text().split("```python\n")[1].split("```")[0]
    (recipe / "local/prepare.py").write_text(example)
    for part in ("train", "dev", "test"):
        write_audio(corpus / part / "robin/a.wav")
    (corpus / "train/robin/a.wav").rename(corpus / "train/robin/caf\udce9.wav")
    options = ["--corpus", corpus, "--name", "birds", "--task", "ac", "--out", tmp_path / "data"]
    status, output = prepare(recipe, *options)
    assert status == 1 and "Traceback" not in output and output.count("\n") == 1
    assert "not encodable as UTF-8" in output and "rename the file" in output
