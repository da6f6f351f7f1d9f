"""Stage 8: report experiments: results.json for each, RESULTS.md and report.html for all of them.

    pam report --exp exp/NAME --store RESULTS/SCALE      store a result for git

The recipe keeps the small results of its experiments in exp/results, which git ignores.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pam.atomic import write_json, write_text
from pam.config.made import (
    PENDING,
    Making,
    add_pending,
    digest,
    file_digest,
    read_record,
    read_records,
    record_digest,
)
from pam.errors import PamError, run_main
from pam.lock import in_turn
from pam.log import get_logger

if TYPE_CHECKING:
    from pam.report.results import Results

STAGE = "report"
OWN = ("results.json", "made.json")  # files in exp/NAME that are not inputs of the report
logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", type=Path, nargs="+", required=True, help="exp/NAME …")
    parser.add_argument("--out", type=Path, help="default: RESULTS.md in the first experiment")
    parser.add_argument("--readme", type=Path, help="also write the tables to this README")
    parser.add_argument("--store", type=Path, help="also write STORE/NAME.json for pam.bin.table")
    parser.add_argument("--samples", type=int, default=3, help="number of answers to show per set")
    parser.add_argument("--figures", choices=("yes", "no"), default="yes")
    parser.add_argument(
        "--html",
        nargs="?",
        type=Path,
        const=True,
        help="also one page with the tables, the figures and all answers; "
        "default: report.html in the folder of --out",
    )
    parser.add_argument(
        "--html_clips", type=int, default=10, help="audio clips per set in the page"
    )
    parser.add_argument(
        "--html_data",
        type=Path,
        help="folder of SET/wav.scp for the clips; default: EXP/../../dump/raw",
    )
    parser.add_argument(
        "--needs", type=Path, nargs="*", default=[], help="EXP/TAG/SET … that must have scores"
    )
    add_pending(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    for folder in args.needs:
        record = read_record(folder, "score")
        if not (folder / "score.json").is_file() or not record:
            raise PamError(f"{folder}/score.json is missing: run stage 7 first")
    makings = [making_of(args, exp) for exp in args.exp]
    if all(making.is_complete() for making in makings) and not args.readme:
        logger.info("complete: %s", " ".join(map(str, products_of(args, args.exp[0]))))
        return 0
    if args.pending:
        return PENDING
    with ExitStack() as stack:
        for exp in sorted(set(args.exp)):
            stack.enter_context(in_turn(exp))
        for making in makings:
            stack.enter_context(making.work())
        work(args)
    return 0


def products_of(args: argparse.Namespace, exp: Path) -> list[Path]:
    out = args.out or args.exp[0] / "RESULTS.md"
    products = [out, exp / "results.json"]
    if args.html:
        products.append(out.parent / "report.html" if args.html is True else args.html)
    if args.store:
        products.append(args.store / f"{exp.resolve().name}.json")
    return products


def making_of(args: argparse.Namespace, exp: Path) -> Making:
    """The record of the report of exp/NAME, which is made again if an input has changed."""
    files = sorted(file for file in exp.glob("*.json") if file.name not in OWN)
    inputs = {file.name: file_digest(file) for file in [exp / "config.yaml", *files]}
    for folder in sorted({score.parent for score in exp.glob("*/*/score*.json")}):
        scores = [file.read_bytes() for file in sorted(folder.glob("score*.json"))]
        records = [record_digest(record) or "" for record in read_records(folder).values()]
        inputs[str(folder.relative_to(exp))] = digest(*scores, *records)
    settings = {"samples": args.samples, "figures": args.figures, "html_clips": args.html_clips}
    after = [record for file in sorted(exp.glob("*/*/made.json")) for record in (
        read_records(file.parent).values())]  # fmt: skip
    after += [record for stage, record in read_records(exp).items() if stage != STAGE]
    return Making(exp, STAGE, settings, inputs, products=products_of(args, exp), after=after)


def work(args: argparse.Namespace) -> None:
    from pam.report import figures, tables
    from pam.report.blocks import to_markdown
    from pam.report.document import COMPARISON, document
    from pam.report.readme import update_readme
    from pam.report.results import read_results
    from pam.report.store import stored_result, write_stored

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
    for exp, results in pairs:
        write_json(exp / "results.json", results)
        if main := next(iter(results["decodings"].values()), None):
            print(to_markdown([tables.main_table(main)]))
    logger.info("%s", out)


def write_page(
    args: argparse.Namespace,
    folder: Path,
    experiments: Sequence["Results"],
    drawn: Mapping[str, Sequence[Path]],
) -> None:
    """Write the page. It has all answers, so its document has no samples."""
    from pam.report.document import document
    from pam.report.page import page

    out = folder / "report.html" if args.html is True else args.html
    blocks = document(experiments, drawn, folder, samples=False)
    data = [args.html_data or exp.resolve().parents[1] / "dump" / "raw" for exp in args.exp]
    written = page(blocks, folder, experiments, args.exp, data, args.html_clips)
    write_text(out, written)
    logger.info("%s: %.1f MB", out, len(written) / 1e6)


def can_draw() -> bool:
    from pam.report import figures

    if not figures.can_draw():
        logger.info("no figures: matplotlib is not installed (pip install .[report])")
    return figures.can_draw()


if __name__ == "__main__":
    run_main(main)
