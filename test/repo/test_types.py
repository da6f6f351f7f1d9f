"""The types of what programs use are right: mypy on the public modules."""

import subprocess
import sys
from pathlib import Path

from pam.lock import in_turn
from pam.paths import cache_dir

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = ("__init__", "errors", "decode/answer", "decode/api", "decode/audio_input")
PUBLIC += ("decode/question", "decode/stream", "serve/subtitles")
OPTIONS = ("--strict", "--follow-imports=silent", "--ignore-missing-imports")
# jaxtyping's types are Any where mypy follows no imports.
OPTIONS += ("--disable-error-code=misc", "--allow-untyped-calls", "--cache-dir")


def test_mypy():
    """What mypy found before stays in the user's cache: reading torch anew takes half a minute."""
    cache = cache_dir() / "mypy"
    cache.mkdir(parents=True, exist_ok=True)
    files = [str(ROOT / "pam" / f"{name}.py") for name in PUBLIC]
    command = [sys.executable, "-m", "mypy", *OPTIONS, str(cache), *files]
    with in_turn(cache):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
