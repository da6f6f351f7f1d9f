"""The model card (README.md) of an exported model, from the results of its experiment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pam.atomic import write_text
from pam.report.markdown import escape, number, table
from pam.report.results import read_results
from pam.report.units import metric_digits, metric_label
from pam.score.clusters import doubt

TASK = "audio-text-to-text"
USE = """\
```python
from transformers import AutoModelForMultimodalLM, AutoProcessor

where = "{name}"  # this folder, or its name on the hub
processor = AutoProcessor.from_pretrained(where, trust_remote_code=True)
model = AutoModelForMultimodalLM.from_pretrained(where, trust_remote_code=True)
inputs = processor(text="{prompt}", audio="file.wav")
tokens = model.generate(**inputs)
print(processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

`pipeline("any-to-any", model=where, trust_remote_code=True)` works too. The model runs on one
device (`model.to("cuda")`; with accelerate, also `device_map="cuda:0"`); it is not split over
several, or offloaded.

The code in this folder is that of PaM. It was exported with, and needs, these packages:
{libraries}. An older transformers may lack what the code imports."""
UNKNOWN = 'unknown (state it: pam export --data_licence "SET=LICENCE")'
Origins = Mapping[str, Mapping[str, str | None]]


def write_card(
    exp: Path,
    folder: Path,
    origins: Origins,
    licence: str,
    libraries: Sequence[str],
    data_licences: Mapping[str, str],
) -> None:
    """Write README.md; scores are those of the experiment's main decoding, if it was scored.

    `libraries`: what the folder's code needs, with versions. `data_licences`: set → licence, where
    the training did not record it.
    """
    results = read_results(exp, samples=0)
    results["licences"] |= data_licences
    head = yaml.safe_dump(metadata(results, origins, licence), sort_keys=False, allow_unicode=True)
    write_text(folder / "README.md", f"---\n{head}---\n\n{body(results, origins, libraries)}\n")


def metadata(results: Mapping[str, Any], origins: Origins, licence: str) -> dict[str, Any]:
    """The card's front matter, with `model-index`."""
    bases = [where["path"] for where in origins.values() if where["revision"]]
    scores = [entry(name, score) for name, score in results["sets"].items()]
    index = [{"name": results["name"], "results": scores}] if scores else []
    return {
        "license": licence,
        "library_name": "transformers",
        "pipeline_tag": TASK,
        "tags": [TASK, "pam", "speech-llm"],
        **({"base_model": bases} if bases else {}),
        **({"model-index": index} if index else {}),
    }


def entry(name: str, score: Mapping[str, Any]) -> dict[str, Any]:
    """One result of `model-index`."""
    kind = "automatic-speech-recognition" if score["metric"] == "wer" else TASK
    what = f"{metric_label(score['metric'])}{interval(score)}, {score['count']} utterances"
    return {
        "task": {"type": kind, "name": score["task"]},
        "dataset": {"type": name, "name": name},
        "metrics": [{"type": score["metric"], "value": score["value"], "name": what}],
    }


def interval(score: Mapping[str, Any]) -> str:
    ends = score.get("ci95")
    if not ends:
        return ""
    low, high = (number(end, metric_digits(score["metric"])) for end in ends)
    return f" (95% CI {low}–{high}{doubt(score)})"


def body(results: Mapping[str, Any], origins: Origins, libraries: Sequence[str]) -> str:
    name, config = results["name"], results["config"]
    tasks = ", ".join(config["tasks"])
    lines = [
        f"# {name}",
        "A Speech LLM that answers a text prompt about a recording, with "
        f"{len(config['encoders'])} audio encoders (PaM, prompt-aware mixture of audio encoders; "
        f"fusion `{config['fusion']}`). Tasks: {tasks}.",
        "## Use",
        USE.format(name=name, prompt="Transcribe this recording.", libraries=", ".join(libraries)),
        "## Results",
        scores(results["sets"]),
        "## Training",
        training(results),
        "## Parts and licences",
        table(["part", "pretrained weights", "revision"], rows(origins)),
        "Each of these keeps its own licence (PaM's egs/README.md names them). PaM's code is under "
        "the MIT licence.",
        "## Training data and licences",
        data(results),
    ]
    return "\n\n".join(lines)


def scores(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of the sets; prompts were not seen in training."""
    if not sets:
        return "This experiment was not scored."
    cells = [
        [
            escape(name),
            metric_label(score["metric"]),
            number(score["value"], metric_digits(score["metric"])) + interval(score),
            str(score["count"]),
        ]
        for name, score in sets.items()
    ]
    return table(["test set", "metric", "score:", "utterances:"], cells)


def training(results: Mapping[str, Any]) -> str:
    made, known = results["environment"], ("system", "scale", "budget", "seed")
    rows = [[key, escape(results[key])] for key in known]
    rows += [[key, escape(made.get(key))] for key in ("commit", "date", "machine")]
    return table(["what", "value"], rows)


def data(results: Mapping[str, Any]) -> str:
    """A table of the training sets; without a record of them, one line."""
    sets = train_sets(results)
    if not sets:
        return f"The sets of this training were not recorded, so their licences are {UNKNOWN}."
    licences = results["licences"]
    return table(
        ["training set", "licence"], [[escape(s), escape(licences.get(s, UNKNOWN))] for s in sets]
    )


def train_sets(results: Mapping[str, Any]) -> list[str]:
    return (results["settings"] or {}).get("train_sets") or []


def rows(origins: Origins) -> list[list[str]]:
    return [[name, escape(o["path"]), escape(o["revision"])] for name, o in origins.items()]
