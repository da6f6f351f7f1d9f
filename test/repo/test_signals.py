"""Signals reach what a recipe runs: utils/run.py passes them on, utils/slurm_requeue.sh too."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from processes import is_running, wait_for

ROOT = Path(__file__).resolve().parents[2]
RUN = ["python3", str(ROOT / "utils/run.py")]
# A job that ends tidily, as training does, when it is asked to.
TIDY = "trap 'touch tidy; exit {status}' {name}; touch ready; while true; do sleep 0.05; done"


def ready(folder):
    assert wait_for(lambda: (folder / "ready").exists(), 30)


@pytest.mark.parametrize(
    ("sent", "received"),
    [("TERM", "TERM"), ("USR1", "USR1"), ("INT", "TERM"), ("HUP", "TERM")],
)
def test_a_job_may_end_tidily(tmp_path, sent, received):
    job = TIDY.format(name=received, status=7)
    process = subprocess.Popen([*RUN, "x.log", "bash", "-c", job], cwd=tmp_path)
    ready(tmp_path)
    number = signal.Signals[f"SIG{sent}"]
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert (tmp_path / "tidy").exists()


def test_a_second_signal_ends_a_job_that_does_not(tmp_path):
    job = "trap '' TERM; echo $$ > ready; while true; do sleep 0.05; done"
    process = subprocess.Popen([*RUN, "x.log", "bash", "-c", job], cwd=tmp_path)
    assert wait_for(lambda: (tmp_path / "ready").exists() and (tmp_path / "ready").read_text(), 30)
    child = int((tmp_path / "ready").read_text())
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    assert is_running(child)
    process.terminate()
    assert process.wait(30) == 143
    assert wait_for(lambda: not is_running(child), 30)


def test_a_job_that_a_signal_ended_is_no_error(tmp_path):
    command = [*RUN, "x.log", "bash", "-c", "exit 143"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        143,
        "stopped by a signal: the same command resumes\n",
    )


@pytest.mark.parametrize(
    ("name", "status", "queued"), [("USR1", 138, True), ("TERM", 143, True), ("USR1", 3, False)]
)
def test_a_batch_job_is_queued_again(tmp_path, name, status, queued):
    """The recipe waits for utils/run.py; `scontrol` writes down what it is given."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/queued'\n")
    scontrol.chmod(0o755)
    (tmp_path / "job.sh").write_text(TIDY.format(name=name, status=status) + "\n")
    recipe = tmp_path / "a recipe.sh"
    given = " ".join(RUN)
    recipe.write_text(f'set -e\n{given} x.log bash job.sh "$1" || exit {status}\necho "not here"\n')
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "42"}
    command = [ROOT / "utils/slurm_requeue.sh", "bash", recipe, "some words"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    ready(tmp_path)
    process.send_signal(signal.Signals[f"SIG{name}"])
    assert process.wait(60) == status
    assert (tmp_path / "tidy").exists() and (tmp_path / "queued").exists() == queued
    if queued:
        assert (tmp_path / "queued").read_text() == "requeue 42\n"
