"""A copy of the recipes that runs with a fake Python, in a folder whose name has spaces."""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETS = {
    "train": "asr_clean_train ac_train",
    "dev": "ac_dev",
    "test": "asr_clean_test ac_test asr_noisy_test snv_test_real",
}


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
    env: dict[str, str] = field(default_factory=dict)

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
def recipes(tmp_path: Path) -> Recipes:
    root = tmp_path / "a folder [1]"
    for part in ("utils", "conf"):
        shutil.copytree(ROOT / part, root / part)
    (root / "pam").symlink_to(ROOT / "pam")
    for recipe in ("mini", "multitask"):
        (root / "egs" / recipe).mkdir(parents=True)
        for script in (ROOT / "egs" / recipe).glob("*.sh"):
            shutil.copy(script, root / "egs" / recipe)
    options = root / "utils/options.sh"  # on every machine the same number of processes
    text = re.sub(r"^nj= {2}", "nj=2 ", options.read_text(), flags=re.MULTILINE)
    text = re.sub(r"^(train|inference)_nj= {2}", r"\1_nj=1 ", text, flags=re.MULTILINE)
    options.write_text(text)
    run = root / "egs/mini/run.sh"
    run.write_text(re.sub(r'^(\w+)_sets=".*"', shorten, run.read_text(), flags=re.MULTILINE))
    env = {
        "CALLS": str(tmp_path / "calls"),
        "PIDS": str(tmp_path / "pids"),
        "PAM_CACHE": str(tmp_path / "the cache"),
        "SETS": " ".join(name for names in SETS.values() for name in names.split()),
        # Wherever these tests run, verbs start as fast as a user's do: compiled once.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(tmp_path.parent / "pycache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return Recipes(root, env)
