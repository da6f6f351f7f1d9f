"""Second half of a dump: the states of one encoder, in shards.

A shard is a list of utterances of similar length. It is complete when its receipt exists in
.parts/. After a killed dump, only shards without a receipt are computed.

The name of a shard's archive has a digest of what its states are made from. So a list of places in
archives (feats.scp, or one of a combined set) never names states of other audio or weights. When a
dump is made again, the archives of before stay until the new feats.scp stands: a training may read
them. Archives of earlier versions are feats.INDEX.ark.
"""

# B batch, S states, T frames at 25 Hz, D width

import hashlib
import json
import re
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pam.atomic import write_json
from pam.config.made import FILE
from pam.data.archive import archives, merge_scp, write_archive
from pam.data.audio import load_audio
from pam.data.scan import Clip
from pam.data.scp import read_text_file, write_text_file
from pam.encoders import AudioEncoder
from pam.errors import MachineError, PamError
from pam.rate import SAMPLE_RATE

STAGE = "dump"  # in made.json
ARCHIVES = "feats.*.ark"
SHARD_SECONDS = 600
BATCH_SECONDS = 30  # larger batches are slower on a CPU: their activations leave its caches
GPU_BATCH_SECONDS = 120  # four clips that Whisper pads to 30 s
BYTES_PER_VALUE = 2
BATCHES_AHEAD = 2  # batches whose audio is read while a GPU computes
LACK_OF_MEMORY = re.compile("out of memory|not enough memory|allocate memory|ALLOC_FAILED")
FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Shard:
    """Utterances of similar length whose states go into folder/feats.DIGEST.INDEX.ark."""

    encoder: str
    folder: Path
    digest: str
    index: int
    clips: Sequence[Clip]

    @property
    def archive(self) -> Path:
        return self.folder / f"feats.{self.digest}.{self.index}.ark"

    @property
    def receipt(self) -> Path:
        return self.folder / ".parts" / f"{self.index}.json"

    @property
    def scp(self) -> Path:
        return self.folder / ".parts" / f"{self.index}.scp"

    @property
    def is_done(self) -> bool:
        """Whether it has a receipt and nobody has removed its archive."""
        return self.receipt.is_file() and all(file.is_file() for file in archives(self.scp))

    @property
    def seconds(self) -> float:
        return sum(clip.samples for clip in self.clips) / SAMPLE_RATE


@dataclass
class Receipt:
    frames: dict[str, int] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    cpu_seconds: float = 0.0


class ShardEncoder:
    """Encodes shards. Forked workers inherit the object with its models.

    `threads` read audio while a GPU computes; 0 on a CPU, where all cores compute.
    """

    def __init__(self, encoders: dict[str, AudioEncoder], device: str, threads: int = 0):
        self.encoders = {name: encoder.to(device) for name, encoder in encoders.items()}
        self.device, self.threads = device, threads

    def __call__(self, shard: Shard) -> float:
        """Write the shard's archive and receipt; returns the seconds of audio in it."""
        start, receipt = time.process_time(), Receipt()
        write_archive(shard.archive, shard.scp, self._states(shard, receipt))
        receipt.cpu_seconds = time.process_time() - start
        write_json(shard.receipt, vars(receipt))
        return shard.seconds

    def _states(self, shard: Shard, receipt: Receipt) -> Iterator[tuple[str, np.ndarray]]:
        encoder = self.encoders[shard.encoder]
        seconds = BATCH_SECONDS if self.device == "cpu" else GPU_BATCH_SECONDS
        for clips, samples in loaded(batches(shard.clips, encoder, seconds), self.threads):
            encoded = self._within_memory(encoder, clips, samples)
            for clip, (flat, fault) in zip(clips, encoded, strict=True):
                if fault:
                    receipt.bad[clip.utt] = f"{shard.encoder}: {fault}"
                else:
                    receipt.frames[clip.utt] = encoder.output_length(clip.samples)
                    yield clip.utt, flat

    def _within_memory(
        self, encoder: AudioEncoder, clips: Sequence[Clip], samples: Sequence[Tensor]
    ) -> list[tuple[np.ndarray, str]]:
        """`flatten` of each clip's states; what does not fit the memory is encoded in halves.

        A clip that does not fit alone has that fault, unless it has at most BATCH_SECONDS: then
        others use the memory, and the clip is not to blame (MachineError).
        """
        try:
            return self._encoded(encoder, clips, samples)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            sentences = " ".join(str(error).split()).split(". ")
            reason = next(filter(LACK_OF_MEMORY.search, sentences), type(error).__name__)
        # The handler has ended, and with it the traceback, which held the tensors of the batch.
        if self.device != "cpu":
            torch.cuda.empty_cache()
        if half := len(clips) // 2:
            first = self._within_memory(encoder, clips[:half], samples[:half])
            return first + self._within_memory(encoder, clips[half:], samples[half:])
        seconds = clips[0].samples / SAMPLE_RATE
        if encoder.padded_samples(clips[0].samples) <= BATCH_SECONDS * SAMPLE_RATE:
            raise MachineError(
                f"{clips[0].path}: {seconds:.1f} s do not fit the memory that is free ({reason}): "
                "end what else uses it, or lower --nj; the same command resumes"
            )
        fault = f"{seconds:.1f} s need more memory than there is: cut it, or give --max_seconds"
        return [(np.empty(0, np.float16), fault)]

    def _encoded(
        self, encoder: AudioEncoder, clips: Sequence[Clip], samples: Sequence[Tensor]
    ) -> list[tuple[np.ndarray, str]]:
        audio = pad(samples).to(self.device)
        lengths = torch.tensor([clip.samples for clip in clips], device=self.device)
        states, mask = encoder(audio, lengths)
        return [flatten(one[:, real_T]) for one, real_T in zip(states, mask, strict=True)]


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch, a library of its or numpy got no memory, of a GPU or of the machine."""
    told = LACK_OF_MEMORY.search(str(error))
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or told is not None


def plan(name: str, folder: Path, digest: str, clips: Sequence[Clip]) -> list[Shard]:
    """Cut clips, sorted by length, into shards of about SHARD_SECONDS each.

    `digest` is of all that the states of encoder `name` are made from.
    """
    shards: list[list[Clip]] = [[]]
    seconds = 0.0
    for clip in sorted(clips, key=lambda clip: (clip.samples, clip.utt)):
        if seconds > SHARD_SECONDS:
            shards.append([])
            seconds = 0.0
        shards[-1].append(clip)
        seconds += clip.samples / SAMPLE_RATE
    return [Shard(name, folder, digest, i, shard) for i, shard in enumerate(shards) if shard]


def batches(clips: Sequence[Clip], encoder: AudioEncoder, seconds: float) -> Iterator[list[Clip]]:
    """Cut clips, sorted by length, into batches of at most `seconds`, or of one clip. Padding
    counts, and so does the silence that the encoder adds."""
    batch: list[Clip] = []
    for clip in clips:
        longest = encoder.padded_samples(clip.samples)
        if batch and (len(batch) + 1) * longest > seconds * SAMPLE_RATE:
            yield batch
            batch = []
        batch.append(clip)
    if batch:
        yield batch


def loaded(
    batches: Iterable[list[Clip]], threads: int
) -> Iterator[tuple[list[Clip], list[Tensor]]]:
    """Batches with their audio; with `threads` the next ones are read while one is used."""
    if not threads:
        for clips in batches:
            yield clips, [load(clip) for clip in clips]
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[list[Clip], list[Future]]] = deque()
        try:
            for clips in batches:
                ahead.append((clips, [pool.submit(load, clip) for clip in clips]))
                if len(ahead) > BATCHES_AHEAD:
                    clips, futures = ahead.popleft()
                    yield clips, [future.result() for future in futures]
            while ahead:
                clips, futures = ahead.popleft()
                yield clips, [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def load(clip: Clip) -> Tensor:
    audio = load_audio(clip.path)
    if len(audio) != clip.samples:
        raise PamError(
            f"{clip.path}: {len(audio)} samples, {clip.samples} when it was checked: "
            "the audio changed, remove the set's dump folders and run again"
        )
    return torch.from_numpy(audio)


def pad(clips: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True)


def flatten(states_STD: Tensor) -> tuple[np.ndarray, str]:
    """[T, S·D] float16, state after state, and the fault of the values ("" if there is none)."""
    flat = states_STD.transpose(0, 1).flatten(1).float()
    largest = flat.abs().max().item()
    fits = largest <= FLOAT16_MAX  # false for NaN too
    fault = "" if fits else f"a state of {largest:g} does not fit float16"
    return flat.half().cpu().numpy(), fault


def predicted_bytes(encoder: AudioEncoder, clips: Sequence[Clip]) -> int:
    frames = sum(encoder.output_length(clip.samples) for clip in clips)
    return frames * encoder.num_states * encoder.dim * BYTES_PER_VALUE


def fingerprint(encoder: AudioEncoder) -> str:
    """A digest of the weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()[:16]


def bytes_of(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor's values; those of a contiguous one on the CPU are not copied."""
    return tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()


def read_receipts(shards: Sequence[Shard]) -> Receipt:
    """All shards' receipts in one."""
    total = Receipt()
    for shard in shards:
        one = Receipt(**json.loads(shard.receipt.read_text(encoding="utf-8")))
        total.frames |= one.frames
        total.bad |= one.bad
        total.cpu_seconds += one.cpu_seconds
    return total


def forget(folder: Path) -> None:
    """Remove the files of an earlier dump, first the one that marks it as complete. Its archives
    stay until `finish`."""
    for name in (FILE, "feats.scp", "utt2num_frames", "dump.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / ".parts", ignore_errors=True)


def finish(folder: Path, shards: Sequence[Shard], good: set[str], summary: dict) -> None:
    """Join the shards' scp and text files, for the good utterances; feats.scp last. Then remove
    archives of earlier dumps."""
    receipt = read_receipts(shards)
    frames = {utt: str(count) for utt, count in receipt.frames.items() if utt in good}
    write_text_file(folder / "utt2num_frames", frames)
    write_json(folder / "dump.json", summary)
    merged = folder / ".parts" / "all.scp"
    merge_scp([shard.scp for shard in shards], merged)
    pointers = {utt: where for utt, where in read_text_file(merged).items() if utt in good}
    write_text_file(folder / "feats.scp", pointers)
    remove_unlisted(folder)


def remove_unlisted(folder: Path) -> None:
    """Remove the archives of `folder` that its feats.scp does not lead to."""
    listed = {archive.name for archive in archives(folder / "feats.scp")}
    for archive in folder.glob(ARCHIVES):
        if archive.name not in listed:
            archive.unlink()
