"""Start the processes of a training, on one machine or several, with torchrun.

On several machines each runs the same command (`srun --nodes=2 --ntasks-per-node=1 …`). They meet
at one of them: the first of Slurm's job step, or that of `--master_addr`.

If a process dies, torchrun ends the others of its machine. Processes of other machines end as soon
as they notice the broken connection.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pam.device import cores
from pam.errors import PamError
from pam.log import get_logger
from pam.train.endings import LOST, USER_ERROR
from pam.train.signals import SECONDS_TO_SAVE, STOPPED

PORT = 29500  # torchrun's
JOB_PORTS = range(20_000, 30_000)  # each job of Slurm takes its own
SECONDS_TO_END = 30  # torchrun's, from SIGTERM to SIGKILL; a process that waits for NCCL needs it


def launch(
    module: str, argv: Sequence[str], processes: int, num_nodes: int = 1, master: str | None = None
) -> None:
    """Run `python -m MODULE ARGV` in `processes` processes of this machine, and wait.

    PamError if one of them fails: with its own PamError, or with what ended it; if the machines do
    not meet, or lose the one where they met.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # one message: ours
    where = alone()
    if num_nodes > 1:
        where = meeting(num_nodes, master)
        get_logger(__name__).info("%d machines meet at %s", num_nodes, where["rdzv_endpoint"])
    if processes > 1:  # else the threads of each process are as many as there are cores
        os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // processes, 1)))
    config = LaunchConfig(
        min_nodes=num_nodes,
        max_nodes=num_nodes,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        max_restarts=0,
        shutdown_timeout=SECONDS_TO_SAVE,
        **where,
    )
    signal.signal(signal.SIGUSR1, pass_on)  # torchrun passes on only those that end it
    try:
        elastic_launch(config, sys.executable)("-m", module, *argv)
    except ChildFailedError as error:
        if (status := error.failures[origin(error.failures)].exitcode) in STOPPED:
            sys.exit(status)
        raise PamError(reason(error.failures)) from None
    except RendezvousError as error:
        raise PamError(
            f"the {num_nodes} machines did not meet at {where['rdzv_endpoint']}, or lost it: "
            f"{' '.join(str(error.__cause__ or error).split())}: does each run this command? "
            "The same command resumes"
        ) from None
    except SignalException as error:  # torchrun has passed it on to the processes
        sys.exit(128 + error.sigval)


def pass_on(number: int, _frame: Any) -> None:
    """Send a signal to the processes that this one started."""
    children = Path("/proc/self/task").glob("*/children")
    for child in " ".join(file.read_text(encoding="utf-8") for file in children).split():
        os.kill(int(child), number)


def origin(failures: Mapping[int, ProcessFailure]) -> int:
    """The process that failed first. The others lost its connection, or torchrun ended them, with
    SIGTERM or later with SIGKILL; their times may be the same, in whole seconds."""
    latest = min(failure.timestamp for failure in failures.values()) + SECONDS_TO_END // 2
    own = {
        rank: failure
        for rank, failure in failures.items()
        if failure.exitcode != -signal.SIGTERM
        and not (failure.exitcode == -signal.SIGKILL and failure.timestamp > latest)
    }
    killed = [rank for rank, failure in own.items() if failure.exitcode < 0]
    failed = [rank for rank, failure in own.items() if not failure.message.startswith(LOST)]
    return min(killed or failed or failures, key=lambda rank: failures[rank].timestamp)


def reason(failures: Mapping[int, ProcessFailure]) -> str:
    """One line about the process that failed first."""
    first = origin(failures)
    failure, who = failures[first], f"process {first} of the training"
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        why = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"{who} was ended by {name}{why}: the same command resumes"
    if failure.message.startswith(USER_ERROR):
        return failure.message.removeprefix(USER_ERROR)
    if failure.message.startswith(LOST):
        return f"{who}: {failure.message}: the same command resumes"
    return f"{who} failed with status {failure.exitcode}: see its messages above"


def alone() -> dict[str, Any]:
    """Where the processes of a single machine meet: on a free port."""
    name = uuid.uuid4().hex
    return {"rdzv_endpoint": "localhost:0", "run_id": name, "local_addr": "localhost"}


def meeting(num_nodes: int, master: str | None) -> dict[str, Any]:
    """Where the machines meet."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        if master is None:
            raise PamError(
                f"--num_nodes {num_nodes}: where do they meet? Give --master_addr HOST, or start "
                "the command on each machine with srun"
            )
        return {"rdzv_endpoint": endpoint(master, PORT), "run_id": "pam"}
    refuse_another_step(num_nodes)
    first = os.environ["SLURM_NODEID"] == "0"
    return {
        "rdzv_endpoint": endpoint(master or first_host(), JOB_PORTS[int(job) % len(JOB_PORTS)]),
        "run_id": job,
        "rdzv_configs": {"is_host": str(first).lower()},
    }


def endpoint(master: str, default: int) -> str:
    """HOST:PORT of `master`, HOST or HOST:PORT. PamError if this machine does not know the host, on
    which torchrun would spend minutes."""
    host, _, port = master.partition(":")
    try:
        socket.getaddrinfo(host, port or default)
    except OSError as error:
        raise PamError(f"{master}, where the machines meet: {error.strerror}") from error
    return f"{host}:{port or default}"


def refuse_another_step(num_nodes: int) -> None:
    """PamError if srun did not start one task on each of `num_nodes` machines."""
    nodes, tasks = (os.environ.get(f"SLURM_{name}") for name in ("STEP_NUM_NODES", "NTASKS"))
    if (nodes, tasks) != (str(num_nodes), str(num_nodes)):
        raise PamError(
            f"--num_nodes {num_nodes}: srun started {tasks} tasks on {nodes} machines: "
            f"give it --nodes={num_nodes} --ntasks-per-node=1"
        )


def first_host() -> str:
    """The first machine of Slurm's job step."""
    command = ["scontrol", "show", "hostnames", os.environ["SLURM_STEP_NODELIST"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()[0]
