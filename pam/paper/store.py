"""The stored results that tables are made of: RESULTS/SCALE/NAME.json, by pam.bin.report."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pam.errors import PamError
from pam.paper.spec import Row
from pam.paper.stored import check_result
from pam.report.results import read_json

Store = Mapping[str, Mapping[str, Any]]  # stored results by the name of their experiment
NEEDED = ("system", "scale", "budget", "seed", "options", "sets")
FILE = "file"  # added to a result: where it was read
KEPT_IN = "kept_in"  # and its folder, where there are several
NOT_YET = "not trained and scored yet"


def read_store(*folders: Path) -> dict[str, dict[str, Any]]:
    """The results of folders like RESULTS/SCALE, by name in C order. If two folders have a result
    of the same name, the first folder counts.

    Raises:
        PamError: a damaged file, or one with an impossible value, with its name.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for path in (path for path in folder.glob("*.json") if path.stem not in found):
            result = read_json(path, dict)
            if result is None:
                raise PamError(f"{path}: not a file: remove it")
            for key in NEEDED:
                if key not in result:
                    raise PamError(f"{path}: no {key!r} in it: remove it and run the report again")
            check_result(result, str(path))
            result |= {"name": path.stem, FILE: str(path)}
            found[path.stem] = result | ({KEPT_IN: str(folder)} if folders[1:] else {})
    return dict(sorted(found.items()))


def stored_runs(
    row: Row, store: Store, scale: str, budget: str
) -> tuple[dict[int, Mapping[str, Any]], str | None]:
    """The row's results by seed, and why there is none.

    PamError for a result that is of another scale, budget, seed or system than its name says.
    """
    if row.missing:
        return {}, row.missing
    found, gap = {}, NOT_YET
    for seed, result in named(row, store, scale, budget).items():
        if set(row.options) <= set(result["options"]):
            found[seed] = result
        else:
            gap = f"{result['name']} was made with other options"
    return dict(sorted(found.items())), None if found else gap


def named(row: Row, store: Store, scale: str, budget: str) -> dict[int, Mapping[str, Any]]:
    """The results with the names of the row's experiments, by seed; their options may differ."""
    form = re.compile(
        re.escape(row.experiment(scale, budget, 0)).removesuffix("0") + r"(0|[1-9]\d*)"
    )
    found = {}
    for name, result in store.items():
        if match := form.fullmatch(name):
            seed = int(match[1])
            says = {"system": row.system, "scale": scale, "budget": budget, "seed": seed}
            for key, expected in says.items():
                if result[key] != expected:
                    what = f"{key} {result[key]!r}: its name says {expected!r}"
                    raise PamError(f"{result[FILE]}: {what}: rename or remove it")
            found[seed] = result
    return found
