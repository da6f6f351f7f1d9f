"""utils/run.py, the launcher: logs, parallel jobs, failures that are shown, nothing left behind."""

import errno
import os
import runpy
import subprocess
from pathlib import Path

import pytest
from processes import is_running, wait_for

ROOT = Path(__file__).resolve().parents[2]


def run(*args: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    command = ["python3", ROOT / "utils/run.py", *args]
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    pipe = subprocess.PIPE
    return subprocess.run(
        command, cwd=cwd, stdout=pipe, stderr=pipe, text=True, timeout=300, env=env | variables
    )


def test_one_job_is_logged_and_shown(tmp_path):
    done = run("a log/x.log", "echo", "some  words", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "some  words\n")
    log = (tmp_path / "a log/x.log").read_text()
    assert log.startswith("# echo 'some  words'\n") and log.endswith("some  words\n")
    run("a log/x.log", "echo", "again", cwd=tmp_path)
    assert (tmp_path / "a log/x.log").read_text().startswith(log)


def test_jobs_are_numbered_or_named(tmp_path):
    assert run("JOB=2:4", "{JOB}.log", "echo", "job={JOB}", cwd=tmp_path).stdout == ""
    assert run("JOB=x,y", "{JOB}.log", "echo", "JOB {JOB}", cwd=tmp_path).returncode == 0
    logs = {file.stem: file.read_text().splitlines()[-1] for file in tmp_path.glob("*.log")}
    assert logs == {"2": "job=2", "3": "job=3", "4": "job=4", "x": "JOB x", "y": "JOB y"}


@pytest.mark.parametrize(("parallel", "most"), [("2", 2), ("9", 4)])
def test_so_many_at_a_time(tmp_path, parallel, most):
    script = "touch on.{JOB}; sleep 0.2; ls on.* | wc -l; sleep 0.2; rm on.{JOB}"
    run("--parallel", parallel, "JOB=1:4", "{JOB}.log", "bash", "-c", script, cwd=tmp_path)
    counts = [int(file.read_text().splitlines()[-1]) for file in tmp_path.glob("*.log")]
    assert len(counts) == 4 and 1 <= max(counts) <= most


@pytest.mark.parametrize(
    ("gpus", "jobs", "allowed", "expected"),
    [
        ("3", "1:3", {}, "012"),
        ("2", "1:4", {}, "0011"),
        ("2", "1:2", {"CUDA_VISIBLE_DEVICES": "5,3,7"}, "35"),
        ("1", "1:1", {"CUDA_VISIBLE_DEVICES": "GPU-6a"}, ["GPU-6a"]),
    ],
)
def test_every_job_sees_one_gpu(tmp_path, gpus, jobs, allowed, expected):
    script = "echo $CUDA_VISIBLE_DEVICES; touch on.{JOB}; while ! [ -f on.$1 ]; do sleep 0.05; done"
    last = jobs.partition(":")[2]  # all of them run at the same time
    command = ["bash", "-c", script, "-", last]
    run("--gpus", gpus, f"JOB={jobs}", "{JOB}.log", *command, cwd=tmp_path, **allowed)
    logs = [file.read_text().splitlines() for file in tmp_path.glob("*.log")]
    assert sorted(log[-1] for log in logs) == list(expected)
    assert all(log[0].startswith(f"# CUDA_VISIBLE_DEVICES={log[-1]} bash -c") for log in logs)


def test_a_gpu_that_is_free_again_is_taken(tmp_path):
    """Two jobs at a time on two GPUs: the third takes that of the one that ended."""
    wait = "[ {JOB} != 1 ] || while ! [ -f 4.on ]; do sleep 0.05; done"
    script = f"echo $CUDA_VISIBLE_DEVICES; {wait}; touch {{JOB}}.on"
    options = ["--gpus", "2", "--parallel", "2", "JOB=1:4", "{JOB}.log"]
    run(*options, "bash", "-c", script, cwd=tmp_path)
    seen = {file.stem: file.read_text().splitlines()[-1] for file in tmp_path.glob("*.log")}
    assert seen == {"1": "0", "2": "1", "3": "1", "4": "1"}


def test_without_gpus_jobs_see_what_the_caller_sees(tmp_path):
    for variables, seen in (({}, "unset"), ({"CUDA_VISIBLE_DEVICES": "4"}, "4")):
        options = ["--gpus", "0", "x.log", "bash", "-c", "echo ${CUDA_VISIBLE_DEVICES-unset}"]
        assert run(*options, cwd=tmp_path, **variables).stdout == f"{seen}\n"


def test_more_gpus_than_are_allowed(tmp_path):
    done = run("--gpus", "3", "x.log", "true", cwd=tmp_path, CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 1 and not (tmp_path / "x.log").exists()
    assert done.stderr == "error: 3 GPUs are requested, CUDA_VISIBLE_DEVICES=0,1 has 2\n"


def test_a_failure_shows_its_reason_and_stops_the_others(tmp_path):
    # Longer than `run` waits for: were the others not stopped, it would fail.
    script = "if [ {JOB} = 2 ]; then echo the reason; exit 7; else sleep 1000; fi"
    done = run("JOB=1:3", "{JOB}.log", "bash", "-c", script, cwd=tmp_path)
    assert done.returncode == 7
    assert "failed with status 7" in done.stderr and "  | the reason" in done.stderr
    assert "log: 2.log" in done.stderr


def test_a_command_that_cannot_start_is_a_plain_error(tmp_path):
    done = run("x.log", "no-such-command", cwd=tmp_path)
    assert done.returncode == 1
    assert "no-such-command" in done.stderr and "Traceback" not in done.stderr


def test_a_process_that_ends_while_it_is_looked_at_is_passed_over(monkeypatch):
    """Linux answers "no such process" for the files of one that has just ended."""
    launcher = runpy.run_path(str(ROOT / "utils/run.py"), run_name="launcher")
    read, stat = Path.read_text, Path.stat

    def ended(method):
        def answer(path, *args, **kwargs):
            if str(path).startswith("/proc/1/"):
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), str(path))
            return method(path, *args, **kwargs)

        return answer

    monkeypatch.setattr(Path, "read_text", ended(read))
    monkeypatch.setattr(Path, "stat", ended(stat))
    with subprocess.Popen(["sleep", "1000"]) as child:
        assert launcher["descendants"]()[child.pid] == os.getpid()
        child.kill()


def test_what_a_job_left_behind_is_ended(tmp_path):
    run("x.log", "bash", "-c", "sleep 1000 & echo $!", cwd=tmp_path)
    pid = int((tmp_path / "x.log").read_text().splitlines()[-1])
    assert wait_for(lambda: not is_running(pid))


def test_without_a_command_it_explains_itself(tmp_path):
    done = run("x.log", cwd=tmp_path)
    assert done.returncode == 2 and "run.py LOG COMMAND" in done.stderr


@pytest.mark.parametrize(
    ("options", "venv", "message"),
    [
        (["--tests"], "", "error: --tests: unknown"),
        ([], "/no/such/place", "error: PAM_VENV=/no/such/place: there is no bin/python3"),
    ],
)
def test_install_refuses_what_it_cannot_use(options, venv, message):
    process = subprocess.run(
        [ROOT / "tools/install.sh", *options],
        env=os.environ | {"PAM_VENV": venv},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1 and process.stderr.startswith(message)


def test_install_takes_an_environment_as_it_is(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to("/bin/true")
    env = os.environ | {"PAM_VENV": str(tmp_path)}
    done = subprocess.run([ROOT / "tools/install.sh"], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
