"""Count the parameters of a system, without loading weights (torch's meta device).

The counts follow section 4.5 of the paper: the adapters, the experts, the router and LoRA are
trained. All of them are active at inference, except the routed experts that are not chosen.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pam.config import check_parts
from pam.fusion.router import Router
from pam.llm.causal_lm import CausalLM
from pam.llm.lora import inject_lora
from pam.model.architecture import count, on_meta
from pam.model.build import build_mixture
from pam.model.exits import ExitGate, exit_layers

LORA = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters of the parts of a system.

    Attributes:
        encoders: each frozen encoder.
        llm: the frozen LLM, without LoRA.
        adapters: FFN_e of all encoders.
        experts: all experts, including the shared one.
        expert: the largest expert.
        idle: the routed experts that one answer does not use.
        router, lora: the router, and LoRA's matrices.
        rest: all other trained parts: FFN_o of fusions without experts, branches, a Q-Former, the
            gain of the features, the exit gate.
    """

    encoders: Mapping[str, int]
    llm: int
    adapters: int
    experts: int
    expert: int
    idle: int
    router: int
    lora: int
    rest: int

    @property
    def trainable(self) -> int:
        return self.adapters + self.experts + self.router + self.lora + self.rest

    @property
    def active(self) -> int:
        """Trained parameters that an answer uses: all except the experts that are not chosen."""
        return self.trainable - self.idle

    @property
    def total(self) -> int:
        """All parameters, including the frozen encoders and LLM."""
        return self.trainable + self.llm + sum(self.encoders.values())

    def as_dict(self) -> dict[str, Any]:
        return {
            "encoders": sum(self.encoders.values()),
            "adapters": self.adapters,
            "experts": self.experts,
            "expert": self.expert,
            "router": self.router,
            "lora": self.lora,
            "rest": self.rest,
            "llm": self.llm,
            "total": self.total,
            "trainable": self.trainable,
            "active": self.active,
            "encoder_sizes": dict(self.encoders),
        }


def llm_with_lora(llm_conf: Mapping[str, Any]) -> tuple[nn.Module, int]:
    """The LLM with LoRA on the meta device, and its number of parameters without LoRA."""
    llm = on_meta(llm_conf["path"])
    frozen = count(llm)
    defaults = inspect.signature(CausalLM).parameters
    inject_lora(llm, *(llm_conf.get(key, defaults[key].default) for key in LORA))
    return llm, frozen


def mixture_on_meta(config: Mapping[str, Any], width: int) -> tuple[nn.Module, Router | None]:
    with torch.device("meta"):
        return build_mixture(config, width)


def sizes(config: Mapping[str, Any]) -> Sizes:
    """Sizes of the system of an effective configuration. PamError if it lacks a part."""
    check_parts(config, "the configuration")
    llm, frozen = llm_with_lora(config["llm_conf"])
    fusion, router = mixture_on_meta(config, llm.config.hidden_size)
    adapters, shared, routed, inner_router = (
        getattr(fusion, name, None) for name in ("adapters", "shared", "experts", "router")
    )
    each = [count(expert) for expert in routed or []]
    experts = count(shared) + sum(each)
    known = count(adapters) + experts + count(inner_router)
    options = config.get("model_conf") or {}
    gain = int(options.get("feature_scale") == "embedding")
    exits, gate = options.get("exits") or {}, 0
    if exits.get("gate"):
        layers = exit_layers(llm.config.num_hidden_layers, exits.get("stride", 1))
        gate = count(ExitGate(layers, llm.config.hidden_size))
    return Sizes(
        encoders={name: count(on_meta(c["path"])) for name, c in config["encoders"].items()},
        llm=frozen,
        adapters=count(adapters),
        experts=experts,
        expert=max([count(shared), *each]),
        idle=sum(each) - max(each, default=0),
        router=count(router) + count(inner_router),
        lora=count(llm) - frozen,
        rest=count(fusion) - known + gain + gate,
    )
