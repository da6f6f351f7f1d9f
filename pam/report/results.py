"""results.json: what an experiment measured, for programs; gaps are null or absent."""

from typing import Any

from pam.report.experiment import Experiment
from pam.score.router import POOLS


def results(experiment: Experiment) -> dict[str, Any]:
    """The content of exp/NAME/results.json."""
    config = experiment.config
    return {
        "system": config.get("system"),
        "scale": config.get("scale"),
        "seed": config.get("seed"),
        "budget": config.get("budget"),
        "commit": experiment.environment["commit"],
        "sets": {name: _set(result.score) for name, result in experiment.sets.items()},
        "router": _router(experiment.router),
        "hearing": _hearing(experiment.hearing),
        "seconds": dict(experiment.seconds),
    }


def _set(score: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in score.items() if key not in ("set", "confusion")}


def _router(router: dict[str, Any] | None) -> dict[str, Any] | None:
    if router is None:
        return None
    keys = ("correct", "count", "accuracy")
    return {pool: {key: router[pool][key] for key in keys} for pool in POOLS if pool in router}


def _hearing(hearing: dict[str, Any] | None) -> dict[str, Any] | None:
    if hearing is None:
        return None
    keys = ("dev_loss", "dev_loss_shuffled")
    return {task: {key: entry.get(key) for key in keys} for task, entry in hearing.items()}
