#!/usr/bin/env python3
"""Stands in for --python: verbs are the real ones, without their work.

Each notes itself in $CALLS when it works, and makes the files that the real work makes. FAIL=VERB
makes that work fail (FAIL="VERB WORD" only if the word is in its command), SLEEP=VERB makes it wait
for ever (with a child that waits too), NOTE=NAME notes a variable of the environment, too.
"""

import importlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from shutil import copyfile
from types import SimpleNamespace

METRICS = ("wer", "accuracy", "meteor")
COSINES = ("cosine_mapped", "mean_cosine_mapped", "cosine", "mean_cosine", "cka")
SIMILARITY = [{"encoders": ["one", "two"], "layers": [[0, 0]], **dict.fromkeys(COSINES, [0.5])}]
HALF = {"numerators": [0, 1], "denominators": None, "scale": 100}
TASKS = ("asr_clean", "asr_noisy", "snv", "ac")
ENCODERS = {"one": {"path": "encoder", "dim": 8, "num_states": 3}}
argv = sys.argv[1:]


def value(option: str) -> Path:
    return Path(argv[argv.index(option) + 1])


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def note(verb: str, what: str = "") -> None:
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(f"{verb} {what}".rstrip() + "\n")
    if name := os.environ.get("NOTE"):
        with Path(os.environ["CALLS"]).open("a") as calls:
            calls.write(f"{verb}={os.environ.get(name, '')}\n")
    if os.environ.get("SLEEP") == verb:
        child = subprocess.Popen(["sleep", "1000"])
        with Path(os.environ["PIDS"]).open("w") as pids:
            pids.write(f"{os.getpid()} {child.pid}\n")
        time.sleep(1000)
    failing, _, word = os.environ.get("FAIL", "").partition(" ")
    if failing == verb and word in ["", *argv]:
        print("the reason is written here", flush=True)
        sys.exit(int(os.environ.get("STATUS", 3)))


def task_of(name: str) -> str:
    return next(task for task in TASKS if name.startswith(task))


def limit_of(args, data):
    """As the real one, whose type is imported with much that reads audio."""
    most = math.inf if args.max_seconds is None else args.max_seconds
    return SimpleNamespace(most=most, drops=dump.is_limited(args, data))


def dumper(args):
    def dump_set(data, raw, limit):
        note("dump", data.name)
        for encoder in dump.encoders_of(args) if args.feats == "dumped" else ():
            touch(args.encoder_dir / encoder / data.name / "feats.scp")
        touch(raw / "wav.scp", raw / "text")
        if limit.most < math.inf:
            (raw / "limits.json").write_text(json.dumps([f"{limit.most:g}", limit.drops]))
        (raw / "utt2task").write_text(f"utt1 {task_of(raw.name)}\n")
        return {}

    return dump_set


def combine(args):
    assert args.encoders in (["whisper_tiny_en", "moonshine_base", "resemblyzer", "yamnet"], [])
    for part in ("train", "dev"):
        note("combine", part)
        assert all((Path(folder) / "wav.scp").is_file() for folder in getattr(args, part))
        touch(args.out / part / "wav.scp")


def train(args, making):
    with making.work():
        note("train")
        config = {"feats": args.feats, "tasks": list(TASKS), "argv": argv, "fusion": "pam"}
        config |= {"llm_conf": {"path": "llm"}, "encoders": ENCODERS}
        touch(args.expdir / "train" / "checkpoint.pth", args.expdir / "train" / "last.pth")
        touch(args.expdir / "warmup" / "last.pth")
        (args.expdir / "config.yaml").write_text(json.dumps(config))


def average(args, making):
    with making.work():
        note("average")
        touch(args.exp / "model.pth", args.exp / "hearing.json")


def decode(args, settings, jobs):
    for job in jobs:
        note("decode", job.data.name)
        job.making.begin()
        (job.making.folder / "hyp.jsonl").write_text(f"{job.making.inputs['data']}\n")
        job.making.finish()


def score(args, pending, routing):
    note("score")
    found = {"spice": {"missing": "jars"}} if "spice" in args.metrics else {}
    for making in pending:
        (making.folder / "score.json").write_text(json.dumps({"metrics": found}, indent=2))
        making.begin()
        making.finish(complete=not found)
    routing.finish()


def report(args):
    note("report")
    (exp,) = args.exp
    touch(exp / "RESULTS.md", exp / "results.json")
    if args.html:
        touch(exp / "report.html")
    if args.store:
        made_with = made.read_record(exp, "train")["settings"]
        result = {
            "name": exp.name,
            **{key: made_with[key] for key in ("system", "scale", "budget", "seed")},
            "options": made.read_record(exp, "train")["notes"]["set"],
            "similarity": [] if not (exp / "analysis.json").exists() else SIMILARITY,
            "sets": {
                score.parent.name: {"ids": "same", "metrics": dict.fromkeys(METRICS, HALF)}
                for score in (exp / "greedy_unseen").glob("*/score.json")
            },
        }
        args.store.mkdir(parents=True, exist_ok=True)
        (args.store / f"{exp.name}.json").write_text(json.dumps(result))


if argv[0] == "-c":  # the GPUs that torch sees
    print(os.environ["GPUS"])
    sys.exit()
name = argv[1].removeprefix("pam.bin.") if argv[0] == "-m" else Path(argv[0]).stem
work = {"combine": combine, "train": train, "average": average, "decode": decode, "score": score}
work |= {"report": report}
if name in ("data", "recipe", "table", "dump", *work):
    if name == "table":
        note(name)
    from pam.config import made
    from pam.errors import run_main

    verb = importlib.import_module(argv[1])
    if name == "dump":
        dump, verb.dumper, verb.limit_of = verb, dumper, limit_of
    elif name in work:
        verb.work = work[name]
    if name in ("train", "average"):  # one process stands for those of all GPUs
        importlib.import_module("pam.train.processes").processes_of = lambda args: 1
    verb.device_for = lambda ngpu: "cpu"  # the tests ask for GPUs that this machine lacks
    run_main(lambda: verb.main(argv[2:]))
note(name)
if name == "fetch_models":
    touch(Path(os.environ["PAM_CACHE"]) / "models" / argv[1] / "config.json")
if name == "fetch_wordnet":
    touch(Path(os.environ["PAM_CACHE"]) / "nltk_data/corpora/wordnet/verb.exc")
if name == "prepare":
    for folder in os.environ["SETS"].split():
        touch(value("--out") / folder / "wav.scp")
        (value("--out") / folder / "utt2task").write_text(f"utt1 {task_of(folder)}\n")
if name == "analyse":
    touch(value("--exp") / "analysis.json")
if name == "extend":
    touch(value("--out") / "model.pth")
    copyfile(value("--exp") / "config.yaml", value("--out") / "config.yaml")
if name == "exit_analysis":
    touch(value("--page") if "--page" in argv else value("--results") / f"{value('--name')}.json")
