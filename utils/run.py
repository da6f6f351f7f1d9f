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
GRACE_SECONDS later, or at a second Ctrl-C. Training writes a checkpoint in that time. Standard
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

PR_SET_PDEATHSIG = 1  # a signal to this process when its parent ends
PR_SET_CHILD_SUBREAPER = 36  # what a job leaves behind becomes a child of this process
LINES_OF_A_FAILURE = 20
POLL_SECONDS = 0.2
GRACE_SECONDS = 60
KILL_SECONDS = 5  # Linux cannot kill a process that waits for a disk
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGUSR1)  # statuses of a training that a signal ended


asked: list[int] = []  # the signals that asked this program to end, in their order


def ask_to_end(number: int, _frame: object) -> None:
    """Note a signal. It raises nothing: several arrive together when a shell above ends."""
    asked.append(number)


def end_with_starter() -> bool:
    """Note signals in `asked`, and the end of what started this program; False if that has ended
    already."""
    for number in SIGNALS:
        signal.signal(number, ask_to_end)
    parent = os.getppid()
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


def prctl(option: int, value: int) -> None:
    """Change how Linux treats this process: see its manual."""
    ctypes.CDLL(None).prctl(option, value)


def descendants() -> dict[int, int]:
    """The processes below this one that still run, each with its parent."""
    parents, ended = {}, {os.getpid()}
    for process in Path("/proc").iterdir():
        # A process may end at any moment; a glob of its files looks at them outside `suppress`.
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent, *_ = (process / "stat").read_text().rpartition(")")[2].split()
                parents[int(process.name)] = int(parent)
                if state in "ZX":
                    ended.add(int(process.name))
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return {pid: parents[pid] for pid in below - ended}


def kill_descendants() -> None:
    """End all jobs with all that they started, even those that a job left behind."""
    end = time.monotonic() + KILL_SECONDS
    while (below := descendants()) and time.monotonic() < end:  # one may just start another
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS / 16)


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
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
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
        self.process.send_signal(signal.SIGUSR1 if number == signal.SIGUSR1 else signal.SIGTERM)

    def kill_group(self) -> None:
        """End what an ended job left behind, except in a session of its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

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
        while (pending or running) and not asked:
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
                job.kill_group()
                if job.process.returncode != 0:
                    job.explain()
                    return job.process.returncode if job.process.returncode > 0 else 1
        if asked:
            wait_for(running, asked[0])
            return 128 + asked[0]
    finally:
        kill_descendants()
    return 0


def wait_for(jobs: list[Job], number: int) -> None:
    """Pass a signal on to the jobs, and to what each leaves behind, and give them time to end."""
    for job in jobs:
        job.ask(number)
    told = {job.process.pid for job in jobs}
    end = time.monotonic() + GRACE_SECONDS
    while (below := descendants()) and time.monotonic() < end and signal.SIGINT not in asked[1:]:
        left = {pid for pid, parent in below.items() if parent == os.getpid()} - told
        told |= left
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        time.sleep(POLL_SECONDS / 4)
    for job in jobs:
        job.follow()


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
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    pending: list[tuple[str, list[str]]] = []
    for job in jobs:
        log, *command = [arg.replace("{JOB}", job) for arg in args]
        pending.append((log, command))
    try:
        return run(pending, parallel or len(jobs), visible_gpus(gpus))
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
