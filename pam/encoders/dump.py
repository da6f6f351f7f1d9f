"""Stage 2: a data directory becomes 16 kHz audio and, if wanted, all encoders' states.

    raw/SET/        wav.scp and the text files of the good utterances, utt2num_samples,
                    bad_utts (utterance, tab, reason), dropped_utts, scan.jsonl, audio/TASK/,
                    padded/
    ENCODER/SET/    feats.scp, feats.DIGEST.INDEX.ark (float16 [T, S·D], 25 Hz), utt2num_frames,
                    dump.json, made.json (pam.config.made)

A set is complete when its wav.scp exists, states when made.json says so. The same command resumes.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

from pam.config.made import Making, digest, read_record
from pam.data.archive import archives
from pam.data.raw import (
    NO_LIMIT,
    LengthLimit,
    dump_audio,
    of_length,
    report_bad,
    too_short,
    write_raw,
)
from pam.data.scan import Clip, digest_of, read_data, scan
from pam.data.workers import run_tasks
from pam.encoders import AudioEncoder, load_encoder
from pam.encoders.gpus import encode_on_gpus
from pam.encoders.shards import (
    ARCHIVES,
    STAGE,
    Shard,
    ShardEncoder,
    fingerprint,
    finish,
    forget,
    plan,
    predicted_bytes,
    read_receipts,
)
from pam.errors import PamError
from pam.lock import alone
from pam.log import get_logger, progress

GIGABYTE = 1e9
logger = get_logger(__name__)


@dataclass
class DumpOptions:
    """The options of a dump.

    Attributes:
        encoders: name → spec of `load_encoder`; empty for audio only.
        max_bad: largest share of bad utterances, 0 to 1.
        limit: limits of the utterances' lengths.
        nj: processes on the CPU. With GPUs: number of threads, over all GPUs, that read audio.
        gpus: number of GPUs, each with one process; 0: CPU.
    """

    encoders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    encoder_dir: Path = Path("dump")
    nj: int = 1
    max_bad: float = 0.005
    gpus: int = 0
    limit: LengthLimit = NO_LIMIT


def dump(
    data_dir: str | Path,
    out: str | Path,
    options: DumpOptions,
    encoders: dict[str, AudioEncoder] | None = None,
) -> dict[str, str]:
    """Dump the set at `data_dir` to `out` (…/raw/SET); returns the bad utterances.

    `encoders` are those of `options` where the caller has loaded them already.

    Raises PamError when more than `max_bad` of the utterances are bad, when the disk is too
    small, and for other mistakes of the user; finished shards are kept.
    """
    if not options.encoders:
        return dump_audio(data_dir, out, options.nj, options.max_bad, options.limit)
    out = Path(out)
    with alone(out, "dump of this set"):
        data, bad = read_data(Path(data_dir))
        found = of_length(options.limit, scan(data, out, options.nj), out)
        if encoders is None:
            encoders = {name: load_encoder(spec) for name, spec in options.encoders.items()}
        bad |= found.bad | too_short(data, found.clips)
        total = len(data) + len(bad) - len(bad.keys() & data["text"].keys())
        report_bad(out, bad, total, options.max_bad)
        clips = [clip for clip in found.clips if clip.utt not in bad]
        inputs = {"clips": _clips_digest(clips), "audio": _audio_digest(clips, found.keys)}
        sources = _sources_digest(clips, found.keys)
        jobs = [
            _Job.make(name, e, out.name, clips, inputs, sources, options)
            for name, e in encoders.items()
        ]
        _encode([job for job in jobs if not job.is_done], encoders, clips, options)
        for job in jobs:
            bad |= job.bad
        bad |= _bad_of_others(options, out.name, inputs["clips"])
        report_bad(out, bad, total, options.max_bad)
        good = {clip.utt for clip in clips} - bad.keys()
        for job in jobs:
            job.finish(good)
        write_raw(data, out, [clip for clip in clips if clip.utt in good])
    return bad


class _Job:
    """One encoder's share of a dump."""

    def __init__(self, shards: list[Shard], making: Making):
        self.folder, self.shards, self.making = making.folder, shards, making
        self.is_done = making.is_complete()

    @classmethod
    def make(
        cls,
        name: str,
        encoder: AudioEncoder,
        set_name: str,
        clips: list[Clip],
        inputs: Mapping[str, str],
        sources: str,
        opts: DumpOptions,
    ) -> "_Job":
        folder = opts.encoder_dir / name / set_name
        making = Making(
            folder,
            STAGE,
            {
                "encoder": dict(opts.encoders[name]),
                "num_states": encoder.num_states,
                "dim": encoder.dim,
                "dtype": "float16",
            },
            {"weights": fingerprint(encoder), **inputs},
            newer=["audio"],
            products=[folder / "feats.scp"],
        )
        made_from = json.dumps([making.settings, making.inputs["weights"], sources])
        job = cls(plan(name, folder, digest(made_from)[:12], clips), making)
        if not job.is_done and not making.resumes():
            if folder.exists():
                what = "%s: has states of other settings, weights or audio: making them again"
                logger.info(what, folder)
                forget(folder)
            making.begin()
        return job

    @property
    def missing(self) -> list[Shard]:
        return [shard for shard in self.shards if not shard.is_done]

    @property
    def bad(self) -> dict[str, str]:
        if self.is_done:
            return json.loads((self.folder / "dump.json").read_text())["bad"]
        return read_receipts(self.shards).bad

    def finish(self, good: set[str]) -> None:
        if self.is_done:
            shutil.rmtree(self.folder / ".parts", ignore_errors=True)
            return
        receipt = read_receipts(self.shards)
        hours = sum(shard.seconds for shard in self.shards) / 3600
        files = (file for shard in self.shards for file in archives(shard.scp))
        size = sum(file.stat().st_size for file in files)
        summary = {
            "utterances": len(good),
            "hours": round(hours, 4),
            "gigabytes": round(size / GIGABYTE, 4),
            "cpu_seconds": round(receipt.cpu_seconds, 1),
            "bad": receipt.bad,
        }
        logger.info(
            "%s: %d utterances, %.2f h, %.2f GB, %.0f s of CPU for an hour of audio",
            self.folder, len(good), hours, size / GIGABYTE, receipt.cpu_seconds / hours,
        )  # fmt: skip
        finish(self.folder, self.shards, good, summary)
        self.making.finish()
        shutil.rmtree(self.folder / ".parts")


def _encode(
    jobs: Sequence[_Job], encoders: dict[str, AudioEncoder], clips: list[Clip], opts: DumpOptions
) -> None:
    missing = [shard for job in jobs for shard in job.missing]
    _check_disk(missing, encoders, opts)
    missing.sort(key=lambda shard: -shard.seconds)  # short ones last: all workers end together
    if opts.gpus:
        done = encode_on_gpus(missing, opts.encoders, opts.gpus, opts.nj)
    else:
        done = run_tasks(ShardEncoder(encoders, "cpu"), missing, opts.nj)
    for _ in progress(done, len(missing), "shards"):
        pass


def _check_disk(shards: list[Shard], encoders: dict[str, AudioEncoder], opts: DumpOptions) -> None:
    needed, where = dict.fromkeys(encoders, 0), opts.encoder_dir
    for shard in shards:
        needed[shard.encoder] += predicted_bytes(encoders[shard.encoder], shard.clips)
    if not shards:
        return
    where.mkdir(parents=True, exist_ok=True)
    free, total = shutil.disk_usage(where).free, sum(needed.values())
    each = ", ".join(f"{name} {size / GIGABYTE:.2f}" for name, size in needed.items())
    sizes = f"{total / GIGABYTE:.2f} GB ({each}), {free / GIGABYTE:.2f} GB are free"
    logger.info("%s: states to write: %s", where, sizes)
    if total > free:
        raise PamError(
            f"{where}: the states need {sizes}: {_of_before(shards)}free some space, "
            "choose another --dumpdir, or use --feats online"
        )


def _of_before(shards: list[Shard]) -> str:
    """The advice to remove archives that stay until those of `shards` are complete."""
    sizes: dict[str, int] = {}
    for folder in sorted({shard.folder for shard in shards}):
        done = {file.name for scp in folder.glob(".parts/*.scp") for file in archives(scp)}
        for file in folder.glob(ARCHIVES):
            if file.name not in done:
                same = ".".join([*file.name.split(".")[:-2], "*", "ark"])
                what = f"{folder.parent.name}/{folder.name}/{same}"
                sizes[what] = sizes.get(what, 0) + file.stat().st_size
    size = f"{sum(sizes.values()) / GIGABYTE:.2f} GB of before"
    return f"remove {' and '.join(sizes)}, {size}, unless a training reads them, " if sizes else ""


def _bad_of_others(opts: DumpOptions, set_name: str, clips: str) -> dict[str, str]:
    """The utterances that are bad for encoders of other scales, which share raw/SET: all folders
    hold the same utterances."""
    bad: dict[str, str] = {}
    for file in sorted(opts.encoder_dir.glob(f"*/{escape(set_name)}/dump.json")):
        record = read_record(file.parent, STAGE) or {"complete": False}
        is_other = file.parent.parent.name not in opts.encoders
        if is_other and record["complete"] and record["inputs"]["clips"] == clips:
            bad |= json.loads(file.read_text(encoding="utf-8"))["bad"]
    return bad


def _audio_digest(clips: Sequence[Clip], keys: Mapping[str, str]) -> str:
    """Of the sizes and times of the audio files: a replaced one may have the length of before."""
    return digest_of(keys[clip.utt].rpartition("-")[2] for clip in clips)[:16]


def _sources_digest(clips: Sequence[Clip], keys: Mapping[str, str]) -> str:
    """Of the utterances and their audio, wherever the dump writes its copies of it."""
    return digest_of(json.dumps([clip.utt, clip.samples, keys[clip.utt]]) for clip in clips)


def _clips_digest(clips: Sequence[Clip]) -> str:
    return digest_of(map(repr, clips))[:16]
