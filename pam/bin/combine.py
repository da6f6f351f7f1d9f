"""Stage 3: combine dumped sets into one training and one validation directory of all tasks.

    pam combine --train dump/raw/ac_train dump/raw/snv_train --dev dump/raw/ac_dev \\
        --encoders whisper_tiny_en moonshine_base --out dump/combined/two
"""

import argparse
from pathlib import Path

from pam.config.made import PENDING, Making, add_pending, read_record, settings_of
from pam.data.digests import LEARNED, data_digest
from pam.errors import PamError, run_main
from pam.log import get_logger

STAGE = "combine"
PARTS = ("train", "dev")
logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", nargs="*", default=[], metavar="DIR[:task]")
    parser.add_argument("--dev", nargs="*", default=[], metavar="DIR[:task]")
    parser.add_argument("--out", type=Path, required=True, help="writes OUT/train and OUT/dev")
    parser.add_argument(
        "--encoders", nargs="*", default=[], help="default: none, for online features"
    )
    parser.add_argument("--encoder_dir", default="dump", help="folder of <encoder>/<set>/feats.scp")
    parser.add_argument(
        "--test",
        type=Path,
        nargs="*",
        default=[],
        help="sets that must not share utterances with TRAIN",
    )
    add_pending(parser)
    return parser


def folder_of(text: str) -> Path:
    """The folder of `DIR` or `DIR:task`."""
    folder, colon, _ = text.rpartition(":")
    return Path(text if not colon or Path(text).is_dir() else folder)


def making_of(args: argparse.Namespace) -> Making:
    folders = [folder_of(text) for text in [*args.train, *args.dev]]
    records = [read_record(folder, "dump") for folder in folders]
    lists = {f"{part}_sets": [Path(text).name for text in getattr(args, part)] for part in PARTS}
    return Making(
        args.out,
        STAGE,
        {**settings_of(*records), **lists, "states": args.encoders},
        {folder.name: data_digest(folder, LEARNED) for folder in folders},
        products=[args.out / part / "wav.scp" for part in PARTS],
        remedy="remove it",
        begun=any((args.out / part).exists() for part in PARTS),
        after=records,
    )


def refuse_unfinished(args: argparse.Namespace) -> None:
    for part in PARTS:
        if not getattr(args, part):
            raise PamError(f"--{part}_sets is empty: name at least one set")
        for folder in map(folder_of, getattr(args, part)):
            record = read_record(folder, "dump")
            if not (folder / "wav.scp").is_file() or (record and not record["complete"]):
                raise PamError(f"{folder} is not complete: run stage 2 first")


def work(args: argparse.Namespace) -> None:
    from pam.data.combine import SetSpec, combine

    for part in PARTS:
        specs = [SetSpec.parse(text) for text in getattr(args, part)]
        summary = combine(specs, args.out / part, args.encoders, args.encoder_dir)
        for name, counts in summary.items():
            what = "%s: %s utterances, %s h, %s"
            logger.info(what, name, counts["utterances"], counts["hours"], counts["task"])


def warn_of_leaks(args: argparse.Namespace) -> None:
    """Warn of training utterances that are in other sets too, unless the user asked for them."""
    trained = {folder_of(text) for text in args.train}
    train = _ids(args.out / "train" / "text")
    leaks = [
        (utt, folder / "text")
        for folder in [*map(folder_of, args.dev), *args.test]
        if folder not in trained
        for utt in _ids(folder / "text")
        if utt in train
    ]
    if leaks:
        print(
            f"warning: {len(leaks)} utterances of the training set are in other sets too, "
            f"the first is {leaks[0][0]} of {leaks[0][1]}"
        )


def _ids(file: Path) -> dict[str, None]:
    """The ids of a text file in its order; empty if the file does not exist."""
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8") as lines:
        return dict.fromkeys(line.split(maxsplit=1)[0] for line in lines if line.strip())


def main(argv: list[str] | None = None) -> int:
    """python -m pam.bin.combine --train DIR[:task] … --dev DIR[:task] … --out DIR"""
    args = get_parser().parse_args(argv)
    making = making_of(args)
    if making.is_complete():
        logger.info("complete: %s", args.out)
    else:
        refuse_unfinished(args)
        if args.pending:
            return PENDING
        with making.work():
            work(args)
    warn_of_leaks(args)
    return 0


if __name__ == "__main__":
    run_main(main)
