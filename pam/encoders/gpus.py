"""Encode shards on GPUs, with one new process for each GPU.

CUDA does not work after a fork, and audio is checked in forked processes. So the main process of
the dump never uses a GPU. Each GPU process sees one GPU (CUDA_VISIBLE_DEVICES), loads the encoders,
and reads the next audio on threads while the GPU computes.
"""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pam.data.workers import end_with_parent
from pam.device import allow_tf32
from pam.encoders import load_encoder
from pam.encoders.shards import Shard, ShardEncoder
from pam.errors import PamError

DEVICE = "cuda"
_encoder: ShardEncoder  # of this process


def encode_on_gpus(
    shards: Sequence[Shard],
    specs: Mapping[str, Mapping[str, Any]],
    gpus: int,
    threads: int,
) -> Iterator[float]:
    """Encode `shards` on `gpus` GPUs; yields the seconds of audio of each completed shard."""
    gpus = min(gpus, len(shards))
    if not gpus:
        return
    spawn = multiprocessing.get_context("spawn")
    devices = spawn.SimpleQueue()
    for name in visible_gpus(gpus):
        devices.put(name)
    needed = {shard.encoder: dict(specs[shard.encoder]) for shard in shards}
    options = (devices, needed, DEVICE, -(-threads // gpus), os.getpid())
    with ProcessPoolExecutor(gpus, spawn, _start, options) as pool:
        futures = [pool.submit(_encode, shard) for shard in shards]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise PamError(
                "a process on a GPU ended, perhaps for lack of memory: see above; "
                "the same command resumes"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def visible_gpus(count: int) -> list[str]:
    """The names of `count` of the GPUs that this process may see."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return allowed.split(",")[:count] if allowed else [str(n) for n in range(count)]


def _start(devices: Any, specs: dict, device: str, threads: int, parent: int) -> None:
    global _encoder
    end_with_parent(parent)
    os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
    if device != "cpu":
        allow_tf32()
    encoders = {name: load_encoder(spec) for name, spec in specs.items()}
    _encoder = ShardEncoder(encoders, device, threads)


def _encode(shard: Shard) -> float:
    return _encoder(shard)
