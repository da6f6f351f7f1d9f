#!/usr/bin/env python3
"""Run one command, or several numbered ones, as a batch job of Slurm, and wait for it.

    slurm.py [OPTION...] LOG COMMAND...                        one job; its log is also shown
    slurm.py [OPTION...] JOB=1:8 LOG.{JOB} COMMAND {JOB}...    numbered jobs: an array

The options are those of conf/slurm.conf, such as --gpu 1 --mem 32G --time 8:00:00; --config FILE is
another such file. --max_jobs_run N limits the jobs that run at once. --parallel and --gpus are
those of utils/run.py: --gpus G gives each job one GPU, and runs G at once.

On several machines (--num_nodes N), srun starts the command once on each. The batch script is
written next to the log. If a job fails, the end of its log is printed when all have ended. Ending
this program (or what started it) cancels the job. Standard library only.
"""

import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from run import LINES_OF_A_FAILURE, STOPPED, asked, end_with_starter, parse_jobs

CONFIG = Path(__file__).resolve().parents[1] / "conf" / "slurm.conf"
POLL_SECONDS = 0.5
OWN = ("config", "max_jobs_run", "parallel", "gpus")  # options that are not those of the file
SCRIPT = """#!/usr/bin/env bash
# srun does not take the cores of a task from sbatch by itself.
[[ -z ${{SLURM_CPUS_PER_TASK-}} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
case ${{SLURM_ARRAY_TASK_ID:-1}} in
{cases}
esac
echo "# $(date), $(hostname): ${{command[*]@Q}}"
"${{command[@]}}" &
started=$!
for name in TERM USR1; do
    trap "kill -$name $started" "$name"
done
status=0
wait "$started" || status=$?
while kill -0 "$started" 2>/dev/null; do # a signal ended only the waiting
    status=0
    wait "$started" || status=$?
done
echo "{mark}$status at $(date)"
exit "$status"
"""
MARK = "# Ended with status "


class Mistake(Exception):
    """What the user must correct, in one line."""


def flags_of(config: Path, given: dict[str, str]) -> list[str]:
    """The command that submits, with the flags of the options; its file is like Kaldi's queue.conf.

    Lines: `command SBATCH FLAG...`, `default NAME=VALUE`, `option NAME=VALUE FLAG...`, and
    `option NAME=* FLAG...`, in which $0 is the value.
    """
    command, values, known = ["sbatch"], {}, {}
    for number, line in enumerate(config.read_text(encoding="utf-8").splitlines(), 1):
        kind, *words = shlex.split(line, comments=True) or [""]
        if kind == "command":
            command = words
        elif kind in ("default", "option") and words and "=" in words[0]:
            name, _, value = words[0].partition("=")
            known.setdefault(name, {})
            if kind == "default":
                values[name] = value
            else:
                known[name][value] = words[1:]
        elif kind:
            raise Mistake(f"{config}:{number}: expected command, default or option: {line}")
    if unknown := [name for name in given if name not in known]:
        names = " ".join(f"--{name}" for name in known)
        raise Mistake(f"--{unknown[0]}: {config} has only {names}")
    for name, value in (values | given).items():
        found = known[name].get(value, known[name].get("*"))
        if found is None:
            raise Mistake(f"--{name} {value}: {config} has no line for it")
        command = command + [word.replace("$0", value) for word in found]
    return command


def batch_script(commands: dict[str, list[str]]) -> str:
    """The script of all jobs: each number has its own command."""
    cases = [f"{job}) command=({shlex.join(words)}) ;;" for job, words in commands.items()]
    return SCRIPT.format(cases="\n".join(cases), mark=MARK)


class Log:
    """The log of a job, and the part of it that was there before or has been shown."""

    def __init__(self, path: str):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.start = self.shown = self.path.stat().st_size if self.path.exists() else 0

    def since(self, place: int) -> bytes:
        if not self.path.exists():
            return b""
        with self.path.open("rb") as log:
            log.seek(place)
            return log.read()

    def follow(self) -> None:
        gained = self.since(self.shown)
        self.shown += len(gained)
        sys.stdout.buffer.write(gained)
        sys.stdout.buffer.flush()

    def lines(self) -> list[str]:
        return self.since(self.start).decode(errors="replace").splitlines()

    def succeeded(self) -> bool:
        return any(line.startswith(f"{MARK}0 ") for line in self.lines())


def run(submit: Sequence[str], name: str, logs: dict[str, Log], commands: dict[str, list[str]]):
    """Submit, wait, and show the log of a single job; the status."""
    alone = len(logs) == 1
    process = subprocess.Popen(submit, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None and not asked:
            time.sleep(POLL_SECONDS)
            if alone:
                next(iter(logs.values())).follow()
    finally:
        if process.returncode != 0:  # also if a signal ends this program
            subprocess.run(["scancel", f"--name={name}"], check=False)
            process.terminate()
    if asked:
        return 128 + asked[0]
    if alone:
        next(iter(logs.values())).follow()
    if process.returncode in STOPPED:
        print("stopped by a signal: the same command resumes", file=sys.stderr)
    elif process.returncode != 0:
        explain(process.returncode, logs, commands)
    return process.returncode


def explain(status: int, logs: dict[str, Log], commands: dict[str, list[str]]) -> None:
    """Print the end of the log of the first job that did not succeed."""
    failed = next((job for job, log in logs.items() if not log.succeeded()), None)
    if failed is None:
        print(f"error: sbatch failed with status {status}, its jobs did not", file=sys.stderr)
        return
    print(f"error: failed with status {status}: {shlex.join(commands[failed])}", file=sys.stderr)
    if len(logs) > 1:
        for line in logs[failed].lines()[-LINES_OF_A_FAILURE:]:
            print(f"  | {line}", file=sys.stderr)
    print(f"  log: {logs[failed].path}", file=sys.stderr)


def read_options(args: list[str]) -> tuple[dict[str, str], str, list[str]]:
    """Options by name, the numbers of the jobs ("" for a single one), log and command."""
    given, jobs = {}, ""
    while args and (args[0].startswith("--") or args[0].startswith("JOB=")):
        if args[0].startswith("JOB="):
            jobs, args = args[0].removeprefix("JOB="), args[1:]
            continue
        name, equals, value = args[0].removeprefix("--").partition("=")
        if not equals:
            if len(args) < 2:
                raise Mistake(f"--{name}: needs a value")
            value, args = args[1], args[1:]
        given[name], args = value, args[1:]
    return given, jobs, args


def plan(args: list[str]) -> tuple[list[str], str, dict[str, Log], dict[str, list[str]]]:
    """What to submit: the command of sbatch, the job's name, and each job's log and command."""
    given, numbers, rest = read_options(args)
    if len(rest) < 2 or rest[0] == "-":
        raise Mistake("expected a log file and a command: see the head of utils/slurm.py")
    own = {name: given.pop(name) for name in OWN if name in given}
    jobs = parse_jobs(numbers) if numbers else ["1"]
    if not all(job.isdigit() for job in jobs):
        raise Mistake(f"JOB={numbers}: expected numbers, such as JOB=1:8")
    if numbers and int(own.get("gpus", 0)):
        given.setdefault("gpu", "1")
    if int(given.get("num_nodes", 1)) > 1:
        rest = [rest[0], "srun", "--kill-on-bad-exit=1", *rest[1:]]
    filled = {job: [word.replace("{JOB}", job) for word in rest] for job in jobs}
    logs = {job: Log(words[0]) for job, words in filled.items()}
    commands = {job: words[1:] for job, words in filled.items()}
    name = f"{logs[jobs[0]].path.stem}-{uuid.uuid4().hex[:8]}"
    script = logs[jobs[0]].path.with_suffix(".sh")
    script.write_text(batch_script(commands), encoding="utf-8")
    output = rest[0].replace("%", "%%").replace("{JOB}", "%a")
    submit = flags_of(Path(own.get("config", CONFIG)), given)
    submit += ["--wait", f"--job-name={name}", "--open-mode=append", f"--output={output}"]
    if numbers:
        most = own.get("max_jobs_run") or own.get("parallel") or own.get("gpus")
        submit.append(f"--array={','.join(jobs)}" + (f"%{most}" if int(most or 0) else ""))
    return [*submit, str(script)], name, logs, commands


def main() -> int:
    if not end_with_starter():
        return 1
    try:
        return run(*plan(sys.argv[1:]))
    except (Mistake, ValueError) as mistake:
        print(f"error: {mistake}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
