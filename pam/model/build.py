"""Build a Speech LLM from an effective configuration, or load a trained one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pam.checkpoint import read_weights
from pam.config import PARTS, check_init_options, check_keys, load_yaml
from pam.encoders import load_encoder
from pam.errors import PamError
from pam.fusion import build_fusion
from pam.fusion.router import Router
from pam.llm.causal_lm import CausalLM
from pam.llm.template import Template
from pam.model.features import EncoderShape
from pam.model.speech_llm import ESPnetPaMModel

ENCODER_KEYS = ("family", "path", "conf", "dim", "num_states")


def encoder_shapes(encoders: Mapping[str, Mapping[str, Any]]) -> list[EncoderShape]:
    """Shapes of the configured encoders (`encoders:` of a scale)."""
    if not encoders:
        raise PamError("encoders: at least one encoder must be configured")
    for name, conf in encoders.items():
        check_keys(conf, ENCODER_KEYS, f"encoders.{name}")
        if not {"family", "path", "dim", "num_states"} <= set(conf):
            raise PamError(f"encoders.{name}: needs family, path, dim and num_states")
    return [EncoderShape(name, c["dim"], c["num_states"]) for name, c in encoders.items()]


def build_mixture(config: Mapping[str, Any], width: int) -> tuple[nn.Module, Router | None]:
    """The fusion of a configuration for an LLM of `width`, and its router or None."""
    shapes = encoder_shapes(config["encoders"])
    check_init_options(Router, config["router_conf"], "router_conf")
    num_experts = len(config["tasks"])
    fusion = build_fusion(
        config["fusion"],
        dims=[s.dim for s in shapes],
        states=[s.num_states for s in shapes],
        width=width,
        num_experts=num_experts,
        conf=config["fusion_conf"],
    )
    router = Router(width, num_experts, **config["router_conf"]) if fusion.needs_gate else None
    return fusion, router


def load_encoders(encoders: Mapping[str, Mapping[str, Any]]) -> nn.ModuleDict:
    """The frozen encoders. `PamError` if a shape differs from the configuration."""
    return nn.ModuleDict({name: load_encoder(conf) for name, conf in encoders.items()})


def build_model(
    config: Mapping[str, Any], online: bool = False, template: Template | None = None
) -> ESPnetPaMModel:
    """The model of a configuration.

    The keys are encoders, llm_conf, fusion, fusion_conf, router_conf, tasks, model_conf and,
    optionally, trainable. `online` loads the encoders too. `template` is that of an experiment; by
    default it is made from the tokenizer.
    """
    if lacking := [part for part in PARTS if part not in config]:
        raise PamError(f"not a configuration of a Speech LLM: {', '.join(lacking)} is missing")
    if config.get("pool", "before") != "before":  # an option of earlier versions
        raise PamError(
            f"pool: {config['pool']}: frames are now averaged before FFN_e only: train it again"
        )
    shapes = encoder_shapes(config["encoders"])
    check_init_options(ESPnetPaMModel, config["model_conf"], "model_conf")
    llm_conf = dict(config["llm_conf"])
    if "path" not in llm_conf:
        raise PamError("llm_conf: needs a path")
    path = llm_conf.pop("path")
    check_init_options(CausalLM, llm_conf, "llm_conf")
    if template is not None:
        llm_conf["template"] = template
    llm = CausalLM(path, **llm_conf)
    fusion, router = build_mixture(config, llm.width)
    encoders = load_encoders(config["encoders"]) if online else None
    model = ESPnetPaMModel(
        llm, fusion, router, shapes, config["tasks"], encoders, **config["model_conf"]
    )
    if config.get("trainable"):
        model.train_only(config["trainable"])
    return model


def load_experiment(
    exp: str | Path, online: bool = False, dtype: str | None = None
) -> ESPnetPaMModel:
    """The trained model of exp/NAME (config.yaml and model.pth), in eval mode.

    `dtype` replaces that of the LLM's weights and of the arithmetic.
    """
    exp = Path(exp)
    trained_weights(exp)  # fail before the LLM is loaded
    config = load_yaml(exp / "config.yaml")
    if "llm_conf" in config:  # else `build_model` says what is missing
        # Only training recomputes layers, and to check the LLM for it takes time.
        config["llm_conf"] = {**config["llm_conf"], "gradient_checkpointing": False}
    if dtype is not None:
        config["llm_conf"] = {**config["llm_conf"], "dtype": dtype}
        config["model_conf"] = {**config["model_conf"], "bf16": dtype == "bfloat16"}
    model = build_model(config, online, Template.read(exp))
    load_learned(model, exp)
    return model.eval()


def trained_weights(exp: Path) -> Path:
    """exp/NAME/model.pth; `PamError` if it does not exist."""
    checkpoint = exp / "model.pth"
    if not checkpoint.is_file() and (exp / "config.json").is_file():
        raise PamError(f"{exp}: an exported model: load it with transformers, as its README says")
    if not checkpoint.is_file():
        raise PamError(
            f"{checkpoint}: no trained model here: correct the path, or run stages 4 and 5 of the "
            "recipe"
        )
    return checkpoint


def read_learned(exp: Path) -> dict[str, torch.Tensor]:
    """The weights in exp/NAME/model.pth. `PamError` if it is missing or holds other content."""
    return read_weights(trained_weights(exp))


def load_learned(model: ESPnetPaMModel, exp: Path) -> None:
    """Load the weights of exp/NAME/model.pth into `model`."""
    weights = read_learned(exp)
    try:
        model.load_state_dict(weights)
    except PamError as error:
        raise PamError(
            f"{exp / 'model.pth'} does not fit {exp / 'config.yaml'}: {error}"
        ) from error
