"""What a system is at a scale: settings of both, its encoders, and the sizes of its fusion."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.config import check_keys, load_yaml, merge, set_option
from pam.data.tasks import TASKS, get_task
from pam.errors import UserError
from pam.registry import nearest
from pam.train.schema import check_parts, check_sections, require

KEYS = [
    "encoders",
    "use_encoders",
    "stand_ins",
    "llm_conf",
    "fusion",
    "fusion_conf",
    "fusions",
    "router_conf",
    "tasks",
    "model_conf",
    "trainable",
    "feats",
    "merge_asr_prompts",
    "warmup",
    "warmup_tasks",
    "batch",
    "prompts_per_batch",
    "router_prompts",
    "dev_utts",
    "num_workers",
    "accum_grad",
    "grad_clip",
    "keep_nbest_models",
    "log_interval",
    "phases",
    "budgets",
]

OPTIONAL = ("conf", "adapter", "optim_conf", "stand_ins")  # sections that --set may begin
LENGTHS = ("steps", "epochs")  # of a budget

DEFAULTS = {
    "fusion_conf": {},
    "router_conf": {},
    "model_conf": {},
    "tasks": None,
    "merge_asr_prompts": False,
    "warmup_tasks": ["asr_clean", "asr_noisy"],
    "prompts_per_batch": 0,
    "router_prompts": 1,
    "dev_utts": 0,
    "num_workers": 0,
    "accum_grad": 1,
    "grad_clip": 1.0,
    "keep_nbest_models": 1,
    "log_interval": 50,
}


def read_layers(
    scale: str | Path, system: str | Path, llm: str | Path | None = None
) -> tuple[dict, dict]:
    """The scale with the LLM in the place of its own, and the system."""
    files = [scale, system, *([llm] if llm else [])]
    layers = [load_yaml(file) for file in files]
    for file, layer in zip(files, layers, strict=True):
        check_keys(layer, KEYS, str(file))
        check_sections(layer, str(file))
    for file, layer in zip(files, layers, strict=True):
        check_parts(layer, str(file))
    return merge(layers[0], *layers[2:]), layers[1]


def combine(
    scale: dict, system: dict, assignments: Iterable[str] = (), tasks: Iterable[str] = TASKS
) -> dict:
    """The system at the scale; `assignments` are those of --set, `tasks` those of the data, by
    default the paper's."""
    scale = with_fusion_sizes(scale, system.get("fusion", scale.get("fusion")))
    config = merge(DEFAULTS, scale, system)
    for assignment in assignments:
        _assign(config, assignment)
    check_keys(config, KEYS, "--set")
    check_sections(config, "--set")
    check_parts(config, "--set")
    require(config, ["encoders"], "the scale's configuration")
    for task in config["warmup_tasks"]:
        get_task(task)
    config["tasks"] = config["tasks"] or list(tasks)
    config.pop("fusions", None)
    chosen, stand_ins = config.pop("use_encoders", None), config.pop("stand_ins", {})
    return config | {"encoders": select_encoders(config["encoders"], chosen, stand_ins)}


def _assign(config: dict[str, Any], assignment: str) -> None:
    if re.match(r"fusions\b", assignment):  # they are chosen from already
        raise UserError(f"--set {assignment}: give the options of the fusion as fusion_conf.OPTION")
    keys, section = set_option(config, assignment, OPTIONAL)
    if keys[0] == "budgets" and keys[-1] in LENGTHS:
        for other in set(LENGTHS) - {keys[-1]}:  # a budget has one
            section.pop(other, None)


def select_encoders(
    encoders: Mapping[str, Mapping[str, Any]],
    chosen: Sequence[str] | None,
    stand_ins: Mapping[str, str],
) -> dict[str, Mapping[str, Any]]:
    """The encoders that `use_encoders` names, in the scale's order; all of them for None.

    A name is that of an encoder of the scale, or a family's (`wavlm`), which stands for the scale's
    encoder of that family, or for the one that `stand_ins` gives it where the scale has none.
    """
    if chosen is None:
        return dict(encoders)
    if not isinstance(chosen, list) or not chosen:
        raise UserError(f"use_encoders: {chosen!r}: expected a list of names, like [whisper]")
    picked = [_find(str(name), encoders, stand_ins) for name in chosen]
    if len(set(picked)) < len(picked):
        raise UserError(
            f"use_encoders: {', '.join(map(str, chosen))} are here {', '.join(picked)}: "
            "name each encoder once"
        )
    return {name: spec for name, spec in encoders.items() if name in picked}


def _find(
    name: str, encoders: Mapping[str, Mapping[str, Any]], stand_ins: Mapping[str, str]
) -> str:
    if name in encoders:
        return name
    family = [encoder for encoder, spec in encoders.items() if spec.get("family") == name]
    if len(family) > 1:
        raise UserError(f"use_encoders: {name!r} may be {' or '.join(family)}: give one of these")
    if not family and name not in stand_ins:
        families = [spec["family"] for spec in encoders.values() if "family" in spec]
        known = {*encoders, *families, *stand_ins}
        raise UserError(f"use_encoders: unknown encoder {name!r}: {nearest(name, known)}")
    found = family[0] if family else stand_ins[name]
    if found not in encoders:
        raise UserError(f"stand_ins.{name}: {found!r} is no encoder: {nearest(found, encoders)}")
    return found


def with_fusion_sizes(scale: Mapping[str, Any], fusion: str | None) -> dict[str, Any]:
    """The scale with `fusions.NAME` in place of `fusion_conf`, where it has that."""
    sizes = scale.get("fusions") or {}
    return {**scale, "fusion_conf": sizes[fusion]} if fusion in sizes else dict(scale)
