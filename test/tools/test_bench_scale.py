"""The measurement of scale: that it measures every step, and fails where memory is too much."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from pam.data.datadir import DataDir  # noqa: E402
from pam.errors import PamError  # noqa: E402
from tools import bench_scale  # noqa: E402


@pytest.mark.parametrize("rate", [16000, 8000])
def test_every_step_is_measured(tmp_path, rate):
    # On its own: a child starts with the memory of the process that forks it, here all of pytest's.
    command = [sys.executable, bench_scale.__file__, "--counts", "30", "--out", str(tmp_path)]
    command += ["--rate", str(rate)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[1] for row in rows] == ["write", "validate", "dump", "validate dumped", "combine"]
    assert all(float(row[3]) > 0 and float(row[5].rstrip(" |")) > 5 for row in rows)
    assert len(DataDir.read(tmp_path / "30/dump/combined/train")) == 30
    assert len(DataDir.read(tmp_path / "30/data/set")["wav.scp"]) == 1
    assert len(list((tmp_path / "30/dump").rglob("*.flac"))) == (30 if rate == 8000 else 0)


def test_the_parts_of_the_start_of_training(tmp_path, capsys):
    options = ["--tables", "--counts", "40", "--out", str(tmp_path)]
    assert bench_scale.main([*options, "--max_megabytes", "10000"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    steps = [row[1] for row in rows]
    assert steps[:3] == ["write", "combine", "validate"] and steps[-1] == bench_scale.START
    assert {"data_digest", "training_set", "batches of epoch 50"} < set(steps)
    assert len(DataDir.read(tmp_path / "40/dump/combined/train")) == 40


def test_too_much_memory_is_a_failure(monkeypatch, capsys):
    measured = bench_scale.Measured(7, "dump", 1.0, 1.0, 1700.0)
    monkeypatch.setattr(bench_scale, "measure", lambda count, step, command: [measured])
    assert bench_scale.main(["--counts", "7"]) == 1
    assert "error: dump of 7: 1700 MB" in capsys.readouterr().err


def test_a_step_that_fails_is_named():
    command = [sys.executable, "-c", "print('error: why'); raise SystemExit(1)"]
    with pytest.raises(PamError, match="dump of 5 utterances failed: error: why"):
        bench_scale.measure(5, "dump", command)
