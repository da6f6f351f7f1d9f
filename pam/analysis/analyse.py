"""Run all measurements on a trained model; exp/NAME/analysis.json is written part by part."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pam.analysis import importance, routing
from pam.analysis.metric import set_metric
from pam.analysis.similarity import similarities
from pam.analysis.states import fuses_layers, gather, set_inputs
from pam.atomic import write_json
from pam.config import load_yaml
from pam.config.made import Making, file_digest
from pam.data.digests import data_digest, prompts_digest
from pam.data.prompts import prompts_of
from pam.decode.settings import Settings, answer_limits
from pam.device import device_for
from pam.log import get_logger
from pam.model.build import load_experiment
from pam.model.experts import expert_names, experts_have_tasks

CLIPS = 50  # clips that give the frames for similarities and norms
logger = get_logger(__name__)


@dataclass(frozen=True)
class Options:
    """The options of the measurements; see `python -m pam.bin.analyse --help`."""

    states: Path | None = None
    utts: int = 32
    frames: int = 2000
    metric: Sequence[Path] = ()
    metric_utts: int = 20
    seed: int = 0
    ngpu: int = 0


class Analysis:
    """The measurements and their file analysis.json.

    Each result is written as soon as it exists. It is measured again only if the model, the data or
    the settings have changed.
    """

    def __init__(self, exp: Path, data: Path, options: Options):
        self.exp, self.data, self.options = exp, data, options
        self.path = exp / "analysis.json"
        self.config = load_yaml(exp / "config.yaml")
        self.prompts = prompts_of(self.config)
        self.states = options.states or data
        self.making = Making(
            exp,
            "analyse",
            {key: getattr(options, key) for key in ("utts", "frames", "seed")},
            {
                "model": file_digest(exp / "model.pth"),
                "data": data_digest(data),
                "states": data_digest(self.states),
                "prompts": prompts_digest(self.prompts),
                "probes": file_digest(routing.PROBES),
            },
        )
        self.found: dict[str, Any] = {"left_out": {}}
        if (self.making.is_complete() or self.making.resumes()) and self.path.is_file():
            self.found = json.loads(self.path.read_text(encoding="utf-8"))
        else:
            self.making.begin()

    @cached_property
    def model(self):
        model = load_experiment(self.exp, online=self.config["feats"] == "online")
        return model.to(device_for(self.options.ngpu))

    def parts(self) -> Iterator[str]:
        """Measure all missing parts; yields the name of each part before its measurement."""
        for name, measure in (("similarity", self.compare), ("routing", self.route)):
            if name not in self.found and name not in self.found["left_out"]:
                yield name
                measure()
        yield from self.intervene()
        yield from self.decode()
        if not self.making.is_complete():
            self.making.finish()

    def save(self) -> None:
        write_json(self.path, self.found)

    def leave_out(self, part: str, why: str) -> None:
        logger.info("%s: left out: %s", part, why)
        self.found["left_out"][part] = why
        self.save()

    def compare(self) -> None:
        utterances, inputs = set_inputs(self.model, self.states, self.config["feats"])
        states = gather(self.model, utterances, inputs, self.options.frames, CLIPS)
        self.found["norms"] = states.norms()
        counts = {
            kind: found[next(iter(found))].shape[1] if found else 0
            for kind, found in (("raw", states.raw), ("mapped", states.mapped))
        }
        self.found["frames"] = {"set": self.states.name, **counts}
        if len(states.raw) < 2:
            self.leave_out("similarity", "there is only one encoder, so no pair to compare")
            return
        self.found["similarity"] = similarities(states.raw, states.mapped)
        self.save()

    def route(self) -> None:
        if self.model.router is None:
            self.leave_out("routing", "this system has no prompt router")
            return

        def posteriors(texts):
            return self.model.prompt_posteriors(texts).float().cpu().numpy()

        self.found["routing"] = routing.analyse_routing(
            posteriors, self.prompts, routing.load_probes(), self.model.experts, self.options.seed
        )
        self.save()

    def interventions(self) -> dict[str, dict[str, Callable[[], AbstractContextManager]]]:
        """{"zeroed" or "forced": {name: context manager that applies the change}}."""
        experts = self.expert_names()
        return {
            "zeroed": {
                name: partial(importance.zeroed, self.model, layers)
                for name, layers in importance.ablations(self.model).items()
            },
            "forced": {
                name: partial(importance.forced, self.model, place)
                for place, name in enumerate(experts)
            },
        }

    def expert_names(self) -> list[str]:
        names = expert_names(self.config["tasks"], experts_have_tasks(self.config))
        return names[: importance.num_experts(self.model)]

    def intervene(self) -> Iterator[str]:
        if self.found.get("importance", {}).get("complete"):
            return
        entry = self.found.setdefault("importance", {"zeroed": {}, "forced": {}})
        if "base" not in entry:
            yield "the loss of the unchanged model"
            entry["base"] = self.losses()
            self.save()
        for kind, interventions in self.interventions().items():
            for name, intervention in interventions.items():
                if name in entry[kind]:
                    continue
                yield f"the loss, {kind}: {name}"
                with intervention():
                    after = self.losses()
                entry[kind][name] = importance.change(entry["base"], after, self.options.seed)
                self.save()
        entry["complete"] = True
        if not fuses_layers(self.model):
            self.leave_out("bands", "this system uses only the last layer of each encoder")
        if not entry["forced"]:
            self.leave_out("forced", "this system has no routed experts")
        self.save()

    def losses(self) -> importance.Losses:
        return importance.dev_losses(self.model, self.config, self.data, self.options.utts)

    def decode(self) -> Iterator[str]:
        if not self.options.metric:
            return
        settings = Settings(
            seed=self.options.seed,
            feats=self.config["feats"],
            **answer_limits(self.config),
        )
        entry = self.found.setdefault("metric", {})
        todo = {"as it is": nullcontext}
        for kind, interventions in self.interventions().items():
            todo |= {f"{kind}: {name}": made for name, made in interventions.items()}
        utts = self.options.metric_utts
        for data in self.options.metric:
            found = entry.setdefault(f"{data.name} ({utts} utterances)", {})
            for name, intervention in todo.items():
                if name in found:
                    continue
                yield f"{data.name}, {name}"
                with intervention():
                    found[name] = set_metric(self.model, data, self.config, settings, utts)
                self.save()
