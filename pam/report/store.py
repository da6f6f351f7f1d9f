"""RESULTS/SCALE/NAME.json: what a table needs of one experiment, small enough to be committed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pam.atomic import write_text
from pam.config import load_yaml
from pam.config.made import Record, read_record
from pam.errors import UserError
from pam.report.experiment import MAIN_TAG, Experiment, read_json
from pam.score.items import read_items
from pam.score.utterances import read_clusters, read_utterances, utterances_file

FORMAT = 1
DIGITS = 4  # of what an utterance adds: points between 0 and 1, or counts
# What the rows of a table may differ in, or what changes no result; all else must be alike.
OWN = (
    *("scale", "system", "seed", "encoders", "llm_conf", "fusion", "fusion_conf", "router_conf"),
    *("model_conf", "num_workers", "log_interval", "feats"),
)
NO_SETUP = ("seed", "num_workers", "log_interval", "feats")  # all else is equal for all seeds
NEEDED = ("system", "scale", "budget", "seed", "options", "sets")


def stored_result(exp: Path, experiment: Experiment) -> dict[str, Any]:
    """The content of the file. Sets are those decoded with unseen prompts."""
    config, trained_on = experiment.config, training_sets(exp)
    sets = experiment.tags.get(MAIN_TAG, {})
    alike = {key: value for key, value in config.items() if key not in OWN}
    return {
        "format": FORMAT,
        "name": experiment.name,
        "system": config.get("system"),
        "options": (experiment.made or {}).get("notes", {}).get("set", []),
        "encoders": {
            name: spec.get("num_states") for name, spec in (config.get("encoders") or {}).items()
        },
        "llm": (config.get("llm_conf") or {}).get("path"),
        "scale": config.get("scale"),
        "budget": config.get("budget"),
        "budget_conf": config.get("budget_conf"),
        "seed": config.get("seed"),
        "config_hash": _hash(config),
        # Without its data it could be told from no other: unknown rather than seemingly another.
        "training_hash": trained_on and _hash({**alike, "training_data": trained_on}),
        "setup_hash": _hash({key: config[key] for key in config.keys() - set(NO_SETUP)}),
        "scale_hash": (experiment.made or {}).get("notes", {}).get("scale_hash"),
        "commit": experiment.environment["commit"],
        "machine": experiment.environment["machine"],
        "seconds": dict(experiment.seconds),
        "training_data": trained_on,
        "router": experiment.router,
        "weights": weight_shares(exp, config),
        "similarity": (read_json(exp / "analysis.json", dict) or {}).get("similarity"),
        "sets": {name: _set(exp / MAIN_TAG, name, result.score) for name, result in sets.items()},
    }


def _set(decoded: Path, name: str, scored: Mapping[str, Any]) -> dict[str, Any]:
    """What `pam.bin.score` kept of every utterance, its ids as a digest; what a metric lacked."""
    task = scored["task"]
    plain = name.removesuffix(f"/{task}")
    score = decoded / plain / ("score.json" if plain == name else f"score_{task}.json")
    ids, metrics = read_utterances(utterances_file(score))
    further = scored.get("metrics", {})
    models = {metric: entry["model"] for metric, entry in further.items() if "model" in entry}
    return {
        "task": task,
        "count": len(ids),
        "ids": hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16],
        "clusters": clusters_entry(read_clusters(utterances_file(score))),
        "references": _references(decoded / plain / "hyp.jsonl", task),
        "decoding": _decoding(read_record(decoded / plain, "decode")),
        "metrics": {
            metric: {"value": round(found.value, 4), **_rounded(asdict(found))}
            | ({"model": models[metric]} if metric in models else {})
            for metric, found in metrics.items()
        },
        "missing": {
            metric: entry["missing"] for metric, entry in further.items() if "missing" in entry
        },
    }


def clusters_entry(clusters: Sequence[str] | None) -> dict[str, Any] | None:
    """`names`, and `of`: the place of each utterance's among them; None where it is not known."""
    if clusters is None:
        return None
    places = {name: place for place, name in enumerate(sorted(set(clusters)))}
    return {"names": list(places), "of": [places[name] for name in clusters]}


def _references(answers: Path, task: str) -> str | None:
    """A digest of what was right; None where the answers are gone."""
    if not answers.is_file():
        return None
    return _hash([[i.id, i.references(), i.choices] for i in read_items(answers) if i.task == task])


def _decoding(made: Record | None) -> dict[str, Any] | None:
    """The options and the prompts that the answers depend on; None where they are not known."""
    if made is None:
        return None
    options = {key: value for key, value in made["settings"].items() if key != "feats"}
    return options | {"prompt_pools": made["inputs"]["prompts"]}


def _rounded(statistics: dict[str, Any]) -> dict[str, Any]:
    numerators = [round(value, DIGITS) for value in statistics["numerators"]]
    return {**statistics, "numerators": numerators}


def weight_shares(exp: Path, config: Mapping[str, Any]) -> dict[str, list[float]]:
    """{expert: Σ_m |W_{m,s}| of each hidden state s, as shares}; {} where there are no experts."""
    from pam.analysis.layers import layer_weights, shares  # the model's room: not to read a store

    return {
        expert: [round(float(share), 5) for share in shares(weight_MS)]
        for expert, weight_MS in layer_weights(exp / "model.pth", config).items()
    }


def training_sets(exp: Path) -> dict[str, Any] | None:
    """{set: task, utterances, hours} of what it was trained on; None where that is gone."""
    config = exp / "train" / "config.yaml"
    if not config.is_file():
        return None
    found = read_json(Path(load_yaml(config)["train_dir"]) / "sets.json", dict)
    return found and found["sets"]


def write_stored(path: Path, result: Mapping[str, Any]) -> None:
    """One line for each key and each set: readable differences, and no line for each number."""
    plain = {key: value for key, value in result.items() if key != "sets"}
    lines = [f"  {_json(key)}: {_json(value)}" for key, value in plain.items()]
    sets = [f"    {_json(name)}: {_json(value)}" for name, value in result["sets"].items()]
    lines.append('  "sets": {\n' + ",\n".join(sets) + "\n  }")
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_store(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of RESULTS/SCALE by name, in C order; `UserError` names a damaged file."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        result = read_json(path, dict)
        if missing := [key for key in NEEDED if key not in result]:
            raise UserError(f"{path}: no {missing[0]!r} in it: remove it and run the report again")
        found[path.stem] = result
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
