"""The stored results that tables are made of: RESULTS/SCALE/NAME.json, by pam.bin.report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pam.errors import UserError
from pam.paper.spec import Row
from pam.report.results import read_json
from pam.score.compare import Sums

Store = Mapping[str, Mapping[str, Any]]  # stored results by the name of their experiment
NEEDED = ("system", "scale", "budget", "seed", "options", "sets")
KEPT_IN = "kept_in"  # added to a result: the folder that it was read from, where there are several
NOT_YET = "not trained and scored yet"


def read_store(*folders: Path) -> dict[str, dict[str, Any]]:
    """The results of folders like RESULTS/SCALE, by name in C order; where two folders have one of
    the same name, that of the earlier folder.

    Raises:
        UserError: a damaged file, with its name.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for path in folder.glob("*.json"):
            if path.stem not in found:
                found[path.stem] = _read(path) | ({KEPT_IN: str(folder)} if folders[1:] else {})
    return dict(sorted(found.items()))


def _read(path: Path) -> dict[str, Any]:
    result = read_json(path, dict)
    if missing := [key for key in NEEDED if key not in result]:
        raise UserError(f"{path}: no {missing[0]!r} in it: remove it and run the report again")
    return result


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


def sums_of(entry: Mapping[str, Any], metric: str) -> Sums:
    """What a set of a stored result has of a metric."""
    stored = entry["metrics"][metric]
    numerators = np.asarray(stored["numerators"], dtype=np.float64)
    denominators = stored.get("denominators")
    ones = np.ones_like(numerators)
    return Sums(
        entry["ids"],
        numerators,
        ones if denominators is None else np.asarray(denominators, dtype=np.float64),
        float(stored["scale"]),
        bool(stored.get("errors")),
        entry.get("references"),
        stored.get("model"),
        stored_clusters(entry),
    )


def stored_clusters(entry: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The cluster of each utterance; None in results that do not say."""
    found = entry.get("clusters")
    return found and tuple(found["names"][place] for place in found["of"])
