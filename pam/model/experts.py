"""Names of the routed experts: their tasks, if routing is trained with task labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from pam.config.schema import FUSIONS
from pam.config.source import attribute_of, registered


def experts_have_tasks(config: Mapping[str, Any]) -> bool:
    """Whether task labels tie each expert to a task.

    False for Table 11's "audio-based" and "without task label": there the expert of a task is
    arbitrary, so routing has no accuracy.
    """
    conf = config.get("model_conf") or {}
    labelled = conf.get("routing_loss", True) or conf.get("routing", "label") == "label"
    fusion = registered(FUSIONS).get(config.get("fusion"))
    return labelled and not (fusion and attribute_of(fusion, "has_own_router"))


def expert_names(tasks: Sequence[str], labelled: bool) -> list[str]:
    """The tasks, or numbers if experts have no tasks."""
    return list(tasks) if labelled else [f"expert {n}" for n in range(1, len(tasks) + 1)]
