"""utils/slurm.py with stand-ins for sbatch, srun and scancel: it waits, shows failures, cancels."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from processes import is_running, wait_for

ROOT = Path(__file__).resolve().parents[2]
SLURM = [sys.executable, str(ROOT / "utils/slurm.py")]
SBATCH = """#!{python}
import os, subprocess, sys
from pathlib import Path

options = dict(arg.removeprefix("--").partition("=")[::2] for arg in sys.argv[1:-1])
Path("submitted").write_text("\\n".join(sys.argv[1:]))
Path(options["job-name"]).write_text(str(os.getpid()))
os.setpgid(0, 0)
assert options["open-mode"] == "append" and "wait" in options
numbers, _, _most = options.get("array", "").partition("%")
status = 0
for number in numbers.split(","):
    name = options["output"].replace("%a", number).replace("%%", "%")
    env = os.environ | ({{"SLURM_ARRAY_TASK_ID": number}} if number else {{}})
    with open(name, "a") as log:
        done = subprocess.run(["bash", sys.argv[-1]], env=env, stdout=log, stderr=log)
    status = max(status, done.returncode)
sys.exit(status)
"""
SRUN = """#!/bin/sh
echo "srun $1 with $SRUN_CPUS_PER_TASK cores" >> asked
shift
exec "$@"
"""
SCANCEL = """#!/bin/sh
echo "$@" >> cancelled
kill -TERM "-$(cat "${1#--name=}")" 2>/dev/null
"""


@pytest.fixture
def cluster(tmp_path):
    """A folder to work in, and the environment of a machine with Slurm."""
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scancel", SCANCEL)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text.format(python=sys.executable) if name == "sbatch" else text)
        program.chmod(0o755)
    return tmp_path, os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def slurm(cluster, *args):
    folder, env = cluster
    done = subprocess.run([*SLURM, *args], cwd=folder, env=env, capture_output=True, text=True)
    submitted = folder / "submitted"
    flags = submitted.read_text().splitlines() if submitted.exists() else []
    return done.returncode, done.stdout, done.stderr, flags


def test_a_single_job_is_shown_and_its_options_are_flags(cluster):
    folder, _ = cluster
    words = ["a b", "$(touch hacked)", "'", '"', "`touch hacked`", "*", "", "a\nb", "%a", "é"]
    options = ["--gpu", "2", "--mem=32G", "--time", "1:00:00", "--num_threads", "4"]
    log = "log of 100%/x y.log"
    status, shown, errors, flags = slurm(
        cluster, *options, log, sys.executable, "-c", "import sys; print(sys.argv[1:])", *words
    )
    assert (status, errors) == (0, "")
    assert str(words) in shown and shown == (folder / log).read_text()
    assert not (folder / "hacked").exists() and not (folder / "cancelled").exists()
    assert flags[:6] == [
        *("--export=ALL", "--gpus-per-node=2", "--mem=32G", "--time=1:00:00"),
        *("--cpus-per-task=4", "--wait"),
    ]
    assert slurm(cluster, log, "true")[3][:2] == ["--export=ALL", "--wait"]
    assert str(words) in (folder / log).read_text()  # logs are appended to


def test_numbered_jobs_are_an_array(cluster):
    folder, _ = cluster
    command = ["echo", "part {JOB} of 3"]
    status, shown, _, flags = slurm(cluster, "--gpus", "2", "JOB=1:3", "log/x.{JOB}.log", *command)
    assert (status, shown) == (0, "")
    assert "--array=1,2,3%2" in flags and "--gpus-per-node=1" in flags
    for job in "123":
        assert f"\npart {job} of 3\n" in (folder / f"log/x.{job}.log").read_text()


def test_a_failure_prints_the_end_of_its_log(cluster):
    command = ["bash", "-c", 'echo "the reason"; exit $(({JOB} == 2 ? 7 : 0))']
    status, _, errors, _ = slurm(cluster, "JOB=1:3", "x.{JOB}.log", *command)
    assert status == 7
    assert errors.startswith("error: failed with status 7: bash -c ")
    assert "  | the reason\n" in errors and errors.endswith("  log: x.2.log\n")


def test_several_machines_run_it_once_each(cluster):
    cluster[1]["SLURM_CPUS_PER_TASK"] = "6"  # as sbatch sets it
    status, shown, _, flags = slurm(cluster, "--num_nodes", "2", "x.log", "echo", "hi")
    assert status == 0 and "\nhi\n" in shown
    assert "--nodes=2" in flags and "--ntasks-per-node=1" in flags
    asked = (cluster[0] / "asked").read_text()
    assert asked == "srun --kill-on-bad-exit=1 with 6 cores\n"


def test_ending_it_cancels_the_job(cluster):
    folder, env = cluster
    job = "trap 'touch tidy; exit 143' TERM; echo $$ > ready; while true; do sleep 0.05; done"
    process = subprocess.Popen([*SLURM, "x.log", "bash", "-c", job], cwd=folder, env=env)
    assert wait_for(lambda: (folder / "ready").exists() and (folder / "ready").read_text(), 30)
    process.terminate()
    assert process.wait(30) == 143
    assert (folder / "cancelled").read_text().startswith("--name=x-")
    assert wait_for(lambda: not is_running(int((folder / "ready").read_text())), 30)
    assert (folder / "tidy").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--memory", "1G", "x.log", "true"], "--memory: .*slurm.conf has only --partition --time"),
        (["--gpu"], "--gpu: needs a value"),
        (["x.log"], "expected a log file and a command"),
        (["JOB=a,b", "x.log", "true"], "JOB=a,b: expected numbers"),
        (["--config", "none.conf", "x.log", "true"], "none.conf: No such file"),
        (["--config", "bad.conf", "x.log", "true"], "bad.conf:1: expected command, default or opt"),
    ],
)
def test_mistakes_are_one_line(cluster, args, message):
    (cluster[0] / "bad.conf").write_text("optin gpu=* --gres=gpu:$0\n")
    status, _, errors, flags = slurm(cluster, *args)
    assert status == 1 and re.match(f"error: .*{message}", errors) and errors.count("\n") == 1
    assert flags == []


def test_a_configuration_like_kaldis(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "utils"))
    flags_of = runpy.run_path(str(ROOT / "utils/slurm.py"))["flags_of"]
    config = tmp_path / "slurm.conf"
    config.write_text(
        "command sbatch --export=PATH  # a comment\n"
        "option mem=* --mem-per-cpu $0\noption mem=0\n"
        "default gpu=0\noption gpu=0 -p cpu\noption gpu=* -p gpu --gres=gpu:$0 -c $0\n"
    )
    assert flags_of(config, {}) == ["sbatch", "--export=PATH", "-p", "cpu"]
    given = {"mem": "0", "gpu": "2"}
    assert shlex.join(flags_of(config, given)) == "sbatch --export=PATH -p gpu --gres=gpu:2 -c 2"
