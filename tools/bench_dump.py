#!/usr/bin/env python3
"""Compare the dump of encoder states with a plain loop over transformers' encoders.

    tools/bench_dump.py --raw dump/raw/SET … [--scale mini] [--encoders NAME …] [--clips 200]
                        [--rounds 3]

Every side writes the states of the same clips, pooled to 25 Hz, to a Kaldi archive in float16:

- `plain`: transformers' model in float32, one clip after another, with `output_hidden_states`;
  Whisper's feature extractor pads each clip to 30 s;
- `dump`: stage 2 with the scale's options, in one process;
- `dump, padded`: the same with `pad_to_30s: true`, for Whisper only, which computes what `plain`
  computes;
- `dump, bfloat16`: the scale's options with `dtype: bfloat16`.

The sides take turns, `--rounds` times. Columns: seconds of audio for a second of one thread (median
of the rounds), speed relative to `plain`, and the relative error of the states: the norm of the
difference from `plain` by the norm of `plain`, for the state with the largest error. For bfloat16
the difference is that from `dump`. Families that transformers does not have are left out.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # pam, installed or not

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import WhisperFeatureExtractor  # noqa: E402

from pam.config import load_yaml  # noqa: E402
from pam.data.archive import load as load_states  # noqa: E402
from pam.data.archive import read_scp, write_archive  # noqa: E402
from pam.data.audio import load_audio, num_samples  # noqa: E402
from pam.data.scan import Clip  # noqa: E402
from pam.data.scp import read_text_file  # noqa: E402
from pam.encoders import AudioEncoder, load_encoder  # noqa: E402
from pam.encoders.pooling import pool_frames  # noqa: E402
from pam.encoders.shards import ShardEncoder, flatten, plan  # noqa: E402
from pam.encoders.ssl import normalized  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.log import progress  # noqa: E402
from pam.paths import conf_file  # noqa: E402
from pam.rate import SAMPLE_RATE  # noqa: E402
from pam.report.markdown import number, table  # noqa: E402

FAMILIES = ("whisper", "moonshine", "wav2vec2", "hubert", "wavlm")
PLAIN, DUMP, PADDED, BF16 = "plain", "dump", "dump, padded", "dump, bfloat16"


class Plain:
    """Transformers' encoder, one clip at a time."""

    def __init__(self, encoder: AudioEncoder, family: str):
        self.encoder, self.family = encoder, family
        self.model = encoder.model  # of transformers, in float32
        if family == "whisper":
            self.features = WhisperFeatureExtractor(feature_size=self.model.config.num_mel_bins)

    def __call__(self, clips: Sequence[Clip], folder: Path) -> None:
        write_archive(folder / "feats.ark", folder / "feats.scp", self.states(clips))

    @torch.no_grad()
    def states(self, clips: Sequence[Clip]) -> Iterator[tuple[str, np.ndarray]]:
        for clip in clips:
            audio = load_audio(clip.path)
            found = self.model(self.inputs(audio), output_hidden_states=True).hidden_states
            frames = torch.tensor([self.encoder.native_length(clip.samples)])
            native = torch.stack(found, dim=1)[:, :, : int(frames)]
            samples = torch.tensor([clip.samples])
            pooled, _ = pool_frames(native, frames, self.encoder.hop_samples, samples)
            yield clip.utt, flatten(pooled[0])[0]

    def inputs(self, audio: np.ndarray) -> Tensor:
        if self.family == "whisper":
            made = self.features(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt")
            return made.input_features
        speech, length = torch.from_numpy(audio)[None], torch.tensor([len(audio)])
        return normalized(speech, length) if getattr(self.encoder, "normalize", False) else speech


class Dump:
    """Stage 2 in one process."""

    def __init__(self, spec: Mapping, **conf):
        spec = {**spec, "conf": {**(spec.get("conf") or {}), **conf}}
        self.encoder = load_encoder(spec)

    def __call__(self, clips: Sequence[Clip], folder: Path) -> None:
        work = ShardEncoder({"it": self.encoder}, "cpu")
        shards = plan("it", folder, "bench", clips)
        for shard in shards:
            work(shard)
        lines = (shard.scp.read_text(encoding="utf-8") for shard in shards)
        (folder / "feats.scp").write_text("".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class Result:
    seconds: list[float]
    scp: Path


def measure(
    sides: Mapping[str, Callable], clips: Sequence[Clip], rounds: int, work: Path
) -> dict[str, Result]:
    found = {side: Result([], work / side / "feats.scp") for side in sides}
    for side in sides:
        (work / side / ".parts").mkdir(parents=True)
    for number_ in range(rounds + 1):
        for side, run in sides.items():
            some = clips if number_ else clips[:10]  # the first runs are not timed
            start = time.perf_counter()
            run(some, work / side)
            if number_:
                found[side].seconds.append(time.perf_counter() - start)
    return found


def error(one: Path, other: Path, num_states: int) -> float:
    """Relative error of the states of `one`, for the state with the largest."""
    apart, size = np.zeros(num_states), np.zeros(num_states)
    places, others = read_scp(one), read_scp(other)
    for utt, place in places.items():
        ours, theirs = (load_states(p, utt).astype(np.float64) for p in (place, others[utt]))
        if ours.shape != theirs.shape:
            raise PamError(f"{utt}: {ours.shape} and {theirs.shape} states")
        for total, values in ((apart, ours - theirs), (size, theirs)):
            total += np.square(values).reshape(len(values), num_states, -1).sum((0, 2))
    return float(np.sqrt(apart / size).max())


def sides_of(spec: Mapping) -> dict[str, Callable]:
    dump = Dump(spec)
    sides = {PLAIN: Plain(dump.encoder, spec["family"]), DUMP: dump}
    if spec["family"] == "whisper" and not dump.encoder.pad_to_30s:
        sides[PADDED] = Dump(spec, pad_to_30s=True)
    return sides | {BF16: Dump(spec, dtype="bfloat16")}


def compare(name: str, spec: Mapping, clips: Sequence[Clip], rounds: int) -> list[list[str]]:
    """The table's rows of one encoder."""
    with tempfile.TemporaryDirectory() as folder:
        sides = sides_of(spec)
        found = measure(sides, clips, rounds, Path(folder))
        states = sides[DUMP].encoder.num_states
        audio = sum(clip.samples for clip in clips) / SAMPLE_RATE
        plain = statistics.median(found[PLAIN].seconds)
        rows = []
        for side, result in found.items():
            seconds = statistics.median(result.seconds)
            reference = found[DUMP if side == BF16 else PLAIN].scp
            apart = "" if side == PLAIN else f"{error(result.scp, reference, states):.1e}"
            rows.append([name, side, number(audio / seconds, 1), number(plain / seconds), apart])
    return rows


def clips_of(folders: Sequence[Path], count: int) -> list[Clip]:
    """`count` clips, spread evenly over the utterances of the sets."""
    entries = [item for folder in folders for item in read_text_file(folder / "wav.scp").items()]
    step = max(len(entries) // count, 1)
    return [Clip(utt, path, num_samples(path)) for utt, path in entries[::step][:count]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw", type=Path, nargs="+", required=True, help="dump/raw/SET …")
    parser.add_argument("--scale", default="mini", help="a file of conf/scale, or a path")
    parser.add_argument("--encoders", nargs="+", metavar="NAME", help="default: all of the scale")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    specs = load_yaml(conf_file("scale", args.scale))["encoders"]
    clips = clips_of(args.raw, args.clips)
    names = [name for name in args.encoders or specs if specs[name]["family"] in FAMILIES]
    rows = []
    for name in progress(names, len(names), "encoders"):
        rows += compare(name, specs[name], clips, args.rounds)
    audio = sum(clip.samples for clip in clips) / SAMPLE_RATE
    print(f"{len(clips)} clips, {audio:.0f} s, {audio / len(clips):.1f} s a clip\n")
    print(table(["encoder", "side", "audio s / s:", "speed:", "relative error:"], rows))


if __name__ == "__main__":
    run_main(main)
