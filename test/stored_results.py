"""Stored results for tests, of synthetic utterances whose right answers are known, and the tables
that are made of them."""

import json
import re
from pathlib import Path

import numpy as np

from pam.bin import table
from pam.config import load_yaml
from pam.paths import CONF

MINI = {
    "wer": ["asr_clean_test", "asr_noisy_test"],
    "accuracy": ["snv_test_real"],
    "meteor": ["ac_test"],
}
COUNT = 40  # utterances a set
BUDGET = load_yaml(CONF / "scale/mini.yaml")["budgets"]["short"]
SHORT = f"ctc_steps {BUDGET['ctc_steps']}, steps {BUDGET['steps']}"


def result(system: str, seed: int = 0, level: float = 0.5, options=(), **changes) -> dict:
    """A system that errs on about `level` of everything; the noise is that of the seed."""
    rng = np.random.default_rng(seed)
    sets = {}
    for metric, names in MINI.items():
        for set_ in names:
            hits = (rng.random(COUNT) < (level if metric == "wer" else 1 - level)).astype(int)
            numerators = (5 * hits if metric == "wer" else hits).tolist()
            sums = {
                "numerators": numerators,
                "denominators": [5] * COUNT,
                "scale": 100,
                "errors": True,
            }
            if metric != "wer":
                sums = {"numerators": numerators, "denominators": None, "scale": 100}
            sets[set_] = {"count": COUNT, "ids": f"digest of {set_}", "metrics": {metric: sums}}
            names = [f"{set_} {number:02d}" for number in range(COUNT)]
            sets[set_]["clusters"] = {"names": names, "of": list(range(COUNT))}
    made = {
        "system": system,
        "options": list(options),
        "scale": "mini",
        "budget": "short",
        "seed": seed,
        "commit": "0123456789abcdef",
        "config_hash": "feed",
        "training_hash": "same",
        "machine": "a | machine",
        "seconds": {"train": 600, "decode": 60, "dump": 9999},
        "sets": sets,
    }
    return made | changes


def write(folder: Path, results: dict[str, dict]) -> Path:
    """RESULTS/mini/NAME.json; returns RESULTS."""
    for name, value in results.items():
        path = folder / "mini" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    return folder


LEVELS = {
    "single_whisper": 0.7,
    "single_wavlm": 0.7,
    "single_wav2vec2": 0.9,
    "wavllm": 0.5,
    "salmonn": 0.45,
    "average": 0.6,
    "pam": 0.1,
}


def table_1(seeds=(0,), **changes) -> dict[str, dict]:
    """All systems of Table 1; PaM is far better than every other."""
    return {
        f"{system}_mini_short_s{seed}": result(system, seed, level, **changes)
        for system, level in LEVELS.items()
        for seed in seeds
    }


def cluster(kept: dict, set_: str, count: int | None) -> None:
    """Say that the utterances of a set are `count` clusters; None: do not say."""
    for made in kept.values():
        entry = made["sets"][set_]
        places = [number % (count or 1) for number in range(len(entry["clusters"]["of"]))]
        names = [f"speaker {number}" for number in range(count or 1)]
        entry["clusters"] = {"names": names, "of": places} if count else None


def render(results, name="1", **options) -> str:
    (results / "mini").mkdir(parents=True, exist_ok=True)
    argv = ["--table", name, "--results", str(results)]
    for option, value in options.items():
        argv += [f"--{option}", str(value)]
    table.main(argv)
    stem = f"table{int(name):02d}" if name.isdecimal() else name
    return (options.get("out") or results / "mini" / f"{stem}.md").read_text(encoding="utf-8")


def grid(text: str, heading: str) -> dict[str, list[str]]:
    """The first table under a heading, its rows by their first cell."""
    body = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in body.splitlines() if line[:1] == "|"]
    assert len({len(row) for row in rows}) == 1
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
