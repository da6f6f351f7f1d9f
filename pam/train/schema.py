"""What the sections of a scale's configuration may hold: unknown keys and wrong values are errors.

`llm_conf`, `fusion_conf`, `router_conf`, `model_conf` and an encoder's `conf` are checked by the
parts that take them, when the model is built.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pam.errors import UserError
from pam.table import nearest

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
    return isinstance(value, (int, float)) and not isinstance(value, bool)


NUMBER = Rule("a number from 0 on", lambda value: _is_number(value) and value >= 0)
SHARE = Rule("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
POSITIVE = Rule("a number above 0", lambda value: _is_number(value) and value > 0)
ANYTHING = Rule("", lambda value: True)
TEXT = Rule("a text", lambda value: isinstance(value, str))
SECTION = Rule("a section of options", lambda value: isinstance(value, Mapping))

# AdamW's options, and the rates and decays of LoRA and the router (`PaMTask.build_optimizers`)
OPTIM = {
    **dict.fromkeys(("lr", "lora_lr", "router_lr", "eps"), NUMBER),
    **dict.fromkeys(("weight_decay", "lora_weight_decay", "router_weight_decay"), NUMBER),
    **dict.fromkeys(("betas", "amsgrad", "foreach", "fused"), ANYTHING),
}
PHASE = {"optim_conf": OPTIM, "warmup_steps": _whole(0), "floor": SHARE}
BUDGET = {
    "steps": _whole(1),
    "epochs": POSITIVE,
    "ctc_steps": _whole(1),
    "steps_per_epoch": _whole(1),
}
ENCODER = {
    "family": TEXT,
    "path": TEXT,
    "conf": SECTION,
    "dim": _whole(1),
    "num_states": _whole(1),
}
SECTIONS: dict[str, Any] = {
    "encoders": {ANY: ENCODER},
    "batch": {"max_utts": _whole(1), "max_frames": _whole(1)},
    "phases": {"ctc": PHASE, "llm": PHASE},
    "budgets": {ANY: BUDGET},
    "prompts_per_batch": _whole(0),
    "dev_utts": _whole(0),
    "num_workers": _whole(0),
    "keep_nbest_models": _whole(1),
    "log_interval": _whole(1),
    "grad_clip": POSITIVE,
}


def check_sections(conf: Mapping[str, Any], where: str) -> None:
    """UserError for the first key at any depth that is not known, or whose value is wrong."""
    for name in conf.keys() & SECTIONS.keys():
        _check(conf[name], SECTIONS[name], f"{where}: {name}")


def check_budget(budget: Mapping[str, Any], name: str, warmup: str) -> None:
    """UserError where the chosen budget does not say how long a phase is."""
    needed = ["steps_per_epoch"] + (["ctc_steps"] if warmup == "ctc" else [])
    lacking = [key for key in needed if key not in budget]
    if not budget.keys() & {"steps", "epochs"}:
        lacking.append("steps or epochs")
    if lacking:
        raise UserError(f"budgets.{name}: {', '.join(lacking)} is missing")


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
