"""Say what is missing here, which stage needs it and how to get it. Nothing is fetched.

    pam doctor                   for the mini scale
    pam doctor --scale paper     for the models of another scale
    pam doctor --exp exp/NAME    for asking this model
    pam doctor --json            for programs

The exit status is 1 if something is missing that the main job needs. In a clone, that is a recipe
at the mini scale; with --exp, or where only the package is installed, it is `pam transcribe`. A
package of another version than that of the tests is only noted.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pam import environment
from pam.bin.doctor_checks import RECIPE, STAGES, Check, all_checks, main_job
from pam.errors import run_main

MARKS = {"ok": "ok", "missing": "MISSING", "optional": "not here"}


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="mini", help="a file of conf/scale, or a path")
    parser.add_argument("--exp", type=Path, help="exp/NAME, whose models are looked for instead")
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    checks, job = list(all_checks(args.scale, args.exp)), main_job(args.exp)
    print(as_json(checks, job) if args.json else as_text(checks, job))
    return 1 if any(check.stops(job) for check in checks) else 0


def state_of(check: Check, job: Sequence[str]) -> str:
    return "ok" if check.found else "missing" if check.stops(job) else "optional"


def as_text(checks: Sequence[Check], job: Sequence[str]) -> str:
    """The table, then a line for each stage."""
    table = [("", "what", "found", "for", "how to get it")]
    for check in checks:
        mark, remedy = MARKS[state_of(check, job)], "" if check.found else check.remedy
        table.append((mark, check.what, check.found or "—", names_of(check.needs), remedy))
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in table
    ]
    notes = [f"note: {check.note}" for check in checks if check.note]
    return "\n".join([environment.machine(), "", *lines, *notes, "", *by_stage(checks)])


def names_of(needs: Sequence[str]) -> str:
    """Names of stages: `4 train, 5 average`, or `all`."""
    named = {tuple(STAGES): "all", RECIPE: "stages 1 to 8"}
    return named.get(tuple(needs)) or ", ".join(STAGES[stage] for stage in needs)


def by_stage(checks: Sequence[Check]) -> list[str]:
    """What each stage lacks; what it can run without is in brackets."""
    lines = []
    for stage, name in STAGES.items():
        lacking = missing_of(checks, stage)
        ready = [] if any(check.required for check in lacking) else ["ready"]
        listed = [check.what if check.required else f"({check.what})" for check in lacking]
        lines.append(f"{name}: {'; '.join([*ready, *listed])}")
    return lines


def missing_of(checks: Sequence[Check], stage: str) -> list[Check]:
    return [check for check in checks if not check.found and stage in check.needs]


def as_json(checks: Sequence[Check], job: Sequence[str]) -> str:
    report = {
        "ready": not any(check.stops(job) for check in checks),
        "machine": environment.machine(),
        "versions": environment.versions(),
        "checks": [asdict(check) | {"state": state_of(check, job)} for check in checks],
        "stages": {
            name: [check.what for check in missing_of(checks, stage)]
            for stage, name in STAGES.items()
        },
    }
    return json.dumps(report, indent=2, ensure_ascii=False)


if __name__ == "__main__":
    run_main(main)
