#!/usr/bin/env python3
"""Stands in for --python: notes each verb in $CALLS and makes the files that the real one makes.

FAIL=VERB makes that verb fail, SLEEP=VERB makes it wait for ever (with a child that waits too).
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ENCODERS = ("whisper_tiny_en", "moonshine_base", "wakehubert_tiny")
METRICS = ("wer", "accuracy", "meteor")
COSINES = ("cosine_mapped", "mean_cosine_mapped", "cosine", "mean_cosine", "cka")
SIMILARITY = [{"encoders": ["one", "two"], "layers": [[0, 0]], **dict.fromkeys(COSINES, [0.5])}]
HALF = {"numerators": [0, 1], "denominators": None, "scale": 100}
args = sys.argv[1:]


def values(option: str) -> list[str]:
    """The values after an option, up to the next one."""
    found = args[args.index(option) + 1 :]
    ends = [n for n, arg in enumerate(found) if arg.startswith("--")]
    return found[: ends[0]] if ends else found


def value(option: str) -> Path:
    return Path(values(option)[0])


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


verb = args[1].removeprefix("pam.bin.") if args[0] == "-m" else Path(args[0]).stem
what = {"dump": "--data", "combine": "--out", "decode": "--data"}.get(verb)
with Path(os.environ["CALLS"]).open("a") as calls:
    for name in values(what) if what else [""]:
        calls.write(f"{verb} {Path(name).name}".rstrip() + "\n")
if os.environ.get("SLEEP") == verb:
    child = subprocess.Popen(["sleep", "1000"])
    with Path(os.environ["PIDS"]).open("w") as pids:
        pids.write(f"{os.getpid()} {child.pid}\n")
    time.sleep(1000)
if os.environ.get("FAIL") == verb:
    print("the reason is written here")
    sys.exit(3)

if verb == "fetch_models":
    touch(Path(os.environ["PAM_CACHE"]) / "models" / args[1] / "config.json")
if verb == "prepare":
    for name in os.environ["SETS"].split():
        touch(value("--out") / name / "wav.scp")
if verb == "dump":
    scale = value("--scale_config").read_text()
    for encoder in ENCODERS:
        assert encoder in scale
        for data in values("--data"):
            touch(value("--encoder_dir") / encoder / Path(data).name / "feats.scp")
    for data in values("--data"):
        raw = value("--out") / Path(data).name
        touch(raw / "wav.scp")
        if "--max_seconds" in args:
            (raw / "limits.json").write_text(
                json.dumps([*values("--max_seconds"), raw.name in values("--limited")])
            )
        task = raw.name.partition("_")[0]
        (raw / "utt2task").write_text(f"utt1 {task}\n")
if verb == "combine":
    assert values("--encoders") in (list(ENCODERS), [])  # none: online
    assert all((Path(folder) / "wav.scp").is_file() for folder in values("--sets"))
    touch(value("--out") / "wav.scp")
if verb == "train":
    touch(value("--expdir") / "config.yaml", value("--expdir") / "train" / "checkpoint.pth")
    (value("--expdir") / "config.yaml").write_text("\n".join(args))
    touch(value("--expdir") / "train" / "last.pth")
if verb == "average":
    touch(value("--exp") / "model.pth", value("--exp") / "hearing.json")
if verb == "decode":
    for data in values("--data"):
        out = value("--out") / Path(data).name
        touch(out / "hyp.jsonl", out / "decode.json")
if verb == "score":
    for name in values("--sets"):
        found = {"spice": {"missing": "jars"}} if "spice" in values("--metrics") else {}
        score = value("--decode_dir") / name / "score.json"
        score.write_text(json.dumps({"metrics": found}, indent=2))
if verb == "analyse":
    touch(value("--exp") / "analysis.json")
if verb == "report":
    exp = value("--exp")
    touch(exp / "RESULTS.md", exp / "results.json")
    if "--html" in args:
        touch(exp / "report.html")
    if "--store" in args:
        made_with = dict(
            line.split(": ", 1) for line in (exp / ".settings").read_text().splitlines()
        )
        words = made_with["train_args"].split()
        result = {
            "name": exp.name,
            **{key: made_with[key].partition(",")[0] for key in ("system", "scale", "budget")},
            "seed": int(made_with["seed"]),
            "options": [
                word for flag, word in zip(words, words[1:], strict=False) if flag == "--set"
            ],
            "similarity": [] if not (exp / "analysis.json").exists() else SIMILARITY,
            "sets": {
                score.parent.name: {"ids": "same", "metrics": dict.fromkeys(METRICS, HALF)}
                for score in (exp / "greedy_unseen").glob("*/score.json")
            },
        }
        touch(value("--store") / f"{exp.name}.json")
        (value("--store") / f"{exp.name}.json").write_text(json.dumps(result))
if verb == "table":  # the real one: it is light
    os.execv(sys.executable, [sys.executable, *args])
