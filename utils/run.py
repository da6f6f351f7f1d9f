#!/usr/bin/env python3
"""Run one command, or several in parallel, each with a log file; say why when one fails.

    run.py LOG COMMAND...                                      one job; its log is also shown
    run.py [--parallel N] JOB=1:8 LOG.{JOB} COMMAND {JOB}...   numbered jobs
    run.py [--parallel N] JOB=a,b,c LOG.{JOB} COMMAND {JOB}... named jobs
    run.py --gpus G …                                          G GPUs for the jobs

With --gpus every job sees one GPU (CUDA_VISIBLE_DEVICES): of those that this program may see, the
one with the fewest jobs.
`-` for LOG lets a single job write to the terminal. On failure the other jobs are stopped and the
end of the failing log is printed. Ending this program (or what started it) ends the jobs with all
their children: it passes SIGTERM or SIGUSR1 on, or SIGTERM for Ctrl-C, and kills what still runs
GRACE_SECONDS later, or at a second signal. Training writes a checkpoint in that time. Standard
library only: it runs before anything is installed.
"""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
LINES_OF_A_FAILURE = 20
POLL_SECONDS = 0.2
GRACE_SECONDS = 60
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGUSR1)  # statuses of a training that a signal ended


class Stopped(BaseException):
    """A signal asks this program to end."""

    def __init__(self, number: int):
        self.number = number


def die_with_parent(number: int) -> None:
    """Ask Linux to send signal `number` to this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def groups_below(ancestor: int) -> set[int]:
    """The process groups of all descendants: if a recipe runs another one, there are several."""
    parents, groups = {}, {}
    for process in Path("/proc").iterdir():
        # A process may end at any moment; a glob of its files looks at them outside `suppress`.
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                parents[int(process.name)], groups[int(process.name)] = map(int, fields[1:3])
    below = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return {groups[pid] for pid in below if pid in groups}


def parse_jobs(text: str) -> list[str]:
    """`1:3` gives 1, 2, 3; `a,b` gives a, b."""
    first, colon, last = text.partition(":")
    if colon and first.isdigit() and last.isdigit():
        return [str(n) for n in range(int(first), int(last) + 1)]
    return text.split(",")


class Job:
    """A running command: its process group, its log, and the part of the log already shown."""

    def __init__(self, log: str, command: list[str], show: bool, gpu: str | None):
        self.log, self.command, self.show, self.shown, self.gpu = log, command, show, 0, gpu
        sees = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        output = None
        if log != "-":
            Path(log).parent.mkdir(parents=True, exist_ok=True)
            output = Path(log).open("ab")  # noqa: SIM115  # for the life of the job
            words = [*(f"{name}={value}" for name, value in sees.items()), shlex.join(command)]
            output.write(f"# {' '.join(words)}\n# {time.ctime()}\n".encode())
            output.flush()
            self.shown = output.tell()
        self.process = subprocess.Popen(
            command,
            env=os.environ | sees,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )

    def follow(self) -> None:
        """Copy new log lines to the terminal."""
        if not self.show or self.log == "-":
            return
        with Path(self.log).open("rb") as log:
            log.seek(self.shown)
            gained = log.read()
        self.shown += len(gained)
        sys.stdout.buffer.write(gained)
        sys.stdout.buffer.flush()

    def ask(self, number: int) -> None:
        """Pass a signal on to the job itself."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGUSR1 if number == signal.SIGUSR1 else signal.SIGTERM)

    def kill(self) -> None:
        """End the job and all processes that it started, even if the job itself has ended."""
        for group in {self.process.pid, *groups_below(self.process.pid)}:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def explain(self) -> None:
        status = self.process.returncode
        if status in STOPPED:
            print("stopped by a signal: the same command resumes", file=sys.stderr)
            return
        how = f"signal {-status}" if status < 0 else f"status {status}"
        print(f"error: failed with {how}: {shlex.join(self.command)}", file=sys.stderr)
        if self.log == "-":
            return
        if not self.show:
            lines = Path(self.log).read_text(encoding="utf-8", errors="replace").splitlines()
            print("\n".join("  | " + line for line in lines[-LINES_OF_A_FAILURE:]), file=sys.stderr)
        print(f"  log: {self.log}", file=sys.stderr)


def visible_gpus(count: int) -> list[str]:
    """The names of `count` GPUs, from CUDA_VISIBLE_DEVICES if it is set."""
    if not count:
        return []
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(n) for n in range(count)] if allowed is None else allowed.split(",")
    names = [name.strip() for name in names if name.strip()]
    if len(names) < count:
        print(
            f"error: {count} GPUs are requested, CUDA_VISIBLE_DEVICES={allowed} has {len(names)}",
            file=sys.stderr,
        )
        sys.exit(1)
    return names[:count]


def run(pending: list[tuple[str, list[str]]], parallel: int, gpus: list[str]) -> int:
    """Run the jobs, at most `parallel` at a time; the status of the first that fails, or 0."""
    show = len(pending) == 1
    running: list[Job] = []
    pause = POLL_SECONDS / 64  # short jobs are common: do not keep them waiting
    try:
        while pending or running:
            while pending and len(running) < parallel:
                log, command = pending.pop(0)
                used = [job.gpu for job in running]
                gpu = min(gpus, key=used.count) if gpus else None
                running.append(Job(log, command, show, gpu))
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS)
            for job in list(running):
                ended = job.process.poll() is not None
                job.follow()
                if not ended:
                    continue
                running.remove(job)
                job.kill()
                if job.process.returncode != 0:
                    job.explain()
                    return job.process.returncode if job.process.returncode > 0 else 1
    except Stopped as stopped:
        wait_for(running, stopped.number)
        raise
    finally:
        for job in running:
            job.kill()
    return 0


def wait_for(jobs: list[Job], number: int) -> None:
    """Pass a signal on to the jobs and give them time to end."""
    for job in jobs:
        job.ask(number)
    end = time.monotonic() + GRACE_SECONDS
    with contextlib.suppress(Stopped):  # a second signal
        while time.monotonic() < end and any(job.process.poll() is None for job in jobs):
            time.sleep(POLL_SECONDS / 4)
    for job in jobs:
        job.follow()


def end_with_starter() -> bool:
    """Raise Stopped at a signal, and at the end of what started this program; False if that has
    ended already."""

    def stop(number: int, _frame: object) -> None:
        raise Stopped(number)

    for number in SIGNALS:
        signal.signal(number, stop)
    parent = os.getppid()
    die_with_parent(signal.SIGTERM)
    return os.getppid() == parent


def main() -> int:
    args = sys.argv[1:]
    parallel, gpus, jobs = None, 0, [""]
    while args and (args[0] in ("--parallel", "--gpus") or args[0].startswith("JOB=")):
        if args[0] == "--parallel":
            parallel, args = max(1, int(args[1])), args[2:]
        elif args[0] == "--gpus":
            gpus, args = int(args[1]), args[2:]
        else:
            jobs, args = parse_jobs(args[0].removeprefix("JOB=")), args[1:]
    if len(args) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    if not end_with_starter():
        return 1
    pending: list[tuple[str, list[str]]] = []
    for job in jobs:
        log, *command = [arg.replace("{JOB}", job) for arg in args]
        pending.append((log, command))
    try:
        return run(pending, parallel or len(jobs), visible_gpus(gpus))
    except Stopped as stopped:
        return 128 + stopped.number
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
