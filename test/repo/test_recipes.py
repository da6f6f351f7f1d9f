"""Every recipe's help and options; what is copied between recipes stays the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pam.bin import cli, data
from pam.config.made import PENDING, read_record

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.parent for path in ROOT.glob("egs/*/run.sh"))
SHARED = re.findall(r"^([a-z_]+)=", (ROOT / "utils/options.sh").read_text(), re.MULTILINE)


def run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("recipe", RECIPES, ids=name)
class TestRecipe:
    def test_help_documents_every_option(self, recipe):
        lines = run(recipe / "run.sh", "--help").splitlines()
        options = {line.split()[0]: line for line in lines if line.startswith("  --")}
        assert {f"--{option}" for option in SHARED} <= options.keys()
        for option, line in options.items():
            value = (
                ""
                if option in ("--config", "--print")
                else run(recipe / "run.sh", "--print", option.removeprefix("--")).strip()
            )
            assert line.strip() != f"{option} {value}".strip(), f"{option} has no comment"

    def test_is_its_variables(self, recipe):
        assert len((recipe / "run.sh").read_text().splitlines()) <= 60

    def test_has_what_every_recipe_has(self, recipe):
        for file in ("run.sh", "db.sh", "README.md"):
            assert (recipe / file).is_file(), f"{recipe / file} is missing"
        for file in ("path.sh", "cmd.sh"):  # these are in utils/ for all of them
            assert (ROOT / "utils" / file).is_file() and not (recipe / file).exists(), file
            assert f"/utils/{file}" in (recipe / "run.sh").read_text(), file

    def test_sets_of_options_are_options(self, recipe):
        for conf in (recipe / "conf").glob("*.conf"):
            run(recipe / "run.sh", "--config", f"conf/{conf.name}", "--print", "scale")

    def test_names_sets(self, recipe):
        joined = run(recipe / "run.sh", "--print", "corpora").split()
        sets = run(recipe / "run.sh", "--print", "train_sets").split()
        assert bool(joined) != bool(sets)
        assert all((ROOT / "egs" / corpus / "run.sh").is_file() for corpus in joined)


@pytest.mark.parametrize("verb", cli.programs())
def test_verbs_have_a_main(verb):
    text = (ROOT / f"pam/bin/{verb}.py").read_text(encoding="utf-8")
    assert "def main(argv: list[str] | None = None)" in text and "run_main(main)" in text


def test_what_says_that_all_is_complete_starts_at_once():
    """The verbs of the stages, and what resolves the options, import what they work with late."""
    verbs = ["recipe", "data", "dump", "combine", "train", "average", "decode", "score", "report"]
    code = (
        f"import sys; {'; '.join(f'import pam.bin.{verb}' for verb in verbs)}; print(*sys.modules)"
    )
    modules = run(sys.executable, "-c", code).split()
    assert not {"torch", "numpy", "transformers", "soundfile", "matplotlib"} & set(modules)


OF_THE_LAUNCHER = {"--gpus"}  # utils/run.py


def test_the_stages_use_options_that_the_verbs_have():
    """Of each function, and of the array of training options, those of the verbs that it names."""
    names = ("recipe", "table", "early_exit")
    stages = "".join((ROOT / f"utils/{name}.sh").read_text() for name in names)
    for options in ("machines", "training"):
        stages = stages.replace(f"{options}=(", "run train (")
    seen = set()
    for function in re.split(r"^(?=\w+\(\)|run)", stages, flags=re.MULTILINE):
        verbs = set(re.findall(r"(?:-m pam\.bin\.|\b(?:run|start|pending) )([a-z_]+)", function))
        verbs &= {file.stem for file in ROOT.glob("pam/bin/*.py")}  # not "run stage 4 first"
        known = set(OF_THE_LAUNCHER)
        for verb in verbs:
            source = (ROOT / f"pam/bin/{verb}.py").read_text(encoding="utf-8")
            known |= set(re.findall(r'"(--\w+)"', source))
            if "add_pending" in source:
                known.add("--pending")
            if "add_machines" in source:
                shared = (ROOT / "pam/train/processes.py").read_text(encoding="utf-8")
                known |= set(re.findall(r'"(--\w+)"', shared))
        if verbs:
            assert set(re.findall(r"(?<!\w)(--\w+)", function)) <= known, function
        seen |= verbs
    assert seen == {
        *("data", "dump", "combine", "train", "average", "decode", "score", "report"),
        *("analyse", "table", "extend", "exit_analysis"),
    }


@pytest.mark.parametrize("recipe", [r for r in RECIPES if (r / "local").is_dir()], ids=name)
def test_a_recipe_states_the_licence_of_its_corpus(recipe, tmp_path):
    """As its page does, and the record of its sets has it. Users state that of the template."""
    licence = run(recipe / "run.sh", "--print", "licence").strip()
    if recipe.name == "TEMPLATE":
        assert licence == ""
        return
    page = (recipe / "README.md").read_text()
    assert licence and (licence.partition(";")[0] in page or f"egs/{recipe.name}/README" in licence)
    (tmp_path / "a_train").mkdir()
    (tmp_path / "a_train/wav.scp").touch()
    data.main(["--out", str(tmp_path), "--sets", "a_train", "--licence", licence])
    assert read_record(tmp_path, "data")["licences"] == {"a_train": licence}


def test_a_licence_may_be_stated_after_the_preparation(tmp_path):
    """Sets that are not asked for now keep theirs, whatever is prepared again."""
    for name in ("a_train", "a_test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wav.scp").touch()
    both = ["--out", str(tmp_path), "--sets", "a_train", "a_test"]
    data.main(both)
    assert "licences" not in read_record(tmp_path, "data")
    assert data.main([*both[:-1], "--licence", "CC0", "--pending"]) == 0
    assert data.main([*both, "--licence", "CC BY 4.0"]) == 0
    assert data.main([*both[:-1], "--licence", "CC0"]) == 0
    licences = {"a_train": "CC0", "a_test": "CC BY 4.0"}
    assert read_record(tmp_path, "data")["licences"] == licences
    with (tmp_path / ".lock").open("a") as lock:
        again = ["--out", str(tmp_path), "--sets", "a_dev", "--lock", str(lock.fileno())]
        assert data.main([*again, "--pending"]) == PENDING
    assert read_record(tmp_path, "data")["licences"] == licences
