"""What the sections of a scale's configuration may hold: unknown keys and wrong values are errors.

The options of `llm_conf`, `fusion_conf`, `fusions`, `router_conf` and `model_conf` are the keyword
arguments of the parts that take them (`check_parts`). Which of all fusions' options the chosen one
has, and which of all encoders' options a family has, is checked when they are built.
"""

import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from pam.errors import UserError
from pam.registry import Registry, nearest

ANY = "*"  # a section whose keys are names that the user gives


@dataclass(frozen=True)
class Rule:
    """What a value must be, and how to say it."""

    what: str
    holds: Callable[[Any], bool]


def _whole(least: int) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return Rule(f"a whole number from {least} on", holds)


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _or_none(rule: Rule) -> Rule:
    return Rule(f"{rule.what}, or null", lambda value: value is None or rule.holds(value))


def _one_of(*names: str) -> Rule:
    return Rule(f"one of {', '.join(names)}", lambda value: value in names)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


NUMBER = Rule("a number from 0 on", lambda value: _is_number(value) and value >= 0)
SHARE = Rule("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
POSITIVE = Rule("a number above 0", lambda value: _is_number(value) and value > 0)
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
TEXT = Rule("a text", lambda value: isinstance(value, str))
NAMES = Rule("a list of names", _are_texts)
TEXTS = Rule("a text or a list of texts", lambda value: isinstance(value, str) or _are_texts(value))
LIST = Rule("a list", lambda value: isinstance(value, list))
BETAS = Rule(
    "two numbers from 0 to 1, as in [0.9, 0.999]",
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(SHARE.holds, value)),
)

# AdamW's options, and the rates and decays of LoRA and the router (`PaMTask.build_optimizers`)
OPTIM = {
    **dict.fromkeys(("lr", "lora_lr", "router_lr", "eps"), NUMBER),
    **dict.fromkeys(("weight_decay", "lora_weight_decay", "router_weight_decay"), NUMBER),
    "betas": BETAS,
    **dict.fromkeys(("amsgrad", "maximize", "capturable", "differentiable"), FLAG),
    **dict.fromkeys(("foreach", "fused"), _or_none(FLAG)),
}
PHASE = {"optim_conf": OPTIM, "warmup_steps": _whole(0), "floor": SHARE}
BUDGET = {
    "steps": _whole(1),
    "epochs": POSITIVE,
    "ctc_steps": _whole(1),
    "steps_per_epoch": _whole(1),
}
# The options of all families
ENCODER_CONF = {
    "dtype": _one_of("float32", "bfloat16", "float16"),
    "normalize": FLAG,
    "pad_to_30s": FLAG,
    "tail_s": NUMBER,
}
ENCODER = {
    "family": TEXT,
    "path": TEXT,
    "conf": ENCODER_CONF,
    "dim": _whole(1),
    "num_states": _whole(1),
}
SECTIONS: dict[str, Any] = {
    "encoders": {ANY: ENCODER},
    "stand_ins": {ANY: TEXT},
    "fusion": TEXT,
    "tasks": _or_none(NAMES),
    "warmup_tasks": NAMES,
    "trainable": LIST,
    "feats": _one_of("dumped", "online"),
    "warmup": _one_of("ctc", "none"),
    "merge_asr_prompts": FLAG,
    "accum_grad": _whole(1),
    "batch": {"max_utts": _whole(1), "max_frames": _whole(1)},
    "phases": {"ctc": PHASE, "llm": PHASE},
    "budgets": {ANY: BUDGET},
    "prompts_per_batch": _whole(0),
    "router_prompts": _whole(1),
    "dev_utts": _whole(0),
    "num_workers": _whole(0),
    "keep_nbest_models": _whole(1),
    "log_interval": _whole(1),
    "grad_clip": POSITIVE,
}


def check_sections(conf: Mapping[str, Any], where: str) -> None:
    """UserError for the first key at any depth that is not known, or whose value is wrong."""
    _check_known(conf, SECTIONS, where)


def check_parts(conf: Mapping[str, Any], where: str) -> None:
    """As `check_sections`, of what the fusion, the router, the LLM and the encoders take: the parts
    are imported."""
    from pam.encoders import ENCODERS
    from pam.fusion import FUSIONS

    if "fusion" in conf:
        _check_name(conf["fusion"], FUSIONS, f"{where}: fusion")
    for name, spec in (conf.get("encoders") or {}).items():
        if "family" in spec:
            _check_name(spec["family"], ENCODERS, f"{where}: encoders.{name}.family")
    _check_known(conf, _parts(), where)


def _check_name(name: str, table: Registry, where: str) -> None:
    if name not in table.entries:
        hint = nearest(name, table.entries)
        raise UserError(f"{where}: unknown {table.kind} {name!r}: {hint}")


@functools.cache
def _parts() -> dict[str, Any]:
    """What the sections of the parts may hold, as their constructors say."""
    from pam.fusion import FUSIONS
    from pam.fusion.adapter import PreFusionAdapter
    from pam.fusion.router import Router
    from pam.llm.causal_lm import CausalLM
    from pam.model.speech_llm import ESPnetPaMModel

    adapter = {"adapter": _options_of(PreFusionAdapter)}
    fusions = {
        name: (own := _options_of(FUSIONS.get(name))) | (adapter if "adapter" in own else {})
        for name in FUSIONS.names()
    }
    every = {key: rule for own in fusions.values() for key, rule in own.items()}
    return {
        "llm_conf": {"path": TEXT} | _options_of(CausalLM),
        "router_conf": _options_of(Router),
        "model_conf": _options_of(ESPnetPaMModel, but=["encoders"]),
        "fusion_conf": every | {"grown": _whole(0)},
        "fusions": fusions,
    }


def _options_of(cls: type, but: Collection[str] = ()) -> dict[str, Any]:
    """The keyword arguments with defaults of a constructor, and what their types allow."""
    hints = get_type_hints(cls.__init__)
    return {
        name: _rule_of(name, hints.get(name))
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is not inspect.Parameter.empty and name not in but
    }


def _rule_of(name: str, kind: Any) -> Rule:
    if kind is int:  # a size; a rank of 0 is none
        return _whole(0 if name.endswith("rank") else 1)
    if kind is float:
        return SHARE if name.endswith("dropout") else NUMBER
    return {bool: FLAG, str: TEXT}.get(kind, TEXTS)


def _check_known(conf: Mapping[str, Any], rules: Mapping[str, Any], where: str) -> None:
    for name, value in conf.items():
        if name in rules:
            _check(value, rules[name], f"{where}: {name}")


def require(conf: Mapping[str, Any], keys: Collection[str], where: str) -> None:
    """UserError that names what is missing."""
    if lacking := [key for key in keys if key not in conf]:
        raise UserError(f"{where}: {', '.join(lacking)} is missing")


def check_budget(budget: Mapping[str, Any], name: str, warmup: str) -> None:
    """UserError where the chosen budget does not say how long a phase is."""
    needed = ["steps_per_epoch"] + (["ctc_steps"] if warmup == "ctc" else [])
    lacking = [key for key in needed if key not in budget]
    if not budget.keys() & {"steps", "epochs"}:
        lacking.append("steps or epochs")
    if lacking:
        raise UserError(f"budgets.{name}: {', '.join(lacking)} is missing")
    if {"steps", "epochs"} <= budget.keys():
        raise UserError(f"budgets.{name}: steps and epochs are given: leave one of them out")


def check_phases(phases: Mapping[str, Any], warmup: str) -> None:
    """UserError where a phase that will run lacks something."""
    running = ["ctc", "llm"] if warmup == "ctc" else ["llm"]
    require(phases, running, "phases")
    for phase in running:
        require(phases[phase], ("optim_conf", "warmup_steps"), f"phases.{phase}")


def _check(value: Any, rule: Any, where: str) -> None:
    if isinstance(rule, Rule):
        if not rule.holds(value):
            raise UserError(f"{where}: {value!r}: expected {rule.what}")
        return
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: {value!r}: expected a section of options")
    for key, entry in value.items():
        if key not in rule and ANY not in rule:
            raise UserError(f"{where}: unknown option {key!r}: {nearest(str(key), rule)}")
        _check(entry, rule.get(key, rule.get(ANY)), f"{where}.{key}")
