"""Signals reach what a recipe runs: utils/run.py passes them on, utils/slurm_requeue.sh too."""

import os
import shlex
import signal
import subprocess
import time
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


def test_only_a_second_ctrl_c_ends_a_job_that_does_not(tmp_path):
    """A shell that ends sends SIGTERM a second time, and each launcher above sends one, too."""
    job = "trap '' TERM; echo $$ > ready; while true; do sleep 0.05; done"
    process = subprocess.Popen([*RUN, "x.log", "bash", "-c", job], cwd=tmp_path)
    assert wait_for(lambda: (tmp_path / "ready").exists() and (tmp_path / "ready").read_text(), 30)
    child = int((tmp_path / "ready").read_text())
    for _ in range(3):
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert is_running(child)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 143
    assert wait_for(lambda: not is_running(child), 30)


@pytest.mark.parametrize("second", ["TERM", "INT"])
def test_launchers_inside_launchers_leave_nothing_behind(tmp_path, second):
    """Whatever arrives while the inner one ends: what its job started ends, too."""
    job = "(trap '' HUP; setsid sleep 1000 & echo $! > pid); touch ready; sleep 1000"
    inner = f"{' '.join(RUN)} inner.log bash -c {shlex.quote(job)}; true"
    process = subprocess.Popen([*RUN, "x.log", "bash", "-c", inner], cwd=tmp_path)
    ready(tmp_path)
    pid = int((tmp_path / "pid").read_text())
    process.terminate()
    while process.poll() is None:
        process.send_signal(signal.Signals[f"SIG{second}"])
        time.sleep(0.001)
    assert process.returncode != 0
    assert wait_for(lambda: not is_running(pid), 30)


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
