"""Stage 1: record the settings of prepared corpora, and say which tools fetch what their metrics
need. (A recipe's `prepare` prepares them.)"""

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pam.config.made import (
    FOLDER,
    PENDING,
    Making,
    add_pending,
    digest,
    given,
    licences_of,
    read_record,
)
from pam.config.source import attribute_of, registered
from pam.data.tasks import get_task
from pam.errors import PamError, run_main
from pam.lock import take_inherited
from pam.log import get_logger
from pam.paths import wordnet

STAGE = "data"
FETCH_WORDNET = "tools/fetch_wordnet.py"
REMEDY = "remove it, or prepare another one with --datadir"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="DATADIR, the folder of the sets")
    parser.add_argument("--sets", nargs="*", default=[], help="requested sets")
    parser.add_argument("--made_with", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--licence", default="", help="of the audio and texts of these sets")
    parser.add_argument(
        "--sources",
        type=Path,
        nargs="*",
        default=[],
        help="files that the preparation reads: if one changes, the sets are prepared again",
    )
    parser.add_argument(
        "--lock",
        type=int,
        metavar="FD",
        help="with --pending: an open file of the shell, to lock before a preparation",
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="duration of the preparation")
    parser.add_argument(
        "--needs",
        action="store_true",
        help="only print the tools that fetch what the metrics of the sets' tasks lack here",
    )
    parser.add_argument(
        "--todo", action="store_true", help="only print the sets that the preparation has to make"
    )
    add_pending(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """With --pending, report what must be prepared; without, record that it was prepared."""
    args = get_parser().parse_args(argv)
    if args.needs:
        if wordnet() is None and FETCH_WORDNET in needs_of(args.out / name for name in args.sets):
            print(FETCH_WORDNET)
        return 0
    if args.todo:
        print(*to_prepare(args.out, args.sets))
        return 0
    if args.lock is not None:
        take_inherited(args.lock, args.out, "preparation")
    scps = [args.out / name / "wav.scp" for name in args.sets]
    begun = any(args.out.glob("*/wav.scp"))
    record = read_record(args.out, STAGE)
    licences = licences_of([record]) | (
        dict.fromkeys(args.sets, args.licence) if args.licence else {}
    )
    made_with = given(args.made_with)
    sources = digests(args.sources)
    if not args.pending and record and not record["complete"]:
        sources = record["inputs"]  # those that the preparation began with
    making = Making(
        args.out,
        STAGE,
        made_with,
        sources,
        newer=sources,
        products=scps,
        remedy=REMEDY,
        licences=licences,
    )
    making.begun = begun and record is not None  # sets made without a recipe are accepted
    complete = making.is_complete()
    if record and making.begun:  # a corpus without a folder now keeps the recorded one
        recorded = {k: v for k, v in record["settings"].items() if FOLDER.fullmatch(k)}
        making.settings = recorded | making.settings
    missing = [name for name in args.sets if not is_made(args.out / name)]
    if complete:
        making.amend()
        making.amend_licences()
        get_logger(__name__).info("complete: %s", args.out)
    elif args.pending:
        if args.lock is not None:  # else another program may be preparing now
            if changed := making.changed_inputs():
                what = "%s: prepared again, since files of %s have changed"
                get_logger(__name__).info(what, args.out, " ".join(changed))
            # What sets that are made were made of may have changed, such as clips of YouTube that
            # are gone: they stay as they are, unless settings or sources have changed.
            extends = record is not None and record["complete"] and not changed
            making.notes = {"sets": missing if extends else args.sets}
            making.begin()
        return PENDING
    elif missing:
        raise PamError(f"{args.out}: the preparation did not make {' '.join(missing)}")
    else:
        making.finish(seconds=args.seconds)
    return 0


def to_prepare(out: Path, sets: Sequence[str]) -> list[str]:
    """The sets that a preparation, which has begun, has to make: those it began with, even if one
    is there from before, and those that are missing."""
    begun_with = (read_record(out, STAGE) or {}).get("notes", {}).get("sets", sets)
    return [name for name in sets if name in begun_with or not is_made(out / name)]


def is_made(folder: Path) -> bool:
    return (folder / "wav.scp").is_file()


def digests(files: Iterable[Path]) -> dict[str, str]:
    """Digests of the names and contents of files that exist, by their folder.

    A folder that is away has none, and so counts as unchanged.
    """
    found: dict[str, list[str | bytes]] = {}
    for file in sorted(set(map(os.path.normpath, files))):
        if Path(file).is_file():
            name = Path(file)
            found.setdefault(str(name.parent), []).extend([f"\0{name.name}\0", name.read_bytes()])
    return {folder: digest(*parts) for folder, parts in found.items()}


def needs_of(sets: Iterable[Path]) -> str:
    """What the metrics of prepared sets' tasks need, as their classes say it."""
    tasks: set[str] = set()
    for file in (folder / "utt2task" for folder in sets):
        if file.is_file():
            with file.open(encoding="utf-8") as lines:
                tasks |= {line.split()[-1] for line in lines if line.strip()}
    metrics = registered("pam.score.METRICS")
    parts = {metrics[get_task(task).metric] for task in tasks}
    return " ".join(need for part in parts for need in attribute_of(part, "needs") or ())


if __name__ == "__main__":
    run_main(main)
