"""The report of one or several experiments as blocks, from their results.json."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pam.report import analysis, tables
from pam.report.blocks import Block, bullets, code, figure, heading, paragraph
from pam.report.figures import CAPTIONS
from pam.report.markdown import GAP
from pam.report.results import Results

COMPARISON = ""  # key of the figures that compare experiments
NOTES = (
    "WER: errors of the whole set over its reference words, after lower-casing and removing "
    "punctuation except apostrophes inside a word.",
    "METEOR is NLTK's with one reference, × 100. Its baseline gives every clip the same answer, so "
    "a model that ignores the audio can reach it.",
    "Accuracy: an answer without a number counts as wrong.",
    "Intervals: 95 %, clusters of utterances (speakers, actors, meetings, clips) resampled 2000 "
    "times (Wilson's if all are right or all are wrong). If clusters are too few or not known, "
    "utterances are resampled instead: such an interval says nothing of other speakers or clips.",
)


def document(
    experiments: Sequence[Results],
    figures: Mapping[str, Sequence[Path]],
    folder: Path,
    samples: bool = True,
) -> list[Block]:
    """The whole report.

    Args:
        figures: by experiment; those that compare experiments are under `COMPARISON`.
        folder: the document's folder, to which links of figures are relative.
        samples: whether to show some answers. The page has all of them.
    """
    parts = [
        heading(1, "Results"),
        paragraph("Written by python -m pam.bin.report: run it again, do not edit."),
    ]
    if len(experiments) > 1:
        parts += [heading(2, "Comparison"), tables.comparison_table(experiments)]
        parts += figure_links(figures.get(COMPARISON, ()), folder)
    for experiment in experiments:
        parts += section(experiment, figures.get(experiment["name"], ()), folder, samples)
    return [*parts, heading(2, "How to read this"), bullets(NOTES)]


def section(
    experiment: Results, figures: Sequence[Path], folder: Path, samples: bool
) -> list[Block]:
    """One experiment."""
    parts = [heading(2, experiment["name"])]
    for tag, decoded in experiment["decodings"].items():
        parts += [heading(3, f"Sets, decoded as {tag}"), tables.main_table(decoded)]
        parts += decoding_options(decoded)
        for normalisation in ("basic", "whisper"):
            if wer := tables.wer_table(decoded, normalisation):
                parts += [paragraph(f"WER, {normalisation} normalisation:"), wer]
        if captions := tables.caption_table(decoded):
            parts += [paragraph("Further metrics of captions:"), captions]
    if not experiment["decodings"]:
        parts += [heading(3, "Sets"), paragraph(f"{tables.NOT_MEASURED}.")]
    parts += [heading(3, "Router"), tables.router_table(experiment)]
    parts += tables.misrouted(experiment["router"])
    parts += [heading(3, "Does it hear?"), tables.hearing_table(experiment["hearing"])]
    parts += [heading(3, "Time"), tables.seconds_table(experiment["seconds"])]
    main = next(iter(experiment["decodings"].values()), {})
    if samples and (answers := tables.samples_table(main)):
        parts += [heading(3, "Answers, taken evenly from every set"), answers]
    parts += analysis.section(experiment["analysis"])
    if figures:
        parts += [heading(3, "Figures"), *figure_links(figures, folder)]
    return [*parts, heading(3, "Environment"), *environment_blocks(experiment)]


def decoding_options(decoded: tables.Decoded) -> list[Block]:
    """The options of decoding. (Model, data and prompts are shown elsewhere.)"""
    found: dict[str, list[str]] = {}
    for name, entry in decoded.items():
        known = entry["decoding"].items()
        options = ", ".join(f"{key} {json.dumps(value)}" for key, value in known)
        found.setdefault(options or "not recorded", []).append(name)
    if len(found) == 1:
        return [paragraph(f"Options of decoding: {next(iter(found))}.")]
    return [
        paragraph(f"Options of decoding {', '.join(names)}: {options}.")
        for options, names in found.items()
    ]


def figure_links(figures: Sequence[Path], folder: Path) -> list[Block]:
    return [
        figure(Path(os.path.relpath(path, folder)).as_posix(), CAPTIONS[path.stem])
        for path in figures
    ]


def environment_blocks(experiment: Results) -> list[Block]:
    config = experiment["config"]
    entries = {
        **experiment["environment"],
        **{key: experiment[key] for key in ("system", "scale", "budget", "seed")},
        "CTC warm-up": {"ctc": "used", "none": "not used"}.get(str(config.get("warmup"))),
        "encoders": ", ".join(config.get("encoders") or {}) or None,
        "LLM": (config.get("llm_conf") or {}).get("path"),
    }
    blocks = [bullets(f"{k}: {GAP if v is None else v}" for k, v in entries.items())]
    if experiment["settings"]:
        settings = experiment["settings"].items()
        lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings]
        blocks += [paragraph("Settings of the training:"), code("\n".join(lines))]
    return blocks
