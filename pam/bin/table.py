"""Make a paper table from stored results, next to the paper's values; gaps are shown.

    pam table --table 1 --results egs/multitask/RESULTS                one table
    pam table --table all --results egs/multitask/RESULTS --dry_run    missing results

The recipe's last stage writes RESULTS/SCALE/NAME.json; tables are written to the same folder, those
of another budget than `short` to RESULTS/SCALE/BUDGET.
Several folders may be given (`--results exp/results RESULTS`: own results, then the repository's).
Then a result comes from the first folder that has it, the table names the folder of each result,
and the table is written to the first folder.
"""

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from pam.atomic import write_text
from pam.config import load_yaml
from pam.errors import PamError, run_main
from pam.lock import in_turn
from pam.log import get_logger
from pam.paper.check import check_known
from pam.paper.figures import draw
from pam.paper.kinds import summary_document, table_document
from pam.paper.plan import Run, absent_models, describe, gone, missing_runs
from pam.paper.spec import TableSpec, load_spec, table_name, table_names
from pam.paper.store import KEPT_IN, Store, read_store
from pam.paths import CONF
from pam.report.figures import can_draw

logger = get_logger(__name__)
ALL = "all"
SHORT = "short"
SUMMARY = "tables"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table",
        required=True,
        help="1, 13, figure3, beyond, … (conf/tables), or all: those of the paper",
    )
    parser.add_argument(
        "--results", type=Path, nargs="+", required=True, help="folders with SCALE/NAME.json"
    )
    parser.add_argument("--scale", default="mini", help="a file of conf/scale")
    parser.add_argument("--budget", default=SHORT, help="show only results of this budget")
    parser.add_argument(
        "--out",
        type=Path,
        help="default: SCALE/TABLE.md in the first folder of RESULTS; of other budgets than short, "
        "SCALE/BUDGET/TABLE.md",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0],
        help="seeds of the experiments that --dry_run and --plan list",
    )
    parser.add_argument(
        "--metrics", default="", help="metrics without which a result counts as missing"
    )
    parser.add_argument(
        "--train_args",
        default="",
        help="arguments of the trainings that --dry_run lists, such as '--set dev_utts=4': it "
        "names the results that count and have other options",
    )
    parser.add_argument("--expdir", type=Path, default="exp", help="folder of the experiments")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--dry_run", action="store_true", help="print missing results, write no table"
    )
    action.add_argument(
        "--plan",
        action="store_true",
        help="print missing results as commands of the recipe (utils/table.sh)",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    names = table_names() if args.table == ALL else [table_name(args.table)]
    specs = [load_spec(name, args.scale) for name in names]
    if args.table == ALL:
        specs = [spec for spec in specs if not spec.conf.beyond]
    if args.out and len(specs) > 1:
        raise PamError(f"--out {args.out}: this is one file for {len(specs)} tables: leave it out")
    if args.out and args.out.suffix != ".md":
        raise PamError(f"--out {args.out}: a table is Markdown: choose a name that ends with .md")
    budgets = load_yaml(CONF / "scale" / f"{args.scale}.yaml")["budgets"]
    check_known(args.budget, budgets, "--budget")
    planned = args.dry_run or args.plan
    folders = [results / args.scale for results in dict.fromkeys(args.results)]
    of_systems = any(list(spec.systems()) for spec in specs)
    refuse_folders(folders, needed=of_systems and not planned)
    folder, store = folders[0], read_store(*folders)
    if planned:
        metrics = args.metrics.replace(",", " ").split()
        runs = missing_runs(specs, store, args.budget, args.seeds, metrics)
        for line in absent_models(runs, args.scale):
            logger.warning(line)
        if args.dry_run:
            print("\n".join(describe(runs, specs, store, args.budget, args.train_args)))
        refuse(gone(runs, args.expdir), store, folder, args.expdir)
        for run in runs if args.plan else ():
            options = [word for option in run.options for word in ("--set", option)]
            analyse = str(run.analysed).lower()
            print(
                shlex.join(["experiment", run.name, run.system, str(run.seed), analyse, *options])
            )
        return
    pages = folder if args.budget == SHORT else folder / args.budget
    place = args.out.parent if args.out else pages
    place.mkdir(parents=True, exist_ok=True)
    with in_turn(place):
        write_tables(specs, store, args, pages)


def write_tables(
    specs: Sequence[TableSpec], store: Store, args: argparse.Namespace, pages: Path
) -> None:
    for spec in specs:
        out = args.out or pages / f"{spec.name}.md"
        drawn = draw(spec, store, args.budget, out.parent) if can_draw() else {}
        write_text(out, table_document(spec, store, args.budget, drawn))
        logger.info("%s", out)
    if args.table == ALL:
        write_text(pages / f"{SUMMARY}.md", summary_document(specs, store, args.budget))
        logger.info("%s", pages / f"{SUMMARY}.md")


def refuse_folders(folders: Sequence[Path], needed: bool) -> None:
    """PamError before anything is trained, if tables cannot be written to the first folder; or, if
    results are needed, if no folder has any."""
    first = folders[0]
    above = next(path for path in (first, *first.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        what = "cannot be written to" if above.is_dir() else "is not a folder"
        raise PamError(f"--results {first.parent}: {above} {what}: choose another folder")
    if needed and not any(folder.is_dir() for folder in folders):
        missing = " and ".join(map(str, folders))
        raise PamError(
            f"--results: there is no folder {missing}: results are FOLDER/SCALE/NAME.json"
        )


def refuse(runs: Sequence[Run], store: Store, folder: Path, expdir: Path) -> None:
    """PamError instead of a second training of an experiment whose result it would replace."""
    if runs:
        file = Path(store[runs[0].name].get(KEPT_IN, folder), f"{runs[0].name}.json")
        lacks = "; ".join(f"{run.name} lacks {', '.join(run.lacks)}" for run in runs)
        raise PamError(
            f"{folder}: {lacks}, and {expdir}/{runs[0].name} has no model.pth: score it where it "
            f"was trained, or remove {file} to train it here"
        )


if __name__ == "__main__":
    run_main(main)
