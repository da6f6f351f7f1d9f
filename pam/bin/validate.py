"""Validate a Kaldi-style data directory; --fix drops what is bad and sorts the rest."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from pam.data.audio import load_audio
from pam.data.datadir import DataDir, fix, validate
from pam.data.scp import Problem
from pam.errors import UserError, run_main

LINES_PER_RULE = 10


def audio_exists(path: str) -> str | None:
    """What is wrong with the path of a recording, without reading it."""
    return None if Path(path).is_file() else f"{path}: no such audio file: correct the path"


def audio_decodes(path: str) -> str | None:
    """What is wrong with a recording, by reading all of it."""
    try:
        load_audio(path)
    except UserError as error:
        return str(error)
    return None


AUDIO_CHECKS = {"none": None, "exists": audio_exists, "decode": audio_decodes}


def print_problems(problems: Iterable[Problem], every: bool) -> None:
    """Print warnings and faults, of each rule the first ones and a count of the others."""
    rules: dict[tuple[bool, str], list[Problem]] = {}
    for problem in problems:
        rules.setdefault((not problem.warning, problem.rule.split(":")[0][:30]), []).append(problem)
    for (is_error, _), found in sorted(rules.items(), key=lambda item: item[0][0]):
        shown = found if every else found[:LINES_PER_RULE]
        for problem in shown:
            print(f"{'error' if is_error else 'warning'}: {problem}")
        if len(shown) < len(found):
            print(f"  … and {len(found) - len(shown)} more of this kind (--all shows them)")


def main(argv: list[str] | None = None) -> int:
    """python -m pam.bin.validate DIR [--fix]; exit status 1 where a fault remains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dirs", nargs="+", metavar="DIR")
    parser.add_argument("--fix", action="store_true", help="mend; the files before are in .backup/")
    parser.add_argument("--audio", choices=AUDIO_CHECKS, default="exists")
    parser.add_argument("--all", action="store_true", help="print every line, not the first ten")
    args = parser.parse_args(argv)
    status = 0
    for path in args.dirs:
        problems = (fix if args.fix else validate)(path, AUDIO_CHECKS[args.audio])
        print_problems(problems, args.all)
        errors = sum(not problem.warning for problem in problems)
        if errors and not args.fix:
            print(f"{path}: {errors} errors; drop and mend with: utils/fix_data_dir.sh {path}")
            status = 1
        else:
            mended = f", {errors} errors dropped or mended" if errors else ""
            print(f"{path}: valid, {len(DataDir.read(path))} utterances{mended}")
    return status


if __name__ == "__main__":
    run_main(main)
