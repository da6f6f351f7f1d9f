"""RESULTS/SCALE/NAME.json: the results of an experiment that tables need, small enough for git."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pam.analysis.layers import layer_weights, shares
from pam.atomic import write_text
from pam.config import DECODING, MEMORY, RUNNING, load_yaml
from pam.config.made import Record, read_record
from pam.report.results import MAIN_TAG, Results, read_json
from pam.score.compare import Sums
from pam.score.items import read_items
from pam.score.utterances import read_clusters, read_utterances, utterances_file

FORMAT = 1
DIGITS = 4  # of per-utterance statistics, which are counts or lie between 0 and 1
# The rows of a table may differ in these keys, or the keys change no result. Others must agree.
OWN = (
    *("scale", "system", "seed", "encoders", "llm_conf", "fusion", "fusion_conf", "router_conf"),
    *("model_conf", "feats", *RUNNING, *DECODING),
)
NO_SETUP = ("seed", "feats", *RUNNING, *DECODING)  # may differ between the seeds


def stored_result(exp: Path, results: Results) -> dict[str, Any]:
    """The content of the file. Sets are those decoded with unseen prompts."""
    config, trained_on = results["config"], training_sets(exp)
    alike = {key: value for key, value in config.items() if key not in OWN}
    setup = {key: value for key, value in config.items() if key not in NO_SETUP}
    setup["llm_conf"] = {k: v for k, v in (config.get("llm_conf") or {}).items() if k not in MEMORY}
    return {
        "format": FORMAT,
        "name": results["name"],
        "system": config.get("system"),
        "options": results["notes"].get("set", []),
        "encoders": {
            name: spec.get("num_states") for name, spec in (config.get("encoders") or {}).items()
        },
        "llm": (config.get("llm_conf") or {}).get("path"),
        "scale": config.get("scale"),
        "budget": config.get("budget"),
        "budget_conf": config.get("budget_conf"),
        "seed": config.get("seed"),
        "config_hash": _hash(config),
        # Unknown without the data. A hash of the remaining parts would look like another training.
        "training_hash": trained_on and _hash({**alike, "training_data": trained_on}),
        "setup_hash": _hash(setup),
        "scale_hash": results["notes"].get("scale_hash"),
        "commit": results["commit"],
        "machine": results["environment"]["machine"],
        "seconds": results["seconds"],
        "training_data": trained_on,
        "router": results["router"],
        "weights": weight_shares(exp, config),
        "similarity": (results["analysis"] or {}).get("similarity"),
        "sets": {
            name: _set(exp / MAIN_TAG, name, decoded["score"])
            for name, decoded in results["decodings"].get(MAIN_TAG, {}).items()
        },
    }


def _set(decoded: Path, name: str, scored: Mapping[str, Any]) -> dict[str, Any]:
    """The statistics of every utterance from `pam.bin.score`, with a digest of the ids, and what
    each unmeasured metric lacked."""
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
    """`names` of the clusters, and `of`: each utterance's index in them; None if unknown."""
    if clusters is None:
        return None
    places = {name: place for place, name in enumerate(sorted(set(clusters)))}
    return {"names": list(places), "of": [places[name] for name in clusters]}


def sums_of(entry: Mapping[str, Any], metric: str) -> Sums:
    """The per-utterance sums of a metric, from a set of a stored result."""
    stored = entry["metrics"][metric]
    numerators = np.asarray(stored["numerators"], dtype=np.float64)
    denominators = stored.get("denominators")
    ones = np.ones_like(numerators)
    return Sums(
        entry["ids"],
        numerators,
        ones if denominators is None else np.asarray(denominators, dtype=np.float64),
        float(stored["scale"]),
        bool(stored.get("errors")),
        entry.get("references"),
        stored.get("model"),
        stored_clusters(entry),
    )


def stored_clusters(entry: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The cluster of each utterance; None in results without clusters."""
    found = entry.get("clusters")
    return found and tuple(found["names"][place] for place in found["of"])


def _references(answers: Path, task: str) -> str | None:
    """A digest of the references; None if the answers no longer exist."""
    if not answers.is_file():
        return None
    return _hash([[i.id, i.references(), i.choices] for i in read_items(answers) if i.task == task])


def _decoding(made: Record | None) -> dict[str, Any] | None:
    """The options and prompts that the answers depend on; None if unknown."""
    if made is None:
        return None
    options = {key: value for key, value in made["settings"].items() if key != "feats"}
    return options | {"prompt_pools": made["inputs"]["prompts"]}


def _rounded(statistics: dict[str, Any]) -> dict[str, Any]:
    numerators = [round(value, DIGITS) for value in statistics["numerators"]]
    return {**statistics, "numerators": numerators}


def weight_shares(exp: Path, config: Mapping[str, Any]) -> dict[str, list[float]]:
    """{expert: Σ_m |W_{m,s}| of each hidden state s, as shares}; {} without experts."""
    return {
        expert: [round(float(share), 5) for share in shares(weight_MS)]
        for expert, weight_MS in layer_weights(exp / "model.pth", config).items()
    }


def training_sets(exp: Path) -> dict[str, Any] | None:
    """{set: task, utterances, hours} of the training data; None if they no longer exist."""
    config = exp / "train" / "config.yaml"
    if not config.is_file():
        return None
    found = read_json(Path(load_yaml(config)["train_dir"]) / "sets.json", dict)
    return found and found["sets"]


def write_stored(path: Path, result: Mapping[str, Any]) -> None:
    """One line per key and per set, not one per number, so that diffs are readable."""
    plain = {key: value for key, value in result.items() if key != "sets"}
    lines = [f"  {_json(key)}: {_json(value)}" for key, value in plain.items()]
    sets = [f"    {_json(name)}: {_json(value)}" for name, value in result["sets"].items()]
    lines.append('  "sets": {\n' + ",\n".join(sets) + "\n  }")
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
