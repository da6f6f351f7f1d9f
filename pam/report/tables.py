"""The tables of a report, each made from a part of results.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from pam.model.experts import experts_have_tasks
from pam.report.blocks import Block, paragraph, table
from pam.report.markdown import GAP, number
from pam.report.results import Results
from pam.report.units import metric_label
from pam.score.clusters import doubt
from pam.score.metric import metric_called
from pam.score.router import SCORED_SPLITS

WER_COLUMNS = ("Snt", "Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err")
NOT_MEASURED = f"{GAP}, not measured"
Decoded = Mapping[str, Mapping[str, Any]]  # one decoding: {set: {score, decoding, samples}}


def value_with_proof(score: Mapping[str, Any]) -> str:
    """`12.30 (456 / 3708, 95 % CI 11.2–13.4)`: the value, its counts and its interval."""
    metric = metric_called(score["metric"])
    counts = metric.counts(score)
    proof = f"{counts}{', ' if counts else ''}{interval(score)}{doubt(score)}"
    return f"{number(score['value'], metric.digits)} ({proof})"


def interval(score: Mapping[str, Any], digits: int = 1) -> str:
    if not score.get("ci95"):
        return f"95 % CI {GAP}"
    low, high = score["ci95"]
    return f"95 % CI {low:.{digits}f}–{high:.{digits}f}"


def main_table(decoded: Decoded) -> Block:
    rows = [
        [
            name,
            score["task"],
            metric_label(score["metric"]),
            value_with_proof(score),
            score["count"],
            "; ".join(metric_called(score["metric"]).remarks(score)) or GAP,
        ]
        for name, score in scores(decoded).items()
    ]
    return table(["set", "task", "metric", "value (counts, 95 % CI)", "n:", "beside it"], rows)


def scores(decoded: Decoded) -> dict[str, Mapping[str, Any]]:
    return {name: found["score"] for name, found in decoded.items()}


def wer_table(decoded: Decoded, normalisation: str) -> Block | None:
    """ESPnet's table, in percent of the reference words; S.Err in percent of the sentences.

    Sets without any word after this normalisation are left out.
    """
    rows = []
    for name, score in scores(decoded).items():
        if score["metric"] != "wer":
            continue
        counts = score if normalisation == "basic" else score.get(normalisation)
        if not counts:
            continue
        words = counts["ref_words"]
        shares = [counts[key] for key in ("hits", "sub", "del", "ins", "errors")]
        percent = [number(100 * share / words, 1) for share in shares]
        wrong = number(100 * counts["sentence_errors"] / counts["count"], 1)
        rows.append([name, counts["count"], words, *percent, wrong])
    header = ["dataset", *(f"{name}:" for name in WER_COLUMNS)]
    return table(header, rows) if rows else None


def caption_table(decoded: Decoded) -> Block | None:
    """The metrics of --metrics; for an unmeasured metric, the jar or model that it needs."""
    rows = []
    for name, score in scores(decoded).items():
        for metric, entry in score.get("metrics", {}).items():
            if "missing" in entry:
                cells = [GAP, "", f"{NOT_MEASURED}: {entry['missing']}"]
            else:
                value = f"{number(entry['value'], 4)} ({interval(entry, 4)}{doubt(score)})"
                cells = [value, entry["count"], f"{entry['references']} references"]
            rows.append([name, metric_label(metric), *cells])
    return table(["set", "metric", "value (95 % CI)", "n:", "remark"], rows) if rows else None


def router_table(results: Results) -> Block:
    router = results["router"]
    if router is None:
        return paragraph(no_router(results["config"]))
    splits = {split: router[split] for split in SCORED_SPLITS if split in router}
    tasks = list(dict.fromkeys(task for entry in splits.values() for task in entry["tasks"]))
    rows = []
    for split, entry in splits.items():
        per_task = [_share(entry["tasks"].get(task)) for task in tasks]
        total = f"{number(entry['accuracy'])} % ({_share(entry)}, {interval(entry)})"
        rows.append([split, total, *per_task])
    return table(["prompts", "accuracy (counts, 95 % CI)", *tasks], rows)


def no_router(config: Mapping[str, Any]) -> str:
    """Why there is no accuracy of routing."""
    if not experts_have_tasks(config):
        return f"{GAP}: the experts of this system belong to no task, so there is no right one."
    routed = (config.get("fusion_conf") or {}).get("routed", True)
    if config.get("fusion", "pam") == "pam" and routed:
        return f"{NOT_MEASURED}."
    return f"{GAP}: this system routes nothing."


def misrouted(router: Mapping[str, Any] | None, limit: int = 20) -> list[Block]:
    """The prompts for which the router chose another expert than their task's."""
    wrong = [
        (split, m)
        for split in SCORED_SPLITS
        for m in (router or {}).get(split, {}).get("misrouted", [])
    ]
    if not wrong:
        return []
    rows = [
        [split, m["task"], m["chosen"], number(m["probability"]), m["prompt"]]
        for split, m in wrong[:limit]
    ]
    found = [paragraph("Misrouted prompts:")]
    found.append(table(["prompts", "task", "sent to", "p:", "prompt"], rows))
    if len(wrong) > limit:
        found.append(paragraph(f"… and {len(wrong) - limit} more, in router.json."))
    return found


def hearing_table(hearing: Mapping[str, Any] | None) -> Block:
    if not hearing:
        return paragraph(f"{NOT_MEASURED}.")
    rows = []
    for task, entry in hearing.items():
        right, wrong = entry.get("dev_loss"), entry.get("dev_loss_shuffled")
        gain = None if right is None or wrong is None else wrong - right
        losses = [number(value, 4) for value in (right, wrong, gain)]
        rows.append([task, *losses, entry.get("count")])
    header = ["task", "dev loss, right audio:", "dev loss, other audio:", "difference:", "n:"]
    return table(header, rows)


def seconds_table(seconds: Mapping[str, float]) -> Block:
    if not seconds:
        return paragraph(f"{NOT_MEASURED}.")
    total = {**seconds, "all": sum(map(float, seconds.values()))}
    return table(["stage", "seconds:"], [[k, number(float(v), 0)] for k, v in total.items()])


def samples_table(decoded: Decoded) -> Block | None:
    keys = ("id", "prompt", "expert", "ref", "hyp")
    rows = [
        [name, *(answer[key] for key in keys)]
        for name, found in decoded.items()
        for answer in found["samples"]
    ]
    header = ["set", "utterance", "prompt", "expert", "reference", "hypothesis"]
    return table(header, rows) if rows else None


def comparison_table(experiments: Sequence[Results]) -> Block:
    """One row per experiment, one column per set of the main decodings."""
    sets = {name: score for e in experiments for name, score in e["sets"].items()}
    header = [f"{name}, {metric_label(score['metric'])}" for name, score in sets.items()]
    rows = [
        [
            e["name"],
            *(value_with_proof(e["sets"][name]) if name in e["sets"] else GAP for name in sets),
        ]
        for e in experiments
    ]
    return table(["experiment", *header], rows)


def _share(entry: Mapping[str, Any] | None) -> str:
    return GAP if entry is None else f"{entry['correct']} / {entry['count']}"
