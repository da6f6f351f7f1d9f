"""What a system is at a scale: the settings of both, its encoders, and the sizes of its fusion."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.config.files import load_yaml, merge, set_option
from pam.config.keys import check, defaults_of, keys_of, plain, typed
from pam.config.schema import ENCODERS, Budget, Experiment, Phases, Scale
from pam.config.source import attribute_of, registered
from pam.errors import UserError
from pam.registry import nearest

OPTIONAL = ("conf", "adapter", "optim_conf", "stand_ins")  # sections that --set may begin
LENGTHS = ("steps", "epochs")  # of a budget


def read_layer(path: str | Path) -> dict[str, Any]:
    """A file of conf/scale, conf/llm or conf/systems; UserError for what it must not hold."""
    layer = load_yaml(path)
    check(layer, keys_of(Experiment), str(path))
    return layer


def read_scale(path: str | Path) -> Scale:
    """A file of conf/scale: its keys as attributes, None where it does not set them."""
    return typed(Experiment, read_layer(path))


def read_layers(
    scale: str | Path, system: str | Path, llm: str | Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scale with the LLM in the place of its own, and the system."""
    layers = [read_layer(file) for file in (scale, system, *([llm] if llm else []))]
    return merge(layers[0], *layers[2:]), layers[1]


def read_experiment(
    scale: str | Path,
    system: str | Path,
    llm: str | Path | None = None,
    assignments: Iterable[str] = (),
) -> Experiment:
    """scale < LLM file < system < `assignments` of --set; UserError names the file or the key."""
    return compose(*read_layers(scale, system, llm), assignments)


def compose(
    scale: Mapping[str, Any], system: Mapping[str, Any], assignments: Iterable[str] = ()
) -> Experiment:
    """As `read_experiment`, of layers that were read."""
    scale = with_fusion_sizes(scale, system.get("fusion", scale.get("fusion")))
    config = merge(defaults_of(Experiment), scale, system)
    for assignment in assignments:
        _assign(config, assignment)
    check(config, keys_of(Experiment), "--set")
    require(config, ["encoders"], "the scale's configuration")
    config.pop("fusions", None)
    chosen, stand_ins = config.pop("use_encoders", None), config.pop("stand_ins", {})
    encoders = select_encoders(config["encoders"], chosen, stand_ins)
    check_shapes(encoders)
    return typed(Experiment, config | {"encoders": encoders})


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


def check_shapes(encoders: Mapping[str, Mapping[str, Any]]) -> None:
    """UserError where a model is known to its family (`models`) with another shape."""
    families = registered(ENCODERS)
    for name, spec in encoders.items():
        models = attribute_of(families[spec["family"]], "models") if "family" in spec else None
        path = str(spec.get("path"))
        shape = (models or {}).get(path) or (models or {}).get(Path(path).name)
        for key, known in zip(("dim", "num_states"), shape or (), strict=False):
            if spec.get(key, known) != known:
                raise UserError(f"encoders.{name}.{key}: {spec[key]}: {path} has {known}")


def with_fusion_sizes(scale: Mapping[str, Any], fusion: str | None) -> dict[str, Any]:
    """The scale with `fusions.NAME` in place of `fusion_conf`, where it has that."""
    sizes = scale.get("fusions") or {}
    return {**scale, "fusion_conf": sizes[fusion]} if fusion in sizes else dict(scale)


def require(conf: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """UserError that names what is missing."""
    if lacking := [key for key in keys if key not in conf]:
        raise UserError(f"{where}: {', '.join(lacking)} is missing")


def check_budget(budget: Budget, name: str, warmup: str) -> None:
    """UserError where the chosen budget does not say how long a phase is."""
    needed = {"steps_per_epoch": budget.steps_per_epoch}
    if warmup == "ctc":
        needed["ctc_steps"] = budget.ctc_steps
    needed["steps or epochs"] = budget.steps or budget.epochs
    if lacking := [key for key, value in needed.items() if value is None]:
        raise UserError(f"budgets.{name}: {', '.join(lacking)} is missing")
    if budget.steps is not None and budget.epochs is not None:
        raise UserError(f"budgets.{name}: steps and epochs are given: leave one of them out")


def check_phases(phases: Phases, warmup: str) -> None:
    """UserError where a phase that will run lacks something."""
    running = ["ctc", "llm"] if warmup == "ctc" else ["llm"]
    require(plain(phases), running, "phases")
    for name in running:
        phase = plain(getattr(phases, name))
        require(phase, ("optim_conf", "warmup_steps"), f"phases.{name}")
