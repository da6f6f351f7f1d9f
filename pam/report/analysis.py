"""The report's section "Analysis": the measurements of pam.bin.analyse, as tables."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pam.analysis.figures import base_losses
from pam.analysis.similarity import MEASURES, NEEDS
from pam.report.blocks import Block, bullets, heading, paragraph, table
from pam.report.markdown import GAP, number
from pam.score.clusters import doubt


def section(analysis: Mapping[str, Any] | None) -> list[Block]:
    """The blocks of the section; [] if there is no analysis."""
    if not analysis:
        return []
    parts = [heading(3, "Analysis")]
    parts += importance_part(analysis.get("importance"))
    parts += metric_part(analysis.get("metric"))
    parts += routing_part(analysis.get("routing"))
    parts += similarity_part(analysis)
    if analysis["left_out"]:
        parts.append(bullets(f"{n}: {GAP}, {why}." for n, why in analysis["left_out"].items()))
    return parts


def importance_part(found: Mapping[str, Any] | None) -> list[Block]:
    """The changes by zeroing and forcing, only if all measurements are complete."""
    if not found or not found.get("complete"):
        return []
    base = base_losses(found["base"])
    counts = {task: len(entry["sums"]) for task, entry in found["base"].items()}
    header = ["utterances", *(f"{task}, {counts[task]}:" for task in base)]
    as_it_is = ["as it is: loss", *(number(loss, 3) for loss in base.values())]
    rows = [as_it_is, *(_changes(n, entry, base) for n, entry in found["zeroed"].items())]
    text = (
        "Change of the dev loss (nats a token, paired 95 % interval) when the hidden states of an "
        f"encoder, or of a third of its layers, are zero.{_clusters(found)}"
    )
    parts = [paragraph(text), table(header, rows)]
    if found["forced"]:
        rows = [as_it_is, *(_changes(n, entry, base) for n, entry in found["forced"].items())]
        parts.append(paragraph("The same if one expert is used for every prompt:"))
        parts.append(table(header, rows))
    return parts


def _clusters(found: Mapping[str, Any]) -> str:
    """A caution about intervals from few clusters: they do not hold for other speakers."""
    notes: dict[str, list[str]] = {}
    for task, entry in next(iter(found["zeroed"].values())).items():
        notes.setdefault(doubt(entry).removeprefix(", "), []).append(task)
    texts = [f"{', '.join(tasks)}: {note}" for note, tasks in notes.items() if note]
    return f" It may not hold for other speakers or clips ({'; '.join(texts)})." if texts else ""


def _changes(name: str, entry: Mapping[str, Any], base: Mapping[str, float]) -> list[str]:
    return [name, *(_signed(entry[task]) for task in base)]


def _signed(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['change']:+.3f} ({low:+.3f} to {high:+.3f})"


def metric_part(found: Mapping[str, Any] | None) -> list[Block]:
    parts = []
    for name, runs in (found or {}).items():
        tasks = list(runs["as it is"])
        header = ["", *(f"{t}, {runs['as it is'][t]['metric']}:" for t in tasks)]
        rows = [[run, *(_value(runs[run][t]) for t in tasks)] for run in runs]
        parts += [paragraph(f"The metric of {name} for each task:"), table(header, rows)]
    return parts


def _value(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{number(entry['value'])} ({low:.1f}–{high:.1f}{doubt(entry)})"


def routing_part(found: Mapping[str, Any] | None) -> list[Block]:
    if not found:
        return []
    rows = [
        [task, *(number(margin[key], 3) for key in ("median", "tenth", "least"))]
        for task, margin in found["margins"].items()
    ]
    parts = [
        paragraph("Margins p₁ − p₂ of the unseen prompts:"),
        table(["task", "median:", "a tenth is below:", "least:"], rows),
        paragraph(
            "Unseen prompts with typing errors, in another case, or without punctuation; and "
            "paraphrases in other styles (pam/analysis/probes.yaml), which were not adapted to the "
            "results of any router:"
        ),
        robustness_table(found),
    ]
    wrong = [a for a in found["paraphrases"]["answers"] if a["kind"] != a["expert"]]
    if wrong and found["paraphrases"]["correct"] is not None:
        parts += [paragraph("Paraphrases sent to another expert:"), _answer_table(wrong, "task")]
    return [*parts, *other_tasks_part(found["other_tasks"])]


def robustness_table(found: Mapping[str, Any]) -> Block:
    rows = [
        [name, _right(entry), entry["changed"], number(entry["median_margin"], 3)]
        for name, entry in found["robustness"].items()
    ]
    rows.append(["paraphrases", _right(found["paraphrases"]), GAP, GAP])
    header = ["prompts", "to their task's expert", "to another than as written:", "median margin:"]
    return table(header, rows)


def _right(entry: Mapping[str, Any]) -> str:
    if entry["correct"] is None:
        return GAP
    low, high = entry["ci95"]
    share = 100 * entry["correct"] / entry["count"]
    return f"{share:.1f} % ({entry['correct']} / {entry['count']}, 95 % CI {low:.1f}–{high:.1f})"


def other_tasks_part(answers: list[Mapping[str, Any]]) -> list[Block]:
    """The experts that the router chooses for prompts of tasks without an expert."""
    if not answers:
        return []
    experts = Counter(answer["expert"] for answer in answers)
    counts = ", ".join(f"{expert} {count}" for expert, count in experts.most_common())
    sure = sum(answer["margin"] > 0.5 for answer in answers)
    text = (
        f"Prompts of other tasks are routed too: {counts}. Of these {len(answers)}, {sure} have "
        "a margin above 0.5: the router cannot reject a prompt."
    )
    return [paragraph(text), _answer_table(answers, "kind")]


def _answer_table(answers: list[Mapping[str, Any]], kind: str) -> Block:
    rows = [
        [a["kind"], a["expert"], number(a["probability"]), number(a["margin"]), a["prompt"]]
        for a in answers
    ]
    return table([kind, "sent to", "p:", "margin:", "prompt"], rows)


def similarity_part(analysis: Mapping[str, Any]) -> list[Block]:
    """Table 12."""
    pairs = analysis.get("similarity")
    if not pairs:
        return []
    frames = analysis["frames"]
    text = (
        f"Similarity of the encoders (Table 12), {frames['raw']} frames of {frames['set']}; layers "
        "at equal relative depth are paired, with the layer numbers of the deeper encoder. The "
        "paper does not say from which vectors its cosines are computed."
    )
    tables, missing = similarity_tables(pairs)
    gap = [paragraph(f"{GAP}: {missing}.")] if missing else []
    return [paragraph(text), *tables, *gap]


def similarity_tables(pairs: list[Mapping[str, Any]]) -> tuple[list[Block], str | None]:
    """Table 12's layout for each measure that was computed, and the names of the others."""
    tables = {measure: similarity_table(pairs, measure) for measure in MEASURES}
    absent = "; ".join(MEASURES[measure] for measure, found in tables.items() if found is None)
    return [*filter(None, tables.values())], f"{absent} ({NEEDS})" if absent else None


def similarity_table(pairs: list[Mapping[str, Any]], measure: str) -> Block | None:
    """Table 12's layout for one measure; None if no pair has it."""
    if all(value is None for pair in pairs for value in pair[measure]):
        return None
    depth = max(len(pair["layers"]) for pair in pairs)
    header = [MEASURES[measure], "emb:", *(f"{layer}:" for layer in range(1, depth))]
    rows = []
    for pair in pairs:
        values = [number(value) for value in pair[measure]]
        gaps = [GAP] * (depth - len(values))
        rows.append([" & ".join(pair["encoders"]), *values, *gaps])
    return table(header, rows)
