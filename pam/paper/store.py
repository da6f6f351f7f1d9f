"""The stored results that tables are made of: RESULTS/SCALE/NAME.json, by pam.bin.report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pam.errors import PamError
from pam.paper.spec import Row
from pam.report.results import read_json

Store = Mapping[str, Mapping[str, Any]]  # stored results by the name of their experiment
NEEDED = ("system", "scale", "budget", "seed", "options", "sets")
KEPT_IN = "kept_in"  # added to a result: the folder that it was read from, where there are several
NOT_YET = "not trained and scored yet"


def read_store(*folders: Path) -> dict[str, dict[str, Any]]:
    """The results of folders like RESULTS/SCALE, by name in C order. If two folders have a result
    of the same name, the first folder counts.

    Raises:
        PamError: a damaged file, with its name.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for path in (path for path in folder.glob("*.json") if path.stem not in found):
            result = read_json(path, dict) | {"name": path.stem}
            for key in NEEDED:
                if key not in result:
                    raise PamError(f"{path}: no {key!r} in it: remove it and run the report again")
            found[path.stem] = result | ({KEPT_IN: str(folder)} if folders[1:] else {})
    return dict(sorted(found.items()))


def stored_runs(
    row: Row, store: Store, scale: str, budget: str
) -> tuple[dict[int, Mapping[str, Any]], str | None]:
    """The row's results by seed, and why there is none."""
    if row.missing:
        return {}, row.missing
    found, gap = {}, NOT_YET
    for name, result in store.items():
        seed = result.get("seed")
        if seed is None or name != row.experiment(scale, budget, seed):
            continue
        if result["system"] == row.system and set(row.options) <= set(result["options"]):
            found[seed] = result
        else:
            gap = f"{name} was made with other options"
    return dict(sorted(found.items())), None if found else gap
