"""Report experiments: results.json for each, RESULTS.md and report.html for all of them.

    python -m pam.bin.report --exp exp/NAME --store RESULTS/SCALE      keep a result, to commit it

The recipe keeps the small results of its experiments in exp/results, which git ignores.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from pam.atomic import write_json, write_text
from pam.errors import run_main
from pam.log import get_logger
from pam.report import figures
from pam.report.blocks import to_markdown
from pam.report.document import COMPARISON, document
from pam.report.page import page
from pam.report.readme import update_readme
from pam.report.results import Results, read_results
from pam.report.store import stored_result, write_stored

logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", type=Path, nargs="+", required=True, help="exp/NAME …")
    parser.add_argument("--out", type=Path, help="default: RESULTS.md in the first of them")
    parser.add_argument("--readme", type=Path, help="also put the tables into this README")
    parser.add_argument("--store", type=Path, help="also keep DIR/NAME.json for pam.bin.table")
    parser.add_argument("--samples", type=int, default=3, help="answers to show of every set")
    parser.add_argument("--figures", choices=("yes", "no"), default="yes")
    parser.add_argument(
        "--html",
        nargs="?",
        type=Path,
        const=True,
        help="also one page with the tables, the figures and all answers; "
        "default: report.html beside --out",
    )
    parser.add_argument("--html_clips", type=int, default=10, help="audio clips of each set in it")
    parser.add_argument(
        "--html_data", type=Path, help="SET/wav.scp of its clips; default: EXP/../../dump/raw"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    out = args.out or args.exp[0] / "RESULTS.md"
    experiments = [read_results(exp, args.samples) for exp in args.exp]
    pairs = list(zip(args.exp, experiments, strict=True))
    drawn: dict[str, list[Path]] = {}
    if args.figures == "yes" and can_draw():
        drawn = {results["name"]: figures.draw(exp, results) for exp, results in pairs}
        if len(pairs) > 1:
            drawn[COMPARISON] = figures.draw_comparison(pairs, out.parent / "figures")
    write_text(out, to_markdown(document(experiments, drawn, out.parent)) + "\n")
    if args.html:
        write_page(args, out.parent, experiments, drawn)
    if args.readme:
        update_readme(args.readme, experiments)
    if args.store:
        for exp, results in pairs:
            write_stored(args.store / f"{results['name']}.json", stored_result(exp, results))
    # Last: the recipe takes results.json for the sign that the report is done.
    for exp, results in pairs:
        write_json(exp / "results.json", results)
    logger.info("%s", out)


def write_page(
    args: argparse.Namespace,
    folder: Path,
    experiments: Sequence[Results],
    drawn: Mapping[str, Sequence[Path]],
) -> None:
    """The page has all answers: its document needs no samples of them."""
    out = folder / "report.html" if args.html is True else args.html
    blocks = document(experiments, drawn, folder, samples=False)
    data = [args.html_data or exp.resolve().parents[1] / "dump" / "raw" for exp in args.exp]
    written = page(blocks, folder, experiments, args.exp, data, args.html_clips)
    write_text(out, written)
    logger.info("%s: %.1f MB", out, len(written) / 1e6)


def can_draw() -> bool:
    if not figures.can_draw():
        logger.info("no figures: matplotlib is not installed (pip install .[report])")
    return figures.can_draw()


if __name__ == "__main__":
    run_main(main)
