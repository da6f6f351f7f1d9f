"""results.json: all results of an experiment. RESULTS.md and the page are rendered from it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pam.analysis.layers import layer_weights
from pam.config import load_yaml
from pam.config.made import licences_of, read_record, stage_seconds
from pam.data.sample import even_places
from pam.environment import environment
from pam.errors import PamError
from pam.score.items import read_items

MAIN_TAG = "greedy_unseen"
SHOWN = ("id", "prompt", "expert", "ref", "hyp")  # fields of an answer in a table

Results = Mapping[str, Any]


def read_results(exp: str | Path, samples: int = 3) -> dict[str, Any]:
    """The content of exp/NAME/results.json, collected from the files of all stages.

    Missing values are None or empty. `sets` are the scores of the main decoding. `decodings` holds
    every decoding, {tag: {set: score, decoding, samples}}, the main one first, with `samples`
    answers of each set. `settings`, `notes` and the `licences` of its data are those of the
    training (made.json). `environment` is that of the training, or the present one if the training
    did not record it.

    Raises:
        PamError: `exp` is not an experiment, or one of its files is damaged.
    """
    exp = Path(exp)
    if not (exp / "config.yaml").is_file():
        raise PamError(f"{exp}: not an experiment: it has no config.yaml (training writes it)")
    config = load_yaml(exp / "config.yaml")
    made_in = read_json(exp / "environment.json", dict) or environment()
    decodings = read_decodings(exp, samples)
    main = next(iter(decodings.values()), {})
    made = read_record(exp, "train") or {}
    return {
        **{key: config.get(key) for key in ("system", "scale", "seed", "budget")},
        "commit": made_in["commit"],
        "sets": {name: _brief(decoded["score"]) for name, decoded in main.items()},
        "router": read_json(exp / "router.json", dict),
        "hearing": read_json(exp / "hearing.json", dict),
        "seconds": stage_seconds(exp),
        "name": exp.resolve().name,
        "decodings": decodings,
        "environment": dict(made_in),
        "settings": made.get("settings"),
        "notes": made.get("notes", {}),
        "licences": licences_of([made]),
        "config": config,
        "curves": read_json(exp / "curves.json", list) or [],
        "weights": mean_weights(exp, config),
        "analysis": read_json(exp / "analysis.json", dict),
    }


def _brief(score: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in score.items() if key not in ("set", "confusion")}


def read_decodings(exp: Path, samples: int) -> dict[str, dict[str, dict[str, Any]]]:
    """{tag: {set: …}}: first the decoding with unseen prompts, then the others in C order."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(exp.glob("*/*/score*.json")):
        score = read_json(path, dict) or {}
        if missing := {"set", "task", "metric", "value", "count"} - score.keys():
            raise PamError(f"{path}: no {min(missing)!r} in it: run the score stage again")
        found.setdefault(path.parent.parent.name, {})[score["set"]] = {
            "score": score,
            "decoding": (read_record(path.parent, "decode") or {}).get("settings", {}),
            "samples": _samples(path.parent / "hyp.jsonl", score["task"], samples),
        }
    return dict(sorted(found.items(), key=lambda item: (item[0] != MAIN_TAG, item[0])))


def _samples(answers: Path, task: str, count: int) -> list[dict[str, Any]]:
    """`count` answers of a task at equal distances in the file, not chosen by quality."""
    if count < 1 or not answers.is_file():
        return []
    items = [asdict(item) for item in read_items(answers) if item.task == task]
    return [{key: items[n][key] for key in SHOWN} for n in even_places(count, len(items))]


def mean_weights(exp: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The weight of each encoder state in each expert (equation 5), averaged over the expert's
    fused features; None for a system without such weights."""
    found = layer_weights(exp / "model.pth", config)
    if not found:
        return None
    means = {name: weight_MS.mean(0).tolist() for name, weight_MS in found.items()}
    return {
        "encoders": [[name, conf["num_states"]] for name, conf in config["encoders"].items()],
        "experts": {
            name: [round(value, 4) if math.isfinite(value) else None for value in mean]
            for name, mean in means.items()
        },
    }


def read_json(path: Path, kind: type) -> Any:
    """The content of a JSON file; None if it does not exist."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise PamError(f"{path}: not valid JSON ({error}): remove it and run its stage") from error
    if not isinstance(value, kind):
        raise PamError(f"{path}: expected a {kind.__name__}, found a {type(value).__name__}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping; ValueError for a key that it has twice, of which json keeps the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice")
    return found
