"""Measure early exit token by token: exits.json and figures (pam/exits).

python -m pam.bin.exit_analysis --exp exp/NAME --data dump/raw/SET …      a trained model
python -m pam.bin.exit_analysis --llm cache:NAME --text FILE --out DIR    an LLM on plain text
python -m pam.bin.exit_analysis --page EARLY_EXIT.md --results FOLDER     the page of all results
"""

import argparse
import json
from pathlib import Path
from typing import Any

from pam.atomic import write_text
from pam.config.made import Making, file_digest
from pam.data.digests import data_digest
from pam.device import device_for
from pam.errors import PamError, run_main
from pam.exits.store import compact
from pam.log import get_logger

logger = get_logger(__name__)
FILE = "exits.json"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--exp", type=Path, help="exp/NAME with model.pth")
    what.add_argument("--llm", help="an LLM: a folder, a name on the hub, or cache:NAME")
    what.add_argument("--page", type=Path, help="write this page from the results in --results")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="sets, with --exp")
    parser.add_argument("--text", type=Path, help="a text file, with --llm")
    parser.add_argument(
        "--answers",
        type=Path,
        help="read the answers in DIR/SET/hyp.jsonl; default: the references",
    )
    parser.add_argument(
        "--train", type=Path, help="combined training directory, for the frequency of tokens"
    )
    parser.add_argument(
        "--utts", type=int, default=0, help="utterances of each set, or blocks of the text; 0: all"
    )
    parser.add_argument(
        "--layers_only", action="store_true", help="leave out the points within a layer"
    )
    parser.add_argument("--out", type=Path, help="default: exp/NAME/exits")
    parser.add_argument("--name", help="name of the result; default: that of exp/NAME")
    parser.add_argument("--results", type=Path, help="folder to which NAME.json is written, too")
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    if args.page:
        write_page(args)
        return
    device_for(args.ngpu)
    check(args)
    args.out = args.out or args.exp / "exits"
    args.name = args.name or (args.exp.resolve().name if args.exp else args.out.name)
    found = analyse(args)
    draw(found, args.out)
    if args.results:
        write_text(args.results / f"{args.name}.json", compact(found))
        logger.info("%s", args.results / f"{args.name}.json")


def check(args: argparse.Namespace) -> None:
    """PamError for options that do not fit together."""
    if args.exp and not args.data:
        raise PamError("--data is missing: name the sets to read, such as dump/raw/asr_clean_test")
    if args.llm and not (args.text and args.out):
        raise PamError(f"--{'out' if args.text else 'text'} is missing: see --help")
    if args.utts < 0:
        raise PamError(f"--utts {args.utts}: expected 0 (all) or more")
    for data in args.data:
        if not (data / "utt2task").is_file():
            raise PamError(f"--data {data}: not a dumped set: run stage 2 first")
        if args.answers and not (file := args.answers / data.name / "hyp.jsonl").is_file():
            raise PamError(f"--answers: {file}: there is no such file: run stage 6 first")


def analyse(args: argparse.Namespace) -> dict[str, Any]:
    """exits.json, one set after another; sets of the same model, data and settings stay."""
    inputs = {data.name: data_digest(data) for data in args.data}
    if args.exp:
        inputs["model"] = file_digest(args.exp / "model.pth")
    else:
        inputs["text"] = file_digest(args.text)
    options = {
        key: getattr(args, key) and str(getattr(args, key))
        for key in ("llm", "answers", "train", "utts", "layers_only", "name")
    }
    making = Making(args.out, "exit_analysis", options, inputs)
    path, found = args.out / FILE, {}
    if (making.is_complete() or making.resumes()) and path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
    else:
        making.begin()
    sets = [data.name for data in args.data] or [args.text.name]
    if not making.is_complete() or set(sets) - found.get("sets", {}).keys():
        from pam.exits.analyse import Analysis

        analysis = Analysis(args, found)
        for name in sets:
            if name not in found.get("sets", {}):
                logger.info("measuring %s", name)
                found = analysis.add(name)
                write_text(path, compact(found))
        making.finish()
    return found


def draw(found: dict[str, Any], out: Path) -> None:
    from pam.report.figures import can_draw

    if can_draw():
        from pam.exits.plots import draw_exits

        for path in draw_exits(found, out):
            logger.info("%s", path)


def write_page(args: argparse.Namespace) -> None:
    """The page and its figures, from the results of several models."""
    from pam.exits.page import document
    from pam.exits.plots import draw_page
    from pam.exits.store import read_folder

    if args.results is None:
        raise PamError("--results is missing: the folder with the results, NAME.json")
    found = read_folder(args.results)
    draw_page(found, args.results)
    write_text(args.page, document(found, args.results, args.page))
    logger.info("%s", args.page)


if __name__ == "__main__":
    run_main(main)
