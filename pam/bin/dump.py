"""Stage 2: dump data directories: 16 kHz audio, and the states of all encoders of a scale."""

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pam.config import load_yaml
from pam.data.raw import LengthLimit, dump_audio
from pam.device import device_for
from pam.errors import UserError, run_main
from pam.log import get_logger

# (data/SET, raw/SET, limit) → the bad utterances
DumpSet = Callable[[Path, Path, LengthLimit], dict[str, str]]


def main(argv: list[str] | None = None) -> None:
    """python -m pam.bin.dump --data data/SET… --out dump/raw --scale_config FILE …"""
    args = get_parser().parse_args(argv)
    dump_set = _with_states(args) if args.feats == "dumped" else _audio_only(args)
    for data in args.data:
        drops = args.limited is None or data.name in args.limited
        limit = LengthLimit(args.min_seconds, args.max_seconds, drops)
        bad = dump_set(data, args.out / data.name, limit)
        get_logger(__name__).info("%s: complete, %d bad utterances", args.out / data.name, len(bad))


def _audio_only(args: argparse.Namespace) -> DumpSet:
    return lambda data, out, limit: dump_audio(data, out, args.nj, args.max_bad, limit)


def _with_states(args: argparse.Namespace) -> DumpSet:
    import torch  # takes seconds and half a gigabyte: not for audio alone

    from pam.encoders import load_encoder
    from pam.encoders.dump import DumpOptions, dump

    device_for(args.ngpu)
    # Before anything computes: a process that forks must not have started torch's threads. Alone,
    # it may use all cores.
    torch.set_num_threads(1 if args.nj > 1 else os.cpu_count() or 1)
    specs = load_yaml(args.scale_config).get("encoders")
    if not specs:
        raise UserError(f"{args.scale_config}: no encoders: add some, or use --feats online")
    options = DumpOptions(specs, args.encoder_dir, args.nj, args.max_bad, args.ngpu)
    encoders = {name: load_encoder(spec) for name, spec in specs.items()}
    return lambda data, out, limit: dump(data, out, replace(options, limit=limit), encoders)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="data/SET …")
    parser.add_argument("--out", type=Path, required=True, help="DUMPDIR/raw; SET is added")
    parser.add_argument("--scale_config", type=Path, help="conf/scale/….yaml, for its encoders")
    parser.add_argument("--feats", choices=("dumped", "online"), default="dumped")
    parser.add_argument("--encoder_dir", type=Path, default=Path("dump"), help="DUMPDIR")
    parser.add_argument(
        "--nj", type=_positive, default=1, help="processes; on GPUs: threads that read audio"
    )
    parser.add_argument("--max_bad", type=_share, default=0.005, help="0.5%% or 0.005")
    parser.add_argument("--min_seconds", type=float, default=0.0, help="drop shorter utterances")
    parser.add_argument("--max_seconds", type=float, default=math.inf, help="drop longer ones")
    parser.add_argument(
        "--limited", nargs="*", metavar="SET", help="sets these limits are for; default: all"
    )
    parser.add_argument(
        "--ngpu", type=int, default=0, help="0: CPU; N: a process on each of N GPUs"
    )
    return parser


def _share(text: str) -> float:
    share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share like 0.5% or 0.005")
    return share


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1")
    return int(text)


if __name__ == "__main__":
    run_main(main)
