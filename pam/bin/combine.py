"""Stage 3: combine dumped sets into one training and one validation directory of all tasks.

    pam combine --train dump/raw/ac_train dump/raw/snv_train --dev dump/raw/ac_dev \\
        --encoders whisper_tiny_en moonshine_base --out dump/combined/two
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pam.config.made import (
    PENDING,
    Making,
    Record,
    add_pending,
    file_digest,
    read_record,
    settings_of,
)
from pam.data.digests import LEARNED, data_digest
from pam.errors import PamError, run_main
from pam.lock import in_turn
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
    """The record of OUT. Its settings are those of the sets, and of the states of each encoder.

    Lists of states are inputs, since states that are dumped again lie in other files. Earlier
    versions did not record these.
    """
    folders = [folder_of(text) for text in [*args.train, *args.dev]]
    records = [read_record(folder, "dump") for folder in folders]
    sets = {folder.name: data_digest(folder, LEARNED) for folder in folders}
    states = {
        f"{name}/{folder.name}": file_digest(Path(args.encoder_dir, name, folder.name, "feats.scp"))
        for name in args.encoders
        for folder in folders
    }
    lists = {f"{part}_sets": [Path(text).name for text in getattr(args, part)] for part in PARTS}
    return Making(
        args.out,
        STAGE,
        {
            **settings_of(*(without_encoders(record) for record in records)),
            **settings_of_states(args, folders),
            **lists,
            "states": args.encoders,
        },
        {**sets, **states},
        newer=states,
        products=[args.out / part / "wav.scp" for part in PARTS],
        remedy="remove it",
        begun=any((args.out / part).exists() for part in PARTS),
        after=records,
    )


def without_encoders(record: Record | None) -> Record | None:
    """A record of raw/SET; those of earlier versions have the encoders too."""
    if record is None:
        return None
    kept = {k: v for k, v in record["settings"].items() if not k.startswith("encoders.")}
    return {**record, "settings": kept}


def settings_of_states(args: argparse.Namespace, folders: Sequence[Path]) -> dict[str, Any]:
    """`encoders.NAME.KEY` of the states that are combined; those that are gone are as recorded."""
    found: dict[str, Any] = {}
    for name in args.encoders:
        records = [read_record(Path(args.encoder_dir) / name / f.name, "dump") for f in folders]
        own = settings_of(*records) if all(records) else {}
        found |= {
            f"encoders.{name}{k.removeprefix('encoder')}": v
            for k, v in own.items()
            if k.startswith("encoder.")
        }
    known = {key.split(".")[1] for key in found}
    recorded = (read_record(args.out, STAGE) or {"settings": {}})["settings"]
    gone = {k: v for k, v in recorded.items() if k.startswith("encoders.")}
    return found | {k: v for k, v in gone.items() if k.split(".")[1] not in known}


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


def is_complete(args: argparse.Namespace) -> bool:
    making = making_of(args)
    if complete := making.is_complete():
        making.amend_licences()
        logger.info("complete: %s", args.out)
    return complete


def main(argv: list[str] | None = None) -> int:
    """python -m pam.bin.combine --train DIR[:task] … --dev DIR[:task] … --out DIR"""
    args = get_parser().parse_args(argv)
    if not is_complete(args):
        refuse_unfinished(args)
        if args.pending:
            return PENDING
        args.out.mkdir(parents=True, exist_ok=True)
        with in_turn(args.out):
            if not is_complete(args):  # another program may have made it while this one waited
                with making_of(args).work():
                    work(args)
    warn_of_leaks(args)
    return 0


if __name__ == "__main__":
    run_main(main)
