"""A copy of the recipes that runs with a fake Python, in a folder whose name has spaces."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETS = {
    "train": "asr_clean_train ac_train",
    "dev": "ac_dev",
    "test": "asr_clean_test ac_test asr_noisy_test snv_test_real",
}


def rewrite(file: Path, pattern: str, by: str | Callable[[re.Match], str]) -> None:
    """Replace the lines that match; a file that has none has changed, and this one must too."""
    text, found = re.subn(pattern, by, file.read_text(), flags=re.MULTILINE)
    assert found, f"{file}: nothing matches {pattern!r}"
    file.write_text(text)


def shorten(assignment: re.Match) -> str:
    """Fewer sets: the tests are about the shell."""
    return f'{assignment[1]}_sets="{SETS[assignment[1]]}"'


def heed_hangup() -> None:
    """Whatever pytest inherited: a shell cannot trap a signal that was ignored when it started."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass
class Recipes:
    """Recipes of a copied project; `run` starts one, `calls` empties the list of verbs it ran."""

    root: Path
    env: dict[str, str]
    finished_of: Callable[[str], "Recipes"]

    def finished(self, recipe: str, without: str = "") -> None:
        """As after a whole run, of which `calls` says nothing; `without` files of this name.

        The run was done once, elsewhere: a project may be moved.
        """
        done, cache = self.finished_of(recipe), "PAM_CACHE"
        ignored = shutil.ignore_patterns(without)
        shutil.copytree(done.root / "egs", self.root / "egs", ignore=ignored, dirs_exist_ok=True)
        shutil.copytree(done.env[cache], self.env[cache], dirs_exist_ok=True)

    def start(self, recipe: str, *options: str, **env: str) -> subprocess.Popen:
        fake = Path(__file__).with_name("fake_python.py")
        return subprocess.Popen(
            [self.root / "egs" / recipe / "run.sh", "--python", fake, *options],
            env=os.environ | self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_hangup,
        )

    def run(self, recipe: str, *options: str, **env: str) -> tuple[int, str]:
        """Status and output."""
        process = self.start(recipe, *options, **env)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def calls(self) -> list[str]:
        file = Path(self.env["CALLS"])
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def recipes(tmp_path: Path, finished_of: Callable[[str], Recipes]) -> Recipes:
    return copy_recipes(tmp_path, finished_of)


@pytest.fixture(scope="session")
def finished_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recipes]:
    """A recipe after a whole run, which the first test that asks starts."""

    @functools.cache
    def finished(recipe: str) -> Recipes:
        recipes = copy_recipes(tmp_path_factory.mktemp("finished"), finished)
        status, output = recipes.run(recipe)
        assert status == 0, output
        return recipes

    return finished


def copy_recipes(folder: Path, finished_of: Callable[[str], Recipes]) -> Recipes:
    root = folder / "a folder [1]"
    for part in ("utils", "conf"):
        shutil.copytree(ROOT / part, root / part)
    (root / "pam").symlink_to(ROOT / "pam")
    for recipe in ("mini", "multitask"):
        (root / "egs" / recipe).mkdir(parents=True)
        for script in (ROOT / "egs" / recipe).glob("*.sh"):
            shutil.copy(script, root / "egs" / recipe)
    options = root / "utils/options.sh"  # on every machine the same number of processes
    rewrite(options, r"^nj= {2}", "nj=2 ")
    rewrite(options, r"^(train|inference)_nj= {2}", r"\1_nj=1 ")
    rewrite(root / "egs/mini/run.sh", r'^(\w+)_sets=".*"', shorten)
    # The stand-in ends at once: nobody has to wait for it.
    rewrite(root / "utils/run.py", r"^POLL_SECONDS = 0\.2$", "POLL_SECONDS = 0.02")
    rewrite(root / "utils/table.sh", r"^( +)sleep 0\.5$", r"\1sleep 0.05")
    compiled = folder.parent / "pycache"
    env = {
        "CALLS": str(folder / "calls"),
        "PIDS": str(folder / "pids"),
        "PAM_CACHE": str(folder / "the cache"),
        "SETS": " ".join(name for names in SETS.values() for name in names.split()),
        # Wherever these tests run, verbs start as fast as a user's do: compiled once.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(compiled),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    # Python looks there by the name of a file. pam has another name in each copy, and is the same.
    (compiled / "pam").mkdir(parents=True, exist_ok=True)
    own = compiled / root.relative_to("/")
    own.mkdir(parents=True)
    (own / "pam").symlink_to(compiled / "pam")
    return Recipes(root, env, finished_of)
