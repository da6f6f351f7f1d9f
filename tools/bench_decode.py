#!/usr/bin/env python3
"""Compare ways to decode: speed, passes of the LLM, and whether the answers are the same.

    tools/bench_decode.py --exp exp/NAME --data dump/raw/SET… [--modes fast ctc …] [--before DIR]
                          [--utts 64] [--rounds 3] [--one_by_one] [--threads 1] [--ngpu 0]

After a first run of each mode, the modes take turns, `--rounds` times. A mode is a name of `MODES`
or options of `pam.bin.decode`, such as "--early_exit margin --threshold 0.8". The columns are
medians over the rounds: seconds; tokens per second; RTFx, the seconds of audio per second; the
speed relative to `fast`; passes of the LLM per answer; the answers that differ from those of
`fast`; and the share of the words before the first difference, in the shorter and the longer half
of the answers of `fast`. `--one_by_one` answers one request after the other. `--before` names a
checkout of an earlier commit: mode `before` runs its `pam.bin.decode`.

Mode `loop` is the common one without this project: one utterance at a time, prompt and audio
through `transformers.generate`, nothing kept. It applies LoRA to the prompt, which `fast` leaves
out where training did (`lora_on_prompt`), so its answers may differ.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # pam, installed or not

import torch  # noqa: E402

from pam.bin import decode  # noqa: E402
from pam.config import load_yaml  # noqa: E402
from pam.data.datadir import DataDir  # noqa: E402
from pam.data.prompts import prompts_of  # noqa: E402
from pam.data.utterances import batch_of, read_inputs, read_utterances  # noqa: E402
from pam.decode.decoder import Decoder  # noqa: E402
from pam.decode.greedy import token_limits  # noqa: E402
from pam.decode.request import Request  # noqa: E402
from pam.device import device_for  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.model.build import load_experiment  # noqa: E402

MODES = {
    "fast": "",
    "plain": "--exact false",
    "ctc": "--drafter ctc",
    "exit_layer": "--drafter exit_layer",
    "prompt_lookup": "--drafter prompt_lookup",
}
LOOP, BEFORE, FAST = "loop", "before", "fast"


@dataclass
class Run:
    """What a mode gave: seconds, texts by utterance, and passes if they are counted."""

    seconds: float
    texts: dict[str, str]
    passes: int | None = None


class Bench:
    """A model and some utterances of every set."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.config = load_yaml(args.exp / "config.yaml")
        self.model = load_experiment(args.exp, online=self.config["feats"] == "online")
        self.model.to(device_for(args.ngpu))
        self.requests, self.seconds_of_audio = [], 0.0
        self.chosen: dict[Path, list[str]] = {}
        for folder in args.data:
            data = DataDir.read(folder)
            prompts = prompts_of(self.config, sorted(set(data["utt2task"].values())))
            utterances = read_utterances(data, prompts, "unseen", 0)[: args.utts]
            encoders = [shape.name for shape in self.model.shapes]
            inputs = read_inputs(folder, encoders, self.config["feats"], data["text"])
            self.chosen[folder] = [utterance.id for utterance in utterances]
            for utterance in sorted(utterances, key=lambda u: -(u.samples or 0)):
                key = f"{folder.name}/{utterance.id}"
                loaded = inputs[utterance.id]
                self.requests.append(Request(key, utterance.prompt, lambda x=loaded: x))
                self.seconds_of_audio += (utterance.samples or 0) / 16000

    def modes(self) -> dict[str, Callable[[], Run]]:
        found = {}
        for name in self.args.modes:
            if name == LOOP:
                found[name] = self.loop
            else:
                found[name] = self.mode(MODES.get(name, name))
        if self.args.before is not None:
            found[BEFORE] = self.before
        return found

    def mode(self, options: str) -> Callable[[], Run]:
        needed = ["--exp", ".", "--data", ".", "--out", "."]
        args = decode.get_parser().parse_args([*needed, *shlex.split(options)])
        decoder = Decoder(self.model, decode.settings_of(args, self.config))

        def run() -> Run:
            start = time.perf_counter()
            if self.args.one_by_one:
                answers = [a for request in self.requests for a in decoder.answers([request])]
            else:
                answers = [*decoder.answers(self.requests)]
            seconds = time.perf_counter() - start
            texts = {answer.key: answer.text for answer in answers}
            return Run(seconds, texts, sum(answer.passes for answer in answers))

        return run

    @torch.no_grad()
    def loop(self) -> Run:
        start, texts = time.perf_counter(), {}
        llm = self.model.llm
        for request in self.requests:
            batch = batch_of([request.load()], self.model.device)
            prompt = self.model.read_prompts([request.prompt])
            with self.model.autocast():
                _, gate = self.model.route(prompt, None)
                states, frames = self.model.states(batch)
                audio, length = llm.turn(*self.model.fuse(states, frames, gate))
                ids = torch.tensor([llm.prompt_ids(request.prompt)], device=audio.device)
                embeds = torch.cat([llm.embed(ids), audio.to(llm.embeddings.dtype)], dim=1)
                limits = request.max_new_tokens, request.max_tokens_per_second
                tokens = llm.llm.generate(
                    inputs_embeds=embeds,
                    attention_mask=torch.ones(embeds.shape[:2], device=embeds.device),
                    max_new_tokens=int(token_limits(length, *limits)),
                    do_sample=False,
                    eos_token_id=llm.eos,
                    pad_token_id=llm.eos,
                )
            texts[request.key] = llm.tokenizer.decode(tokens[0], skip_special_tokens=True).strip()
        return Run(time.perf_counter() - start, texts)

    def before(self) -> Run:
        """The decoding program of another checkout; its own clock leaves out the loading."""
        env = os.environ | {"PYTHONPATH": str(self.args.before.resolve())}
        env["OMP_NUM_THREADS"] = str(self.args.threads)
        seconds, texts = 0.0, {}
        with tempfile.TemporaryDirectory() as folder:
            for data, utts in self.chosen.items():
                some = Path(folder) / "data" / data.name
                DataDir.read(data).subset(utts).write(some)
                out = Path(folder) / "out"
                command = [sys.executable, "-m", "pam.bin.decode", "--exp", self.args.exp.resolve()]
                command += ["--data", some, "--out", out, "--ngpu", self.args.ngpu]
                command += ["--encoder_dir", data.resolve().parent.parent]
                subprocess.run(
                    [*map(str, command)],
                    check=True,
                    env=env,
                    cwd=self.args.before,
                    stderr=subprocess.DEVNULL,
                )
                seconds += json.loads((out / data.name / "decode_seconds.json").read_text())[
                    "decode"
                ]
                for line in (out / data.name / "hyp.jsonl").read_text().splitlines():
                    answer = json.loads(line)
                    texts[f"{data.name}/{answer['id']}"] = answer["hyp"]
        return Run(seconds, texts)


def same_start(texts: Mapping[str, str], expected: Mapping[str, str]) -> tuple[float, float]:
    """The mean share of the expected words before the first other word, of short and long texts."""
    shares = []
    for key, text in sorted(expected.items(), key=lambda item: len(item[1].split())):
        words, own = text.split() or [""], texts[key].split() or [""]
        same = [a == b for a, b in zip_longest(own, words)]
        first = same.index(False) if False in same else len(words)
        shares.append(min(first, len(words)) / len(words))
    half = len(shares) // 2
    return statistics.mean(shares[:half]), statistics.mean(shares[half:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exp", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, nargs="+")
    parser.add_argument("--modes", nargs="+", default=[LOOP, *MODES])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--utts", type=int, default=64, help="of every set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one_by_one", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ngpu", type=int, default=0)
    args = parser.parse_args()
    if FAST not in args.modes:
        raise PamError(f"--modes: needs {FAST!r}, with which the others are compared")
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    modes = bench.modes()
    runs = {name: [run()] for name, run in modes.items()}  # the first is not timed
    for _ in range(args.rounds):
        for name, run in modes.items():
            runs[name].append(run())
    report(bench, runs)


def report(bench: Bench, runs: dict[str, list[Run]]) -> None:
    """One line for each mode."""
    count = len(bench.requests)
    how = "one by one" if bench.args.one_by_one else "together"
    print(f"{count} answers {how}, {bench.seconds_of_audio:.0f} s of audio")
    print(
        "| mode | s | tokens/s | RTFx | speed | passes/answer | differ | same, short | same, long |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    seconds = {
        name: statistics.median(run.seconds for run in own[1:]) for name, own in runs.items()
    }
    for name, own in runs.items():
        texts, passes = own[-1].texts, own[-1].passes
        tokens = sum(len(bench.model.llm.text_ids(text)) for text in texts.values())
        expected = runs[FAST][-1].texts
        differ = sum(texts[key] != text for key, text in expected.items())
        short, long = same_start(texts, expected)
        print(
            f"| {name} | {seconds[name]:.2f} | {tokens / seconds[name]:.1f} "
            f"| {bench.seconds_of_audio / seconds[name]:.1f} "
            f"| {seconds[FAST] / seconds[name]:.2f} "
            f"| {'' if passes is None else f'{passes / count:.2f}'} | {differ} "
            f"| {short:.3f} | {long:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    run_main(main)
