"""The types of what programs use are right: mypy on the public modules."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = ("__init__", "errors", "decode/answer", "decode/api", "decode/audio_input")
PUBLIC += ("decode/question", "decode/stream", "serve/subtitles")
OPTIONS = ("--strict", "--follow-imports=silent", "--ignore-missing-imports")
# jaxtyping's types are Any where mypy follows no imports.
OPTIONS += ("--disable-error-code=misc", "--allow-untyped-calls", "--cache-dir")


def test_mypy(tmp_path):
    files = [str(ROOT / "pam" / f"{name}.py") for name in PUBLIC]
    command = [sys.executable, "-m", "mypy", *OPTIONS, str(tmp_path), *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
