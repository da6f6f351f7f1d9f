"""The tables of RESULTS.md, each from what was measured."""

from collections.abc import Mapping
from typing import Any

from pam.model.experts import experts_have_tasks
from pam.report.experiment import Experiment, SetResult
from pam.report.markdown import GAP, escape, number, table
from pam.report.units import metric_label
from pam.score.clusters import doubt
from pam.score.metric import metric_called
from pam.score.router import POOLS

WER_COLUMNS = ("Snt", "Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err")
NOT_MEASURED = f"{GAP}, not measured"


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


def main_table(sets: Mapping[str, SetResult]) -> str:
    rows = [
        [
            escape(name),
            escape(result.score["task"]),
            escape(metric_label(result.score["metric"])),
            value_with_proof(result.score),
            str(result.score["count"]),
            escape("; ".join(metric_called(result.score["metric"]).remarks(result.score)) or None),
        ]
        for name, result in sets.items()
    ]
    return table(["set", "task", "metric", "value (counts, 95 % CI)", "n:", "beside it"], rows)


def wer_table(sets: Mapping[str, SetResult], normalisation: str) -> str | None:
    """ESPnet's table; percent of the reference's words, S.Err of the sentences.

    Sets without a word after that normalisation are left out.
    """
    rows = []
    for name, result in sets.items():
        if result.score["metric"] != "wer":
            continue
        counts = result.score if normalisation == "basic" else result.score.get(normalisation)
        if not counts:
            continue
        words = counts["ref_words"]
        shares = [counts[key] for key in ("hits", "sub", "del", "ins", "errors")]
        percent = [number(100 * share / words, 1) for share in shares]
        wrong = number(100 * counts["sentence_errors"] / counts["count"], 1)
        rows.append([escape(name), str(counts["count"]), str(words), *percent, wrong])
    header = ["dataset", *(f"{name}:" for name in WER_COLUMNS)]
    return table(header, rows) if rows else None


def caption_table(sets: Mapping[str, SetResult]) -> str | None:
    """What `--metrics` asked for; a metric that lacked a jar or a model says what it needs."""
    rows = []
    for name, result in sets.items():
        for metric, entry in result.score.get("metrics", {}).items():
            if "missing" in entry:
                cells = [GAP, "", f"{NOT_MEASURED}: {escape(entry['missing'])}"]
            else:
                value = f"{number(entry['value'], 4)} ({interval(entry, 4)}{doubt(result.score)})"
                cells = [value, str(entry["count"]), f"{entry['references']} references"]
            rows.append([escape(name), escape(metric_label(metric)), *cells])
    return table(["set", "metric", "value (95 % CI)", "n:", "remark"], rows) if rows else None


def router_table(experiment: Experiment) -> str:
    router = experiment.router
    if router is None:
        return no_router(experiment.config)
    pools = {pool: router[pool] for pool in POOLS if pool in router}
    tasks = list(dict.fromkeys(task for entry in pools.values() for task in entry["tasks"]))
    rows = []
    for pool, entry in pools.items():
        per_task = [_share(entry["tasks"].get(task)) for task in tasks]
        total = f"{number(entry['accuracy'])} % ({_share(entry)}, {interval(entry)})"
        rows.append([pool, total, *per_task])
    return table(["prompts", "accuracy (counts, 95 % CI)", *map(escape, tasks)], rows)


def no_router(config: Mapping[str, Any]) -> str:
    """Why there is no accuracy of routing."""
    if not experts_have_tasks(config):
        return f"{GAP}: the experts of this system belong to no task, so there is no right one."
    routed = (config.get("fusion_conf") or {}).get("routed", True)
    if config.get("fusion", "pam") == "pam" and routed:
        return f"{NOT_MEASURED}."
    return f"{GAP}: this system routes nothing."


def misrouted_table(router: Mapping[str, Any] | None, limit: int = 20) -> str | None:
    """The prompts that reached another expert than their task's."""
    wrong = [(pool, m) for pool in POOLS for m in (router or {}).get(pool, {}).get("misrouted", [])]
    if not wrong:
        return None
    rows = [
        [
            pool,
            escape(m["task"]),
            escape(m["chosen"]),
            number(m["probability"]),
            escape(m["prompt"]),
        ]
        for pool, m in wrong[:limit]
    ]
    more = f"\n\n… and {len(wrong) - limit} more, in router.json." if len(wrong) > limit else ""
    return table(["prompts", "task", "sent to", "p:", "prompt"], rows) + more


def hearing_table(hearing: Mapping[str, Any] | None) -> str:
    if not hearing:
        return f"{NOT_MEASURED}."
    rows = []
    for task, entry in hearing.items():
        right, wrong = entry.get("dev_loss"), entry.get("dev_loss_shuffled")
        gain = None if right is None or wrong is None else wrong - right
        count = GAP if entry.get("count") is None else str(entry["count"])
        rows.append([escape(task), number(right, 4), number(wrong, 4), number(gain, 4), count])
    header = ["task", "dev loss, right audio:", "dev loss, other audio:", "difference:", "n:"]
    return table(header, rows)


def seconds_table(seconds: Mapping[str, float]) -> str:
    if not seconds:
        return f"{NOT_MEASURED}."
    rows = [[escape(stage), number(float(value), 0)] for stage, value in seconds.items()]
    return table(
        ["stage", "seconds:"], [*rows, ["all", number(sum(map(float, seconds.values())), 0)]]
    )


def samples_table(sets: Mapping[str, SetResult]) -> str | None:
    rows = [
        [
            escape(name),
            escape(item.id),
            escape(item.prompt),
            escape(item.expert),
            escape(item.ref),
            escape(item.hyp),
        ]
        for name, result in sets.items()
        for item in result.samples
    ]
    header = ["set", "utterance", "prompt", "expert", "reference", "hypothesis"]
    return table(header, rows) if rows else None


def comparison_table(experiments: list[Experiment]) -> str:
    """One row an experiment, one column a set of the main decodings."""
    sets = {name: r.score for e in experiments for name, r in e.sets.items()}
    header = [
        f"{escape(name)}, {escape(metric_label(score['metric']))}" for name, score in sets.items()
    ]
    rows = [
        [
            escape(e.name),
            *(value_with_proof(e.sets[name].score) if name in e.sets else GAP for name in sets),
        ]
        for e in experiments
    ]
    return table(["experiment", *header], rows)


def _share(entry: Mapping[str, Any] | None) -> str:
    return GAP if entry is None else f"{entry['correct']} / {entry['count']}"
