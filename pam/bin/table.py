"""Make a paper table from stored results, with the paper's own values; gaps stay visible.

    python -m pam.bin.table --table 1 --results egs/multitask/RESULTS                one table
    python -m pam.bin.table --table all --results egs/multitask/RESULTS --dry_run    what is missing

The recipe's last stage writes RESULTS/SCALE/NAME.json; tables go into the same folder. With several
folders (`--results exp/results RESULTS`: one's own results, then those of the repository) the first
one that has a result is used, the table names each result's folder, and it goes into the first.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from pam.atomic import write_text
from pam.errors import UserError, run_main
from pam.log import get_logger
from pam.paper.figures import draw
from pam.paper.kinds import summary_document, table_document
from pam.paper.plan import Run, describe, gone, missing_runs
from pam.paper.spec import load_spec, table_name, table_names
from pam.paper.store import KEPT_IN, Store, read_store
from pam.report.figures import can_draw

logger = get_logger(__name__)
ALL = "all"
SUMMARY = "tables"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", required=True, help="1, 13, figure3, … (conf/tables), or all")
    parser.add_argument(
        "--results", type=Path, nargs="+", required=True, help="folders that hold SCALE/NAME.json"
    )
    parser.add_argument("--scale", default="mini", help="a file of conf/scale")
    parser.add_argument("--budget", default="short", help="only results of this budget are shown")
    parser.add_argument("--out", type=Path, help="default: SCALE/TABLE.md in the first of RESULTS")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0],
        help="of the experiments that --dry_run and --plan list",
    )
    parser.add_argument(
        "--metrics", default="", help="a result without one of these is missing too"
    )
    parser.add_argument("--expdir", type=Path, default="exp", help="where experiments are trained")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--dry_run", action="store_true", help="print what is missing, no table")
    action.add_argument(
        "--plan", action="store_true", help="the same as commands of the recipe: utils/table.sh"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    names = table_names() if args.table == ALL else [table_name(args.table)]
    if args.out and len(names) > 1:
        raise UserError(f"--out {args.out}: one file for {len(names)} tables: leave it out")
    specs = [load_spec(name, args.scale) for name in names]
    folders = [results / args.scale for results in dict.fromkeys(args.results)]
    folder, store = folders[0], read_store(*folders)
    if args.dry_run or args.plan:
        metrics = args.metrics.replace(",", " ").split()
        runs = missing_runs(specs, store, args.budget, args.seeds, metrics)
        if args.dry_run:
            print("\n".join(describe(runs, specs, store, args.budget)))
        refuse(gone(runs, args.expdir), store, folder, args.expdir)
        for run in runs if args.plan else ():
            options = [word for option in run.options for word in ("--set", option)]
            analyse = str(run.analysed).lower()
            print(
                shlex.join(["experiment", run.name, run.system, str(run.seed), analyse, *options])
            )
        return
    for spec in specs:
        out = args.out or folder / f"{spec.name}.md"
        drawn = draw(spec, store, args.budget, out.parent) if can_draw() else {}
        write_text(out, table_document(spec, store, args.budget, drawn))
        logger.info("%s", out)
    if args.table == ALL:
        write_text(folder / f"{SUMMARY}.md", summary_document(specs, store, args.budget))
        logger.info("%s", folder / f"{SUMMARY}.md")


def refuse(runs: Sequence[Run], store: Store, folder: Path, expdir: Path) -> None:
    """Refuse to train an experiment that has a result: another result would replace it."""
    if runs:
        file = Path(store[runs[0].name].get(KEPT_IN, folder), f"{runs[0].name}.json")
        lacks = "; ".join(f"{run.name} lacks {', '.join(run.lacks)}" for run in runs)
        raise UserError(
            f"{folder}: {lacks}, and {expdir}/{runs[0].name} has no model.pth: score it where it "
            f"was trained, or remove {file} to train it here"
        )


if __name__ == "__main__":
    run_main(main)
