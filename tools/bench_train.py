#!/usr/bin/env python3
"""Compare the training step of this checkout with others: seconds, losses and memory.

    tools/bench_train.py --exp exp/NAME [--train DIR] [--before DIR] [--plain] [--set KEY=VALUE …]
                         [--random_llm qwen2.5-0.5b] [--steps 16] [--rounds 3] [--threads 1]

Every side is a process that holds the model and an optimizer. The sides take turns: each makes
`--steps` steps (load a batch, forward, backward, update), `--rounds` times, after some steps that
are not timed. All sides start from the weights of the experiment and see the same batches of the
combined directory `--train` (default: the one below dump/combined). Columns: median over the rounds
of seconds per step; speed relative to the last side; peak resident memory; mean loss of all steps;
largest difference of a step's loss from that of the last side.

Sides: `now`, this checkout; `before`, the checkout of an earlier commit in `--before`; `plain`, the
paper's equations read literally (`PlainStep`). `--random_llm` replaces the experiment's LLM by
random weights of an architecture of pam/model/architectures, with the experiment's tokenizer.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import yaml

ROOT = Path(os.environ.get("BENCH_ROOT") or Path(__file__).resolve().parents[1])
sys.path.insert(0, str(ROOT))  # pam, installed or not

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch.nn.utils.rnn import pad_sequence  # noqa: E402

from pam.config import load_yaml  # noqa: E402
from pam.config.files import set_option  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402

NOT_TIMED = 4
NOW, BEFORE, PLAIN = "now", "before", "plain"


class Worker:
    """One side: it makes steps when asked on stdin, and prints seconds and losses."""

    def __init__(self, args: argparse.Namespace):
        from pam.model.build import load_learned
        from pam.train.schedule import LinearWarmupDecay
        from pam.train.task import PaMTask

        config = load_yaml(args.exp / "config.yaml")
        options = PaMTask.get_parser().parse_args([])
        phase = config["phases"]["llm"]
        for key, value in {
            "pam_config": str(args.exp / "config.yaml"),
            "train_dir": str(args.train),
            "phase": "llm",
            "num_iters_per_epoch": args.steps * args.rounds + NOT_TIMED,
            "total_steps": args.steps * args.rounds + NOT_TIMED,
            "seed": config["seed"],
            "num_workers": 0,
            "accum_grad": 1,
            "optim": "adamw",
            "optim_conf": dict(phase["optim_conf"]),
        }.items():
            setattr(options, key, value)
        self.model = PaMTask.build_model(options).train()
        if args.weights:
            load_learned(self.model, Path(args.weights))
        self.grad_clip = config["grad_clip"]
        (self.optimizer,) = PaMTask.build_optimizers(options, self.model)
        self.schedule = LinearWarmupDecay(self.optimizer, phase["warmup_steps"], 10**6)
        made = SimpleNamespace(
            collate_fn=PaMTask.build_collate_fn(options, True), distributed=False
        )
        factory = PaMTask.build_task_iter_factory(options, made, "train")
        self.batches = iter(factory.build_iter(1))
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.forward = PlainStep(self.model) if args.worker == PLAIN else self.model

    def steps(self, count: int) -> dict:
        start, losses = time.perf_counter(), []
        for _ in range(count):
            _, batch = next(self.batches)
            loss = self.forward(**batch)[0]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, self.grad_clip)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
        return {"seconds": time.perf_counter() - start, "losses": losses}

    def serve(self, replies: IO[str]) -> None:
        from pam.train.memory import peak_resident

        for line in sys.stdin:
            done = self.steps(int(line))
            print(json.dumps(done | {"bytes": peak_resident()}), file=replies, flush=True)


class PlainStep:
    """A reference for PaM: equations 1 to 10 one after the other, nothing left out or shared.

    The LLM reads every prompt for the router, then prompt, audio and answer again; every state of
    every encoder is projected; every expert is computed; there are logits at all positions.
    """

    # B rows, Q prompts of a row, U frames, S states, D width of the LLM, M fused features

    def __init__(self, model: torch.nn.Module):
        if model.router is None or not model.llm.lora_on_prompt:
            raise PamError("--plain: needs a router, and --set llm_conf.lora_on_prompt=true")
        from pam.llm.lora import lora_layers

        self.model = model
        for layer in lora_layers(model.llm.llm):
            layer.group = None  # PEFT's own LoRA

    def __call__(
        self,
        prompt,
        prompt_lengths,
        prompt_index,
        text,
        text_lengths,
        task,
        experts,
        chance,
        **audio,
    ) -> tuple[torch.Tensor]:
        from pam.model.speech_llm import routing_loss

        model = self.model
        with model.autocast():
            every = prompt_index.flatten()
            h_prompt = model.llm.read_prompts(prompt[every], prompt_lengths[every]).pooled
            routing = routing_loss(model.router(h_prompt), experts.flatten(0, 1)).mean()
            states, frames = model.states(model.audio_of(audio))
            features, frames = self.fuse(states, frames, task)
            logits, labels = self.answer(
                prompt,
                prompt_lengths,
                prompt_index[:, 0],
                features,
                frames,
                text,
                text_lengths,
                chance,
            )
        return (F.cross_entropy(logits, labels) + routing,)

    def fuse(self, states, frames, task):
        """Equations 2 to 6 and 3."""
        model, fusion = self.model, self.model.fusion
        projected = [adapter(s) for adapter, s in zip(fusion.adapters, states, strict=True)]
        all_BSUD, last = torch.cat(projected, 1), [f[:, -1] for f in projected]

        def expert(part):
            g_BMUD = torch.einsum("ms,bsud->bmud", part.layer_weights(), all_BSUD)
            return part.ffn_o(torch.cat([*last, *g_BMUD.unbind(1)], -1))

        gate = F.one_hot(task, len(fusion.experts)).float()
        routed = torch.stack([expert(part) for part in fusion.experts], 1)
        fused = expert(fusion.shared) + torch.einsum("br,brud->bud", gate, routed)
        if model.gain is not None:
            fused = F.normalize(fused.float(), dim=-1) * (model.gain * model.embedding_norm)
        return fused, fusion.output_lengths(frames)

    def answer(self, prompt, prompt_lengths, own, features, frames, text, text_lengths, chance):
        """Equation 1: logits at the positions that predict the answers, and the answers."""
        llm = self.model.llm
        features, frames = llm.turn(features, frames)
        words = llm.embed(self.model.drop_words(text, chance))
        rows, predicts = [], []
        for row, place in enumerate(own.tolist()):
            before = llm.embed(prompt[place, : prompt_lengths[place]])
            audio, answer = features[row, : frames[row]], words[row, : text_lengths[row] - 1]
            rows.append(torch.cat([before, audio.to(before.dtype), answer]))
            first = len(before) + len(audio) - 1
            predicts.append(range(first, first + int(text_lengths[row])))
        mask = pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
        logits = llm.llm(
            inputs_embeds=pad_sequence(rows, batch_first=True), attention_mask=mask, use_cache=False
        ).logits.float()
        chosen = torch.cat([logits[row, places] for row, places in enumerate(predicts)])
        return chosen, torch.cat([t[:n] for t, n in zip(text, text_lengths, strict=True)])


class Side:
    """A worker process of a checkout."""

    def __init__(self, name: str, root: Path, args: argparse.Namespace, folder: Path, train: Path):
        env = os.environ | {"BENCH_ROOT": str(root), "OMP_NUM_THREADS": str(args.threads)}
        env["PYTHONPATH"] = str(root)
        command = [sys.executable, __file__, "--worker", name, "--exp", folder, "--train", train]
        command += ["--steps", args.steps, "--rounds", args.rounds]
        command += [] if args.random_llm else ["--weights", args.exp.resolve()]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*map(str, command)], stdin=pipe, stdout=pipe, env=env, text=True
        )
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.bytes = 0

    def run(self, steps: int) -> None:
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise PamError("a worker ended: see its message above")
        done = json.loads(line)
        self.seconds.append(done["seconds"] / steps)
        self.losses += done["losses"]
        self.bytes = done["bytes"]


def configuration(args: argparse.Namespace, folder: Path) -> None:
    """Write the experiment's configuration into `folder`, with the weights to start from."""
    config = load_yaml(args.exp / "config.yaml")
    for assignment in args.set:
        set_option(config, assignment)
    if args.random_llm:
        config["llm_conf"]["path"] = str(random_llm(args.random_llm, config, folder))
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def random_llm(name: str, config: dict, folder: Path) -> Path:
    """A folder with random weights of an architecture and the experiment's tokenizer."""
    from pam.llm.load import load_tokenizer
    from pam.model.architecture import random_model
    from pam.paths import resolve_model

    torch.manual_seed(0)
    out = folder / name
    random_model(name).to(torch.bfloat16).save_pretrained(out)
    load_tokenizer(resolve_model(config["llm_conf"]["path"])).save_pretrained(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exp", type=Path, required=True)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--random_llm")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    for own in ("--worker", "--weights"):
        parser.add_argument(own, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # libraries print on stdout
        Worker(args).serve(replies)
        return
    train = args.train or next(Path("dump/combined").glob("*/train"), None)
    if train is None:
        raise PamError("dump/combined: no training data: run stage 3, or give --train")
    sides = {NOW: ROOT} | ({BEFORE: args.before.resolve()} if args.before else {})
    sides |= {PLAIN: ROOT} if args.plain else {}
    with tempfile.TemporaryDirectory() as name:
        configuration(args, Path(name))
        running = {s: Side(s, root, args, Path(name), train.resolve()) for s, root in sides.items()}
        for steps in [NOT_TIMED, *[args.steps] * args.rounds]:
            for side in running.values():
                side.run(steps)
        for side in running.values():
            side.process.stdin.close()
            side.process.wait()
    report(running)


def report(sides: dict[str, Side]) -> None:
    medians = {name: statistics.median(side.seconds[1:]) for name, side in sides.items()}
    *_, last = sides.values()
    print("| side | s/step | speed | GiB | mean loss | largest difference |")
    print("|---|---|---|---|---|---|")
    for name, side in sides.items():
        apart = max(abs(a - b) for a, b in zip(side.losses, last.losses, strict=True))
        print(
            f"| {name} | {medians[name]:.3f} | {[*medians.values()][-1] / medians[name]:.2f} "
            f"| {side.bytes / 2**30:.2f} | {statistics.mean(side.losses):.4f} | {apart:.4f} |"
        )


if __name__ == "__main__":
    run_main(main)
