"""What a recipe's options may be, each alone and together (pam/bin/recipe.py)."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pam.data.prompts import PROMPT_SPLITS
from pam.errors import PamError
from pam.score import CAPTION_METRICS

# Options that change nothing without --table, and those that a table chooses itself, with the why;
# the last two also where the table is early exit's page.
OF_TABLES = ("seeds", "at_once", "published", "dry_run")
OF_ONE = "a table trains each of its systems under a name of its own"
UNSEEN = "tables use decoding with unseen prompts"
BY_TABLES = {"system": OF_ONE, "expname": OF_ONE, "prompts": UNSEEN, "inference_tag": UNSEEN}
BY_TABLES |= {"analyse": "a table analyses the models whose analysis it shows"}
BY_TABLES |= {"llm": "no name of a result says it (a row of conf/tables can, with `llm:`)"}
BY_ALL_TABLES = dict.fromkeys(("stage", "stop_stage"), "a table runs the stages that it needs")
EARLY_EXIT = "early_exit"  # the --table that is a page
LAST_STAGE = 8
PROCESSES = re.compile(r"([1-9]\d*)?")
SECONDS = re.compile(r"(\d+\.?\d*|\.\d+)?")

Options = Mapping[str, str]


def check_options(options: Options, conf: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """PamError for an invalid value. The type of a default (integer, boolean) is that of the
    option."""
    check_choice("budget", options["budget"], list(conf["budgets"]))
    check_choice("prompts", options["prompts"], PROMPT_SPLITS)
    check_choice("size", options["size"], ("tiny", "short", "long"))
    for metric in options["metrics"].replace(",", " ").split():
        check_choice("metrics", metric, list(CAPTION_METRICS.entries))
    for name, default in known.items():
        if default in ("true", "false"):
            check_choice(name, options[name], ("true", "false"))
        elif default.isdigit() and not re.fullmatch(r"0|[1-9]\d*", options[name], re.ASCII):
            raise PamError(f"--{name} {options[name]}: expected a whole number")
    check_stages(options)
    if "table" in known:
        check_options_of_tables(options, known)
    if not re.fullmatch(r"[\d\s]*", options.get("seeds", ""), re.ASCII):
        raise PamError(f'--seeds {options["seeds"]}: expected whole numbers, such as "0 1"')
    for name in ("nj", "train_nj", "inference_nj"):
        if not PROCESSES.fullmatch(options[name]):
            what = "expected a number of processes, or nothing"
            raise PamError(f"--{name} {options[name]}: {what}")
    if int(options["num_nodes"]) < 1:
        raise PamError(f"--num_nodes {options['num_nodes']}: expected 1 machine or more")
    if not re.fullmatch(r"[0-9.]+%?", options["max_bad"]):
        raise PamError(f"--max_bad {options['max_bad']}: expected a share like 0.5%")
    for name in ("min_seconds", "max_seconds"):
        if not SECONDS.fullmatch(options[name]):
            what = "expected seconds, such as 20 or 0.5, or nothing"
            raise PamError(f"--{name} {options[name]}: {what}")
    least, most = options["min_seconds"] or "0", options["max_seconds"]
    if most and float(least) >= float(most):
        raise PamError(f"--min_seconds {least} --max_seconds {most}: the second must be larger")


def check_stages(options: Options) -> None:
    first, last = int(options["stage"]), int(options["stop_stage"])
    if not 1 <= first <= LAST_STAGE:
        raise PamError(f"--stage {first}: expected a stage, 1 to {LAST_STAGE}")
    if last < first:
        raise PamError(f"--stage {first} --stop_stage {last}: the second must not be smaller")
    numbers = [str(number) for number in range(1, LAST_STAGE + 1)]
    if not set(filter(None, options["skip_stages"].split(" "))) <= set(numbers):
        what = f'expected stages, 1 to {LAST_STAGE}, with spaces between them, such as "3 5"'
        raise PamError(f"--skip_stages {options['skip_stages']}: {what}")


def check_options_of_tables(options: Options, known: Mapping[str, str]) -> None:
    """PamError for an option that would change nothing, with --table or without."""
    table, given = options["table"], [name for name in known if options[name] != known[name]]
    if not table:
        for name in (name for name in OF_TABLES if name in given):
            raise PamError(f"--{name} {options[name]}: name a --table, or leave this out")
        return
    chosen = BY_ALL_TABLES | (BY_TABLES if table != EARLY_EXIT else {})
    for name in (name for name in chosen if name in given):
        what = f"{chosen[name]}: leave it out"
        raise PamError(f"--table {table}: --{name} {options[name]}: {what}")
    if options["seeds"] and "seed" in given:
        what = f"--seeds {options['seeds']} names the seeds: leave out one of them"
        raise PamError(f"--table {table}: --seed {options['seed']}: {what}")
    if table != EARLY_EXIT and set(options["skip_stages"].split()) - {*"123"}:
        what = "a system without stages 4 to 8 has no result: leave out others than 1 2 3"
        raise PamError(f"--table {table}: --skip_stages {options['skip_stages']}: {what}")


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    choices = list(choices)
    if value not in choices:
        known = f"choose from {' '.join(choices)}{guess(value, choices)}"
        raise PamError(f"--{option} {value}: {known}")


def guess(value: str, choices: Iterable[str]) -> str:
    near = get_close_matches(value, list(choices), n=1)
    return f"; did you mean {near[0]}?" if near else ""
