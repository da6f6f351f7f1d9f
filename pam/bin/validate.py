"""Validate Kaldi-style data directories; --fix drops bad entries and sorts the others.

pam validate data/my_train --audio decode
pam validate data/my_train --fix
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pam.data.audio import check_audio, stated_seconds
from pam.data.datadir import MAKE_AGAIN, MAKE_TASKS, DataDir, check, fix_command, replace
from pam.data.rules import AudioCheck, Seconds
from pam.data.scp import Problem, line_numbers
from pam.data.shards import file_of, is_member, open_member
from pam.errors import PamError, run_main

LINES_PER_RULE = 10
IDS_SHOWN = 10


def audio_exists(path: str) -> str | None:
    """The fault of a recording's path, or None; its audio is not read."""
    if not file_of(path).is_file():
        return f"{path}: no such audio file: correct the path"
    try:
        if is_member(path):
            open_member(path)
    except PamError as error:
        return str(error)
    return None


def audio_decodes(path: str) -> str | None:
    """The fault of a recording, or None; the whole file is read."""
    try:
        check_audio(path)
    except PamError as error:
        return str(error)
    return None


DEFAULT_AUDIO = "exists"
AUDIO_CHECKS = {"none": None, "exists": audio_exists, "decode": audio_decodes}


def print_problems(problems: Iterable[Problem], every: bool) -> None:
    """Print warnings and faults: for each rule the first ones, and the number of the others."""
    rules: dict[tuple[bool, str], list[Problem]] = {}
    for problem in problems:
        rules.setdefault((not problem.warning, problem.rule.split(":")[0][:30]), []).append(problem)
    for (is_error, _), found in sorted(rules.items(), key=lambda item: item[0][0]):
        shown = found if every else found[:LINES_PER_RULE]
        for problem in shown:
            print(f"{'error' if is_error else 'warning'}: {problem}")
        if len(shown) < len(found):
            print(f"  … and {len(found) - len(shown)} more of this kind (--all shows them)")


def examine(path: Path, audio: str, every: bool) -> bool:
    """Print the faults of a directory; returns whether it is usable."""
    good, problems = check(path, *_checks(audio))
    print_problems(problems, every)
    errors = sum(not problem.warning for problem in problems)
    if errors and good.is_usable:
        how = [] if audio == DEFAULT_AUDIO else ["--audio", audio]  # the same checks
        print(f"{path}: {errors} errors; fix the directory with: {fix_command(path, *how)}")
    elif errors and good.lacks_only_tasks:
        print(f"{path}: {errors} errors: {MAKE_TASKS}")
    elif errors:
        print(f"{path}: {errors} errors, no utterance is good: correct the lines, or {MAKE_AGAIN}")
    else:
        print(f"{path}: valid, {len(good)} utterances")
    return not errors


def as_dict(path: Path, audio: str) -> dict[str, Any]:
    """The faults of a directory, and the number of its good utterances, for programs."""
    good, problems = check(path, *_checks(audio))
    return {
        "dir": str(path),
        "valid": all(problem.warning for problem in problems),
        "utterances": len(good.files.get("text", {})),
        "problems": [asdict(problem) for problem in problems],
    }


def mend(path: Path, audio: str, every: bool) -> None:
    """Fix a directory; print its faults and the dropped utterances."""
    good, problems = check(path, *_checks(audio))
    print_problems(problems, every)
    before = _utterances(path) if any(not problem.warning for problem in problems) else set()
    replace(path, good, problems)
    print(f"{path}: valid, {len(DataDir.read(path))} utterances", end="")
    if before:
        dropped = sorted(before - good["text"].keys())
        errors = sum(not problem.warning for problem in problems)
        print(f", {errors} errors mended, {len(dropped)} utterances dropped", end="")
        shown = dropped if every else dropped[:IDS_SHOWN]
        print(": " * bool(shown) + " ".join(shown) + " …" * (len(shown) < len(dropped)), end="")
    print()


def _checks(audio: str) -> tuple[AudioCheck | None, Seconds | None]:
    return AUDIO_CHECKS[audio], stated_seconds if audio != "none" else None


def _utterances(path: Path) -> set[str]:
    """All ids in `text` and `utt2spk`, valid or not."""
    files = [path / name for name in ("text", "utt2spk") if (path / name).is_file()]
    return set().union(*(line_numbers(file) for file in files))


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dirs", nargs="+", metavar="DIR")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--fix",
        action="store_true",
        help="fix the directory; the old files are kept in .backup/, "
        "of a second time in .backup.1/ …",
    )
    what.add_argument("--json", action="store_true", help="print the faults as JSON")
    parser.add_argument(
        "--audio", choices=AUDIO_CHECKS, default=DEFAULT_AUDIO,
        help="none: no check; exists: files exist and segments end within them; decode: read all",
    )  # fmt: skip
    parser.add_argument(
        "--all", action="store_true", help="print every line, not only the first ten"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """python -m pam.bin.validate DIR [--fix]; exit status 1 if a fault remains."""
    args = get_parser().parse_args(argv)
    if "" in args.dirs:
        raise PamError("DIR '': expected a data directory; the current one is .")
    dirs = [Path(name) for name in args.dirs]
    if args.fix:
        for path in dirs:
            mend(path, args.audio, args.all)
        return 0
    if args.json:
        found = [as_dict(path, args.audio) for path in dirs]
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0 if all(entry["valid"] for entry in found) else 1
    usable = [examine(path, args.audio, args.all) for path in dirs]
    return 0 if all(usable) else 1


if __name__ == "__main__":
    run_main(main)
