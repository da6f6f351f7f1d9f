"""Stage 2: dump 16 kHz audio of data directories, and the states of all encoders of a scale.

pam dump --data data/ac_train data/ac_dev --out dump/raw --scale_config conf/scale/mini.yaml
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pam.bin import data as data_verb
from pam.config import load_yaml
from pam.config.made import PENDING, Making, add_pending, given, read_record
from pam.data.digests import PREPARED, data_digest
from pam.device import device_for
from pam.errors import PamError, run_main
from pam.log import get_logger

if TYPE_CHECKING:
    from pam.data.raw import LengthLimit

# (data/SET, raw/SET, limit) → the bad utterances
DumpSet = Callable[[Path, Path, "LengthLimit"], dict[str, str]]

STAGE = "dump"
REMEDY = "remove the folders of its sets, or choose another folder with --dumpdir"
OF_STATES = "remove it to store its states again, or give the encoder another name in the scale"
PREPARED_AS = "prepared set"  # the input of raw/SET in made.json
logger = get_logger(__name__)


def main(argv: list[str] | None = None) -> int:
    """python -m pam.bin.dump --data data/SET… --out dump/raw --scale_config FILE …"""
    args = get_parser().parse_args(argv)
    if not args.pending and args.feats == "dumped":  # audio alone needs no GPU
        device_for(args.ngpu)
    pending = []
    for data in args.data:
        making = making_of(args, data)
        refuse_other_states(args, data.name)
        if making.is_complete():
            making.amend_licences()
            logger.info("complete: %s", making.folder)
        else:
            refuse_other_data(args, data)
            refuse_packed(making.folder)
            pending.append((data, making))
            if making.changed_inputs():
                what = "%s: %s has changed: dumping it again; unchanged audio is not read again"
                logger.info(what, making.folder, data)
    if args.pending or not pending:
        return PENDING if pending else 0
    dump_set = dumper(args)
    for data, making in pending:
        with making.work():
            bad = dump_set(data, making.folder, limit_of(args, data))
        logger.info("%s: complete, %d bad utterances", making.folder, len(bad))
    return 0


def making_of(args: argparse.Namespace, data: Path) -> Making:
    """The record of raw/SET. Settings bind from the first wav.scp or shard on.

    The text files of data/SET are an input, so that corrected or added data are dumped. Earlier
    versions did not record it: their dumps stay complete. They recorded the encoders here, too;
    now each ENCODER/SET has a record of its own, so that a scale may add an encoder.
    """
    out, states = args.out / data.name, []
    prepared = read_record(data.parent, data_verb.STAGE)
    settings = given(args.made_with) or (prepared or {}).get("settings", {})
    settings |= {"feats": args.feats}
    if is_limited(args, data):
        limits = {"min_seconds": args.min_seconds, "max_seconds": args.max_seconds}
        settings |= {key: limit for key, limit in limits.items() if limit is not None}
    if args.feats == "dumped":
        states = [args.encoder_dir / name / data.name for name in encoders_of(args)]
    begun = [*args.encoder_dir.glob(f"*/{data.name}/.parts"), out / "wav.scp"]
    return Making(
        out,
        STAGE,
        settings,
        {PREPARED_AS: data_digest(data, PREPARED)},
        newer=[PREPARED_AS],
        former="encoders.",
        products=[out / "wav.scp", *(folder / "feats.scp" for folder in states)],
        begun=any(path.exists() for path in begun),
        remedy=REMEDY,
        after=[prepared],
    )


def refuse_other_states(args: argparse.Namespace, name: str) -> None:
    """PamError if an encoder of the scale has stored states of the set with other settings."""
    for encoder, spec in encoders_of(args).items() if args.feats == "dumped" else ():
        folder = args.encoder_dir / encoder / name
        if record := read_record(folder, STAGE):
            rest = {k: v for k, v in record["settings"].items() if not k.startswith("encoder.")}
            begun = (folder / ".parts").exists()
            Making(folder, STAGE, {**rest, "encoder": spec}, begun=begun, remedy=OF_STATES).check()


def refuse_other_data(args: argparse.Namespace, data: Path) -> None:
    """PamError if the set is missing, or was prepared with other settings than requested."""
    if not (data / "wav.scp").is_file():
        raise PamError(f"{data} is missing: run stage 1 first")
    if args.made_with and read_record(data.parent, data_verb.STAGE):
        wanted = given(args.made_with)
        Making(data.parent, data_verb.STAGE, wanted, begun=True, remedy=data_verb.REMEDY).check()


def refuse_packed(raw: Path) -> None:
    """PamError for a packed set, whose places in shards a dump would replace."""
    from pam.data.pack import is_packed

    if is_packed(raw):
        raise PamError(
            f"{raw}: is a packed copy, and its data or its states are not those of this command: "
            "run stage 2 with the --dumpdir that it was packed from, then pack it again (pam shard)"
        )


def is_limited(args: argparse.Namespace, data: Path) -> bool:
    return args.limited is None or data.name in args.limited


def limit_of(args: argparse.Namespace, data: Path) -> "LengthLimit":
    from pam.data.raw import LengthLimit

    least, most = args.min_seconds or 0.0, args.max_seconds
    return LengthLimit(least, math.inf if most is None else most, is_limited(args, data))


def encoders_of(args: argparse.Namespace) -> dict[str, dict]:
    specs = load_yaml(args.scale_config).get("encoders")
    if not specs:
        raise PamError(f"{args.scale_config}: no encoders: add some, or use --feats online")
    return specs


def dumper(args: argparse.Namespace) -> DumpSet:
    """The function that dumps a set; it has loaded the encoders."""
    if args.feats == "online":
        from pam.data.raw import dump_audio

        return lambda data, out, limit: dump_audio(data, out, args.nj, args.max_bad, limit)
    import torch  # takes seconds and half a gigabyte; audio alone does not need it

    from pam.encoders import load_encoder
    from pam.encoders.dump import DumpOptions, dump

    if args.nj > 1:  # a process that forks must not have started torch's threads
        torch.set_num_threads(1)
    specs = encoders_of(args)
    options = DumpOptions(specs, args.encoder_dir, args.nj, args.max_bad, args.ngpu)
    encoders = {name: load_encoder(spec) for name, spec in specs.items()}
    return lambda data, out, limit: dump(data, out, replace(options, limit=limit), encoders)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="data/SET …")
    parser.add_argument("--out", type=Path, required=True, help="DUMPDIR/raw; sets go to OUT/SET")
    parser.add_argument("--scale_config", type=Path, help="conf/scale/….yaml with the encoders")
    parser.add_argument("--feats", choices=("dumped", "online"), default="dumped")
    parser.add_argument("--encoder_dir", type=Path, default=Path("dump"), help="DUMPDIR")
    parser.add_argument(
        "--nj", type=_positive, default=1, help="processes; with GPUs: threads that read audio"
    )
    parser.add_argument(
        "--max_bad",
        type=_share,
        default=0.005,
        help="largest share of bad utterances: 0.5%% or 0.005",
    )
    parser.add_argument("--min_seconds", type=_seconds, help="drop shorter utterances")
    parser.add_argument("--max_seconds", type=_seconds, help="drop longer utterances")
    parser.add_argument(
        "--limited", nargs="*", metavar="SET", help="sets that the limits apply to; default: all"
    )
    parser.add_argument(
        "--made_with",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="required settings of the sets' preparation; default: any",
    )
    parser.add_argument(
        "--ngpu", type=int, default=0, help="0: CPU; N: one process on each of N GPUs"
    )
    add_pending(parser)
    return parser


def _seconds(text: str) -> float | None:
    return float(text) if text else None


def _share(text: str) -> float:
    share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share like 0.5% or 0.005")
    return share


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at least 1")
    return int(text)


if __name__ == "__main__":
    run_main(main)
