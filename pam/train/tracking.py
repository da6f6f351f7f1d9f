"""Weights & Biases as an option of training, through ESPnet's options."""

from collections.abc import Mapping
from typing import Any

from pam.errors import PamError


def wandb_options(conf: Mapping[str, str] | None, name: str) -> dict[str, Any]:
    """ESPnet's options for a run `name` of `conf` (`Wandb` of pam.config.schema); {} without it.

    PamError if there is no project, package or login.
    """
    if not conf:
        return {}
    if "project" not in conf:
        raise PamError("wandb: it has no project: give wandb.project too")
    try:
        import wandb
    except ImportError as error:
        raise PamError(
            f"wandb.project={conf['project']}: the package wandb is not installed: "
            "pip install .[wandb], or leave the key out"
        ) from error
    try:
        wandb.login()
    except wandb.errors.UsageError as error:  # ESPnet would train without it
        raise PamError(
            f"wandb.project={conf['project']}: {error}: run `wandb login`, or set "
            "WANDB_MODE=offline"
        ) from error
    return {
        "use_wandb": True,
        "wandb_project": conf["project"],
        "wandb_entity": conf.get("entity"),
        "wandb_name": name,
    }
