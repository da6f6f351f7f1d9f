"""Add an encoder, a task or an exit gate to a trained system, whose learned behaviour stays.

- A new encoder gets its own adapter. Its columns in W (equation 5) and in FFN_o (equation 6) start
  as zero, so the features do not change. This is checked for every fusion. A fusion whose features
  change is an error ("average" divides by the number of encoders).
- A new task gets an expert, the mean of the routed ones. Its row in the router is the mean of the
  rows. Its logit is never above the largest of the others, so no prompt is routed to it before
  training. Only the expert and its row are trained (`trainable` of the configuration). It is an
  error if the gate is a probability, which a new row would lower, or if experts have no tasks.
- A new exit gate (`pam.model.exits`) is all that is trained afterwards. Words are not dropped then,
  since decoding drops none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pam.config import load_yaml
from pam.errors import PamError
from pam.fusion.probe import run_once
from pam.llm.load import llm_layers, llm_width
from pam.model.build import build_mixture, encoder_shapes, read_learned
from pam.model.exits import ExitGate, exit_layers
from pam.model.experts import experts_have_tasks

Config = dict[str, Any]
State = dict[str, Tensor]
PROBE_FRAMES = 16
TOLERANCE = 1e-5  # largest change of features; some fusions are not exact to the bit


def read_trained(exp: Path) -> tuple[Config, State]:
    """Configuration and learned weights of exp/NAME."""
    return load_yaml(exp / "config.yaml"), read_learned(exp)


def add_encoder(
    config: Config, state: State, name: str, spec: Mapping[str, Any], seed: int = 0
) -> tuple[Config, State]:
    """The system with the new encoder `name`; `spec` is as under `encoders:` of a scale."""
    if name in config["encoders"]:
        raise PamError(f"--add_encoder {name}: the system has it already")
    added = config["fusion_conf"].get("extended", 0) + 1
    extended = config | {
        "encoders": config["encoders"] | {name: dict(spec)},
        "fusion_conf": config["fusion_conf"] | {"extended": added},
        "warmup": "none",
    }
    width = llm_width(config["llm_conf"]["path"])
    torch.manual_seed(seed)
    old, _ = mixture(config, state, width)
    new, _ = build_mixture(extended, width)
    fill(new, {f"fusion.{k}": v for k, v in old.state_dict().items()}, "fusion.", widen)
    refuse_changes(config, old, new, spec)
    return extended, state | {f"fusion.{k}": v for k, v in new.state_dict().items()}


def add_task(config: Config, state: State, task: str) -> tuple[Config, State]:
    """The system with a new expert for `task`; only this expert is trained afterwards."""
    if task in config["tasks"]:
        raise PamError(f"--add_task {task}: the system has it already")
    extended = config | {"tasks": [*config["tasks"], task], "warmup": "none"}
    width, number = llm_width(config["llm_conf"]["path"]), len(config["tasks"])
    fusion, router = build_mixture(extended, width)
    if len(getattr(fusion, "experts", ())) != number + 1:
        raise PamError(
            f"--add_task: fusion {config['fusion']!r} has no expert for each task: train it on all"
        )
    refuse_shared_gates(config, router)
    mixture(config, state, width)  # raises PamError for a missing weight
    experts = {
        key: mean_of_experts(state, key.rpartition(f"experts.{number}.")[2], number)
        for key in (f"fusion.{k}" for k in fusion.state_dict())
        if key.startswith(f"fusion.experts.{number}.")
    }
    known = state | experts
    fill(fusion, known, "fusion.", lengthen)
    fill(router, known, "router.", lengthen)
    trainable = [f"fusion.experts.{number}.*", {"router.ffn.*": [number]}]
    filled = {
        prefix + key: value
        for prefix, part in (("fusion.", fusion), ("router.", router))
        for key, value in part.state_dict().items()
    }
    return extended | {"trainable": trainable}, state | filled


def add_exit_gate(config: Config, state: State, stride: int) -> tuple[Config, State]:
    """The system with an untrained exit gate at every `stride`-th layer of its LLM."""
    if "exit_gate.weight" in state:
        raise PamError("--add_exit_gate: the system has one already")
    path = config["llm_conf"]["path"]
    gate = ExitGate(exit_layers(llm_layers(path), stride), llm_width(path))
    exits = {"gate": True, "stride": stride}
    extended = config | {
        "model_conf": config["model_conf"] | {"exits": exits, "word_dropout": 0.0},
        "trainable": ["exit_gate.*"],
        "warmup": "none",
    }
    return extended, state | {f"exit_gate.{k}": v for k, v in gate.state_dict().items()}


def refuse_shared_gates(config: Config, router: nn.Module | None) -> None:
    """PamError if a further expert would change the gates of the others."""
    if router is None or not experts_have_tasks(config):
        raise PamError("--add_task: the experts of this system belong to no task: train it on all")
    if router.scaled:
        raise PamError(
            "--add_task: router_conf.gate 'probability': a further expert would lower the gates of "
            "the others: train it on all"
        )


def mixture(config: Config, state: State, width: int) -> tuple[nn.Module, nn.Module | None]:
    """The trained fusion and router. PamError if the checkpoint lacks a weight."""
    fusion, router = build_mixture(config, width)
    for part, prefix in ((fusion, "fusion."), (router, "router.")):
        if part is not None:
            if lacking := {prefix + key for key in part.state_dict()} - state.keys():
                raise PamError(f"model.pth is of another system: {min(lacking)} is missing")
            fill(part, state, prefix, None)
    return fusion, router


def fill(part: nn.Module, state: State, prefix: str, fit: Any) -> None:
    """Load the weights under `prefix`.

    `fit` adapts weights of another shape. New weights keep their initial values.
    """
    filled = {}
    for key, fresh in part.state_dict().items():
        old = state.get(prefix + key)
        if old is not None and old.shape != fresh.shape:
            old = fit(old, fresh) if fit else None
            if old is None:
                raise PamError(f"{prefix}{key}: a weight of this shape cannot be extended")
        filled[key] = fresh if old is None else old
    unknown = {k for k in state if k.startswith(prefix)} - {prefix + k for k in filled}
    if unknown:
        raise PamError(f"{min(unknown)}: the extended system has no such weight")
    part.load_state_dict(filled)


def widen(old: Tensor, fresh: Tensor) -> Tensor | None:
    """`old` with additional columns of zeros; None if the shapes differ in another way."""
    more = fresh.shape[-1] - old.shape[-1]
    if old.dim() != 2 or fresh.shape[0] != old.shape[0] or more < 1:
        return None
    return torch.cat([old, old.new_zeros(len(old), more)], dim=1)


def lengthen(old: Tensor, fresh: Tensor) -> Tensor | None:
    """`old` with one additional row, the mean of the others; None if shapes differ otherwise."""
    if fresh.shape != (len(old) + 1, *old.shape[1:]):
        return None
    return torch.cat([old, old.mean(0, keepdim=True)])


def mean_of_experts(state: State, name: str, number: int) -> Tensor:
    return torch.stack([state[f"fusion.experts.{i}.{name}"] for i in range(number)]).mean(0)


@torch.no_grad()
def refuse_changes(config: Config, old: nn.Module, new: nn.Module, spec: Mapping[str, Any]) -> None:
    """PamError if the features of random states have changed."""
    generator = torch.Generator().manual_seed(0)
    experts = len(config["tasks"])
    shapes = [(s.num_states, s.dim) for s in encoder_shapes(config["encoders"])]
    states = [
        torch.randn(experts, count, PROBE_FRAMES, dim, generator=generator)
        for count, dim in [*shapes, (spec["num_states"], spec["dim"])]
    ]
    before = run_once(old.eval(), states[:-1], experts)
    after = run_once(new.eval(), states, experts)
    if before.shape != after.shape or not torch.allclose(
        before, after, rtol=TOLERANCE, atol=TOLERANCE * float(before.abs().max())
    ):
        raise PamError(
            f"fusion {config['fusion']!r} cannot take a further encoder without changing its "
            "features: train a new system"
        )
