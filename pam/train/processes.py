"""The processes of a training: one for each GPU, of one machine or of several; on a CPU, `--nj`.

torchrun starts them (`pam.train.launch`) and tells each its place in the environment (`PLACE`). A
program that is started alone is a group of one. The first process decides and writes; the others
get its decisions, because a file that it wrote may reach them late (NFS).
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pam.config.made import PENDING, Making
from pam.data.workers import end_with_parent
from pam.errors import PamError
from pam.log import get_logger
from pam.train.endings import LOST, USER_ERROR, ending_at_once, readers_explained, tell_launcher
from pam.train.signals import STOPPED

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

T = TypeVar("T")


def add_machines(parser: argparse.ArgumentParser) -> None:
    """Options of a program that runs in several processes, on one machine or several."""
    parser.add_argument(
        "--ngpu", type=int, default=0, help="0: CPU; N: one process on each of N GPUs of a machine"
    )
    parser.add_argument(
        "--nj", type=int, default=1, help="processes on the CPU, which split each batch (--ngpu 0)"
    )
    parser.add_argument(
        "--num_nodes", type=int, default=1, help="machines; each of them runs this command"
    )
    parser.add_argument(
        "--master_addr",
        metavar="HOST[:PORT]",
        help="where the machines meet; default: the first machine of Slurm's job step",
    )


def processes_of(args: argparse.Namespace) -> int:
    """The number of processes of a program with these options. PamError if it is not positive."""
    if args.num_nodes < 1:
        raise PamError(f"--num_nodes {args.num_nodes}: expected 1 machine or more")
    if args.nj < 1:
        raise PamError(f"--nj {args.nj}: expected 1 process or more")
    if args.nj > 1 and args.ngpu:
        raise PamError(f"--nj {args.nj} --ngpu {args.ngpu}: each GPU has one process: omit --nj")
    return world() if is_started() else max(args.ngpu, args.nj) * args.num_nodes


def is_started() -> bool:
    """Whether a launcher such as torchrun started this process as one of a group."""
    return all(name in os.environ for name in PLACE)


def rank() -> int:
    return int(os.environ["RANK"]) if is_started() else 0


def world() -> int:
    """Number of processes."""
    return int(os.environ["WORLD_SIZE"]) if is_started() else 1


def is_first() -> bool:
    return rank() == 0


def run(
    program: str,
    args: argparse.Namespace,
    argv: list[str] | None,
    todo: Callable[[], Making | None],
    work: Callable[[Making], None],
) -> int:
    """Run `work` in the processes of a program of pam.bin; its exit status.

    `todo` gives the record of the work, None if it is complete. Only the first process asks it.
    If the program was started alone but needs more processes, it starts them.
    """
    with joined(args.ngpu), readers_explained():
        making = from_first(todo)
        if making is None:
            return 0
        if args.pending:
            if is_started():
                sys.exit(PENDING)  # `joined` ends a process that returns with 0
            return PENDING
        if is_started() or processes_of(args) == 1:
            work(making)
            return 0
    from pam.train.launch import launch  # takes seconds

    own = sys.argv[1:] if argv is None else argv
    here = max(args.ngpu, args.nj)
    launch(f"pam.bin.{program}", own, here, args.num_nodes, args.master_addr)
    return 0


@contextmanager
def joined(ngpu: int) -> Iterator[None]:
    """Context for the work of all processes; `ngpu`: GPUs of this machine, 0 for its CPU.

    It is the last work of a program. A PamError ends the process; its launcher prints it once.
    """
    if not is_started():
        yield
        return
    import torch

    end_with_parent(os.getppid())
    get_logger(__name__)  # sets the level of the root, which is then raised
    if not is_first():
        logging.getLogger().setLevel(logging.ERROR)
    try:
        refuse_another_number(ngpu)
        if ngpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        with ending_at_once():
            torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if ngpu else "gloo")
            with stopping_together():
                yield
            torch.distributed.barrier()  # the others may still read what this one sent last
            torch.distributed.destroy_process_group()
    except PamError as error:
        tell_launcher(USER_ERROR + str(error))
        sys.exit(1)
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        tell_launcher(f"{LOST}: {' '.join(str(error).split())}")
        sys.exit(1)


@contextmanager
def stopping_together() -> Iterator[None]:
    """Context: a signal stops all processes. None leaves before the first has written its files:
    torchrun would end that one too."""
    try:
        yield
    except SystemExit as stop:
        if stop.code in STOPPED:
            with suppress(RuntimeError):
                from_first(lambda: None)
        raise


def refuse_another_number(ngpu: int) -> None:
    """PamError if torchrun started another number of processes than there are GPUs."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ngpu))
    if ngpu and ngpu != here:
        raise PamError(
            f"--ngpu {ngpu}: torchrun started {here} processes on this machine: give --ngpu {here}"
        )


def from_first(decide: Callable[[], T]) -> T:
    """What `decide` returns in the first process, for all processes, which wait for it.

    It runs in the first process only. Its PamError is raised in all of them.
    """
    if world() == 1:
        return decide()
    from torch.distributed import broadcast_object_list

    found: list = [None]
    if is_first():
        try:
            found = [(decide(), None)]
        except PamError as error:
            found = [(None, str(error))]
    broadcast_object_list(found)
    value, error = found[0]
    if error is not None:
        raise PamError(error)
    return value


def gathered(own: list[T]) -> list[T]:
    """The lists of all processes, joined in the order of the processes."""
    if world() == 1:
        return own
    from torch.distributed import all_gather_object

    lists: list = [None] * world()
    all_gather_object(lists, own)
    return [item for part in lists for item in part]


def require_shared(file: Path) -> None:
    """PamError if a process does not see a file of the first one."""
    if not file.is_file():
        raise PamError(
            f"{file}: {os.uname().nodename} does not see it: all machines must share the folder"
        )
