"""RESULTS.md: the sections of every experiment, put together."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from pam.report import analysis, tables
from pam.report.experiment import Experiment, SetResult
from pam.report.figures import CAPTIONS
from pam.report.markdown import GAP, escape, fenced

COMPARISON = ""  # no experiment's name: the figures of all of them
TITLE = "# Results\n\nWritten by `python -m pam.bin.report`: run it again, do not edit."
NOTES = (
    "- WER: errors of the whole set over its reference words, after lower-casing and removing "
    "punctuation except apostrophes inside a word.\n"
    "- METEOR is NLTK's with one reference, × 100. Its baseline answers every clip alike, so a "
    "model that does not listen reaches it.\n"
    "- Accuracy: an answer that names no number counts as wrong.\n"
    "- Intervals: 95 %, clusters of utterances (speakers, actors, meetings, clips) resampled 2000 "
    "times (Wilson's where all are right or wrong). Where the clusters are few, the interval says "
    "little of other speakers or clips; where they are not known, utterances are resampled as if "
    "they were independent."
)


def document(
    experiments: Sequence[Experiment],
    figures: Mapping[str, Sequence[Path]],
    folder: Path,
) -> str:
    """The whole file; `figures` (by experiment, those of all of them under `COMPARISON`) are
    linked relative to `folder`, where it will stand."""
    parts = [TITLE]
    if len(experiments) > 1:
        parts += ["## Comparison", tables.comparison_table(list(experiments))]
        parts += figure_links(figures.get(COMPARISON, ()), folder)
    for experiment in experiments:
        parts += section(experiment, figures.get(experiment.name, ()), folder)
    parts += ["## How to read this", NOTES]
    return "\n\n".join(parts) + "\n"


def section(experiment: Experiment, figures: Sequence[Path], folder: Path) -> list[str]:
    """One experiment, as paragraphs of Markdown."""
    parts = [f"## {escape(experiment.name)}"]
    for tag, sets in experiment.tags.items():
        parts += [f"### Sets, decoded as {escape(tag)}", tables.main_table(sets)]
        parts += decoding_options(sets)
        for normalisation in ("basic", "whisper"):
            if wer := tables.wer_table(sets, normalisation):
                parts += [f"WER, {normalisation} normalisation:", wer]
        if captions := tables.caption_table(sets):
            parts += ["Further metrics of captions:", captions]
    if not experiment.tags:
        parts += ["### Sets", f"{tables.NOT_MEASURED}."]
    parts += ["### Router", tables.router_table(experiment)]
    if misrouted := tables.misrouted_table(experiment.router):
        parts += ["Misrouted prompts:", misrouted]
    parts += ["### Does it hear?", tables.hearing_table(experiment.hearing)]
    parts += ["### Time", tables.seconds_table(experiment.seconds)]
    if samples := tables.samples_table(experiment.sets):
        parts += ["### Answers, taken evenly from every set", samples]
    parts += analysis.paragraphs(experiment.analysis)
    if figures:
        parts += ["### Figures", *figure_links(figures, folder)]
    return [*parts, "### Environment", environment_block(experiment)]


def decoding_options(sets: Mapping[str, SetResult]) -> list[str]:
    """What the answers depend on beside model, data and the texts of the prompts."""
    found: dict[str, list[str]] = {}
    for name, result in sets.items():
        known = result.decoding.items()
        options = ", ".join(f"{key} {json.dumps(value)}" for key, value in known)
        found.setdefault(options or "not recorded", []).append(name)
    if len(found) == 1:
        return [f"Options of decoding: {escape(*found)}."]
    return [
        f"Options of decoding {escape(', '.join(names))}: {escape(options)}."
        for options, names in found.items()
    ]


def figure_links(figures: Sequence[Path], folder: Path) -> list[str]:
    """Each figure, what it shows, and its SVG."""
    parts = []
    for path in figures:
        svg = f"[SVG]({_relative(path.with_suffix('.svg'), folder)})"
        parts.append(f"![{path.stem}]({_relative(path, folder)})")
        parts.append(f"{CAPTIONS[path.stem]} ({svg})")
    return parts


def environment_block(experiment: Experiment) -> str:
    config = experiment.config
    entries = {
        **experiment.environment,
        "system": config.get("system"),
        "scale": config.get("scale"),
        "budget": config.get("budget"),
        "seed": config.get("seed"),
        "CTC warm-up": {"ctc": "used", "none": "not used"}.get(str(config.get("warmup"))),
        "encoders": ", ".join(config.get("encoders") or {}) or None,
        "LLM": (config.get("llm_conf") or {}).get("path"),
    }
    rows = [
        f"- {name}: {GAP if value is None else escape(value)}" for name, value in entries.items()
    ]
    if experiment.made:
        settings = experiment.made["settings"].items()
        lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings]
        rows += ["", "Settings of the recipe:", "", fenced("\n".join(lines))]
    return "\n".join(rows)


def _relative(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path, folder)).as_posix())
