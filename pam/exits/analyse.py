"""Measure a model or a bare LLM: the content of exits.json, set by set."""

import argparse
from collections.abc import Sequence
from typing import Any

from pam.config import load_yaml
from pam.device import device_for
from pam.environment import commit, machine, now
from pam.errors import PamError
from pam.exits import answers as reading
from pam.exits.cost import cost_of
from pam.exits.measure import Answer, measure_all
from pam.exits.policies import STRIDES
from pam.exits.summary import Summary
from pam.exits.tokens import frequencies_of, kinds_of, positions_of
from pam.llm.causal_lm import CausalLM
from pam.llm.depth import Depth
from pam.model.build import load_experiment


class Analysis:
    """The measurements of `pam.bin.exit_analysis`; `found` is what exits.json has already."""

    def __init__(self, args: argparse.Namespace, found: dict[str, Any]):
        self.args = args
        self.sublayers = not args.layers_only
        device = device_for(args.ngpu)
        if args.exp:
            self.config = load_yaml(args.exp / "config.yaml")
            online = self.config["feats"] == "online"
            self.model = load_experiment(args.exp, online).to(device)
            self.lm, self.gate = self.model.llm, self.model.exit_gate
        else:
            self.lm, self.gate = CausalLM(args.llm, lora_rank=0).to(device), None
        try:
            self.depth = Depth(self.lm, self.sublayers)
        except PamError as error:
            if args.layers_only:
                raise
            raise PamError(f"{error}; --layers_only leaves out the points in a layer") from error
        self.cost = cost_of(self.lm.llm, self.depth.layers)
        self.counts = reading.token_counts(self.lm, args.train) if args.train else None
        self.found = found or self.head()

    def head(self) -> dict[str, Any]:
        """What holds for all sets."""
        args = self.args
        return {
            "name": args.name,
            "model": str(args.exp or args.llm),
            "answers": "model" if args.answers else "reference",
            "llm": self.config["llm_conf"]["path"] if args.exp else args.llm,
            "exits": self.config["model_conf"].get("exits") if args.exp else None,
            "layers": len(self.depth),
            "points": len(self.depth) * (1 + self.sublayers),
            "head_in_layers": round(self.cost.head / self.cost.layer, 3),
            "pays_up_to": {str(stride): self.cost.pays_up_to(stride) for stride in STRIDES},
            "commit": commit(),
            "machine": machine(),
            "date": now(),
            "sets": {},
        }

    def add(self, name: str) -> dict[str, Any]:
        """Measure one set, or the text; returns all that was found."""
        args = self.args
        if args.exp:
            [data] = [data for data in args.data if data.name == name]
            read = reading.speech_answers(
                self.model, self.depth, data, self.config, args.utts, args.answers, self.sublayers
            )
        else:
            read = reading.text_answers(
                self.lm, self.depth, args.text, args.utts, sublayers=self.sublayers
            )
        found = list(measure_all(self.depth, self.gate, read))
        layers = self.gate.layers if self.gate is not None else ()
        summary = Summary(found, self.classes_of(found), self.cost, layers)
        entry = {"task": found[0].task, **summary.as_dict()}
        self.found = self.found | {"sets": self.found["sets"] | {name: entry}}
        return self.found

    def classes_of(self, found: Sequence[Answer]) -> dict[str, list[list[str | None]]]:
        """The classes of the tokens of each answer (`pam.exits.tokens`)."""
        kinds = [kinds_of(self.lm.tokenizer, answer.ids, self.lm.eos) for answer in found]
        classes = {"kind": kinds, "position": [positions_of(own) for own in kinds]}
        if self.counts is not None:
            classes["frequency"] = [frequencies_of(answer.ids, self.counts) for answer in found]
        return classes
