"""A system at a scale: the merged settings, its encoders, and the sizes of its fusion."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.config.files import load_yaml, merge, set_option
from pam.config.keys import check, defaults_of, keys_of, plain, typed
from pam.config.made import digest
from pam.config.schema import ENCODERS, Budget, Experiment, Phases, Scale
from pam.config.source import attribute_of, registered
from pam.errors import PamError
from pam.registry import nearest

# Sections that --set may create.
OPTIONAL = ("conf", "adapter", "optim_conf", "stand_ins", "exits", "wandb")
# What describes a model: the sections that decoding reads.
PARTS = ("encoders", "llm_conf", "fusion", "fusion_conf", "router_conf", "tasks", "model_conf")
LENGTHS = ("steps", "epochs")  # keys of a budget that exclude each other


def read_layer(path: str | Path) -> dict[str, Any]:
    """A file of conf/scale, conf/llm or conf/systems. PamError for invalid keys or values."""
    layer = load_yaml(path)
    check(layer, keys_of(Experiment), str(path))
    return layer


def read_scale(path: str | Path) -> Scale:
    """A file of conf/scale with its keys as attributes; keys that are not set are None."""
    return typed(Experiment, read_layer(path))


def read_layers(
    scale: str | Path, system: str | Path, llm: str | Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scale, with `llm` instead of its own LLM, and the system."""
    layers = [read_layer(file) for file in (scale, system, *([llm] if llm else []))]
    return merge(layers[0], *layers[2:]), layers[1]


def read_experiment(
    scale: str | Path,
    system: str | Path,
    llm: str | Path | None = None,
    assignments: Iterable[str] = (),
) -> Experiment:
    """Merge scale < LLM file < system < `assignments` of --set; PamError names file or key."""
    return compose(*read_layers(scale, system, llm), assignments)


def compose(
    scale: Mapping[str, Any],
    system: Mapping[str, Any],
    assignments: Iterable[str] = (),
    others: Collection[str] = (),
) -> Experiment:
    """As `read_experiment`, for layers that were already read. `others`: names of encoders that are
    not in the layers, and may have a factor of the rate, which is without effect."""
    assignments = list(assignments)
    given = [one.removeprefix("fusion=") for one in assignments if one.startswith("fusion=")]
    fusion = [scale.get("fusion"), *([system["fusion"]] if "fusion" in system else []), *given][-1]
    sizes = merge(scale.get("fusions") or {}, system.get("fusions") or {})
    scale = with_fusion_sizes(scale, fusion, sizes)
    config = merge(defaults_of(Experiment), scale, system)
    for assignment in assignments:
        _assign(config, assignment)
    check(config, keys_of(Experiment), "--set")
    require(config, ["encoders"], "the scale's configuration")
    config.pop("fusions", None)
    chosen, stand_ins = config.pop("use_encoders", None), config.pop("stand_ins", {})
    encoders = select_encoders(config["encoders"], chosen, stand_ins)
    check_shapes(encoders)
    check_factors(config.get("phases") or {}, {*config["encoders"], *others})
    return typed(Experiment, config | {"encoders": encoders})


def _assign(config: dict[str, Any], assignment: str) -> None:
    if re.match(r"fusions\b", assignment):  # their fusion is already merged
        raise PamError(f"--set {assignment}: give the options of the fusion as fusion_conf.OPTION")
    keys, section = set_option(config, assignment, OPTIONAL)
    if keys[0] == "budgets" and keys[-1] in LENGTHS:
        for other in set(LENGTHS) - {keys[-1]}:  # a budget has one
            section.pop(other, None)


def select_encoders(
    encoders: Mapping[str, Mapping[str, Any]],
    chosen: Sequence[str] | None,
    stand_ins: Mapping[str, str],
) -> dict[str, Mapping[str, Any]]:
    """The encoders of `use_encoders`, in the scale's order; all of them for None.

    A name is that of an encoder of the scale, or of a family (`wavlm`). A family selects the
    scale's encoder of that family, or, if the scale has none, the encoder in `stand_ins`.
    """
    if chosen is None:
        return dict(encoders)
    if not isinstance(chosen, list) or not chosen:
        raise PamError(f"use_encoders: {chosen!r}: expected a list of names, like [whisper]")
    picked = [_find(str(name), encoders, stand_ins) for name in chosen]
    if len(set(picked)) < len(picked):
        raise PamError(
            f"use_encoders: {', '.join(map(str, chosen))} select {', '.join(picked)}: "
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
        raise PamError(f"use_encoders: {name!r} can be {' or '.join(family)}: give one of these")
    if not family and name not in stand_ins:
        families = [spec["family"] for spec in encoders.values() if "family" in spec]
        known = {*encoders, *families, *stand_ins}
        raise PamError(f"use_encoders: unknown encoder {name!r}: {nearest(name, known)}")
    found = family[0] if family else stand_ins[name]
    if found not in encoders:
        raise PamError(f"stand_ins.{name}: {found!r} is not an encoder: {nearest(found, encoders)}")
    return found


def check_shapes(encoders: Mapping[str, Mapping[str, Any]]) -> None:
    """PamError if an encoder's shape differs from that of its model in the family's `models`."""
    families = registered(ENCODERS)
    for name, spec in encoders.items():
        models = attribute_of(families[spec["family"]], "models") if "family" in spec else None
        path = str(spec.get("path"))
        shape = (models or {}).get(path) or (models or {}).get(Path(path).name)
        for key, known in zip(("dim", "num_states"), shape or (), strict=False):
            if spec.get(key, known) != known:
                raise PamError(f"encoders.{name}.{key}: {spec[key]}: {path} has {known}")


def check_factors(phases: Mapping[str, Any], encoders: Collection[str]) -> None:
    """PamError if `lr_factors` name an encoder that the scale lacks.

    A system that uses some of the encoders keeps the factors of all, so that systems are alike.
    """
    for phase, settings in phases.items():
        for name in (settings.get("optim_conf") or {}).get("lr_factors") or {}:
            if name not in encoders:
                where = f"phases.{phase}.optim_conf.lr_factors"
                raise PamError(f"{where}: {name!r} is not an encoder: {nearest(name, encoders)}")


def with_fusion_sizes(
    scale: Mapping[str, Any], fusion: str | None, sizes: Mapping[str, Any]
) -> dict[str, Any]:
    """The scale with `sizes` of the fusion, if there are some, instead of `fusion_conf`."""
    return {**scale, "fusion_conf": sizes[fusion]} if fusion in sizes else dict(scale)


def require(conf: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """PamError that names the missing keys."""
    if lacking := [key for key in keys if key not in conf]:
        raise PamError(f"{where}: {', '.join(lacking)} is missing")


def check_parts(config: Mapping[str, Any], where: str) -> None:
    """PamError if an effective configuration lacks what its model is made of."""
    require(config, ["fusion", "encoders", "llm_conf"], where)
    require(config["llm_conf"], ["path"], f"{where}: llm_conf")
    for name, encoder in config["encoders"].items():
        require(encoder, ["path", "dim", "num_states"], f"{where}: encoders.{name}")


def check_budget(budget: Budget, name: str, warmup: str) -> None:
    """PamError if the chosen budget lacks the length of a phase."""
    needed = {"steps_per_epoch": budget.steps_per_epoch}
    if warmup == "ctc":
        needed["ctc_steps"] = budget.ctc_steps
    needed["steps or epochs"] = budget.steps or budget.epochs
    if lacking := [key for key, value in needed.items() if value is None]:
        key = lacking[0].split()[0]
        raise PamError(
            f"budgets.{name}: {', '.join(lacking)} is missing: give --set "
            f"budgets.{name}.{key}=NUMBER, or add it to the scale's file"
        )
    if budget.steps is not None and budget.epochs is not None:
        raise PamError(f"budgets.{name}: steps and epochs are both given: remove one of them")


def check_phases(phases: Phases, warmup: str, per_gpu: bool) -> None:
    """PamError if a phase that will run lacks a key or has one without effect; `per_gpu`: whether
    each GPU has a batch of its own."""
    running = ["ctc", "llm"] if warmup == "ctc" else ["llm"]
    require(plain(phases), running, "phases")
    for name in running:
        phase = plain(getattr(phases, name))
        require(phase, ("optim_conf", "warmup_steps"), f"phases.{name}")
        if phase["optim_conf"].get("fused") and phase["optim_conf"].get("foreach"):
            raise PamError(f"phases.{name}.optim_conf: fused and foreach: leave out one of them")
        if phase.get("lr_rule", "none") != "none" and not per_gpu:
            raise PamError(
                f"phases.{name}.lr_rule: {phase['lr_rule']}: it follows the number of GPUs that "
                "have a batch each: set batch.per: gpu, or leave it out"
            )


def scale_hash(file: Path) -> str:
    """Hash of the scale's file without comments; all results of a table should have the same."""
    lines = [re.sub(r"\s*#.*", "", line) for line in file.read_text(encoding="utf-8").splitlines()]
    return digest("".join(f"{line}\n" for line in lines if line.strip()))[:16]
