"""The origin of a table's results, and the differences between their settings."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pam.config import load_yaml, read_experiment, scale_hash
from pam.paper.plan import budget_length, length_words
from pam.paper.spec import Row, TableSpec
from pam.paper.store import KEPT_IN, Store, stored_runs
from pam.paths import CONF
from pam.report.markdown import GAP, escape, number, table
from pam.report.store import stored_clusters
from pam.report.units import metric_label

DIFFERENT = (  # if these differ, two results of a set cannot be compared; and how to name them
    ("ids", "utterances"),
    ("references", "references"),
    ("counts", "reference counts"),
    ("clusters", "clusters"),
)
UNLIKE = "**Not made alike**"  # results whose difference is not of the systems alone
PAPERS_MODEL = "paraphrase-mpnet-base-v2"  # of sBERT and FENSE
Results = Mapping[str, Mapping[str, Any]]  # by name


def made_with(spec: TableSpec, store: Store, budget: str) -> list[str]:
    """A list of the table's results, and a line for each difference of their settings."""
    runs = {
        row: list(stored_runs(row, store, spec.scale, budget)[0].values()) for row in spec.systems()
    }
    results = {run["name"]: run for found in runs.values() for run in found}
    if not results:
        return []
    header = ["experiment", "encoders", "LLM", "options", "commit", "configuration", "training s:"]
    header += ["machine", "kept in"] if KEPT_IN in next(iter(results.values())) else ["machine"]
    rows = [_line(name, result) for name, result in sorted(results.items())]
    lines = [
        *_differ(results, "training_hash", "schedules, batches, tasks or training data are others"),
        *_differ(results, "scale_hash", f"conf/scale/{spec.scale}.yaml was another"),
        *_file_has_changed(spec.scale, results),
        *_lengths_differ(spec.scale, budget, results),
        *_llms_differ(spec.scale, runs),
        *_seeds_differ(runs),
        *_further_options(runs),
        *_tests_differ(spec, results),
        *_models(spec, results),
        *_commits(results),
    ]
    notes = ["\n".join(f"- {line}" for line in lines)] if lines else []
    return ["## Made with", table(header, rows), *notes]


def _line(name: str, result: Mapping[str, Any]) -> list[str]:
    return [
        escape(name),
        escape(", ".join(result.get("encoders") or ()) or GAP),
        escape(result.get("llm") or GAP),
        escape(" ".join(result["options"]) or GAP),
        escape(_short(result.get("commit") or "unknown")),
        escape(result.get("config_hash")),
        number(result.get("seconds", {}).get("train"), 0),
        escape(result.get("machine")),
        *([escape(result[KEPT_IN])] if KEPT_IN in result else ()),
    ]


def _short(commit: str) -> str:
    """The first digits; a suffix like `-dirty` stays."""
    head, _, dirty = commit.partition("-")
    return f"{head[:12]}-{dirty}" if dirty else head[:12]


def _groups(results: Results, key: str) -> dict[Any, list[str]]:
    """The names by their value of a key; results without one are left out."""
    groups: dict[Any, list[str]] = {}
    for name, result in results.items():
        if (value := result.get(key)) is not None:
            groups.setdefault(value, []).append(name)
    return groups


def _differ(results: Results, key: str, what: str) -> list[str]:
    odd = _all_but_most(_groups(results, key).values())
    return [f"{UNLIKE}: {what} of {_names(odd)}."] if odd else []


def _all_but_most(groups: Iterable[list[str]]) -> list[str]:
    """The names that are not of the largest group."""
    ordered = sorted(groups, key=len, reverse=True)
    return sorted(name for group in ordered[1:] for name in group)


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(escape, names))


def _seeds_differ(runs: Mapping[Row, list[Mapping[str, Any]]]) -> list[str]:
    return [
        f"{UNLIKE}: the seeds of {escape(row.name)} differ in more than the seed."
        for row, found in runs.items()
        if len({run["setup_hash"] for run in found if run.get("setup_hash")}) > 1
    ]


def _file_has_changed(scale: str, results: Results) -> list[str]:
    """The results that another file of the scale made than that of today."""
    now = scale_hash(CONF / "scale" / f"{scale}.yaml")
    others = [name for name, run in results.items() if run.get("scale_hash") not in (now, None)]
    if not others:
        return []
    which = "all of these" if len(others) == len(results) else _names(sorted(others))
    return [f"Made with another conf/scale/{scale}.yaml than that of today: {which}."]


def _lengths_differ(scale: str, budget: str, results: Results) -> list[str]:
    """The head of a table states the budget of the scale's file as it is now."""
    now = budget_length(scale, budget)
    warmup = load_yaml(CONF / "scale" / f"{scale}.yaml").get("warmup")
    lengths = {
        name: length_words(run.get("budget_conf") or {}, warmup) for name, run in results.items()
    }
    groups = _groups({name: {"length": length} for name, length in lengths.items()}, "length")
    return [
        f"{UNLIKE}: budget {escape(budget)} was {escape(length)} for {_names(names)}; "
        f"conf/scale/{scale}.yaml says {escape(now)} now."
        for length, names in groups.items()
        if length not in (now, GAP)
    ]


def _llms_differ(scale: str, runs: Mapping[Row, list[Mapping[str, Any]]]) -> list[str]:
    """The results with another LLM than that of their row, by default the scale's."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row, found in runs.items():
        if known := [run for run in found if run.get("llm")]:
            files = (CONF / "scale" / f"{scale}.yaml", CONF / "systems" / f"{row.system}.yaml")
            own = read_experiment(*files, assignments=row.options).llm_conf.get("path")
            for run in (run for run in known if run["llm"] != own):
                groups.setdefault((run["llm"], str(own)), []).append(run["name"])
    return [
        f"{UNLIKE}: the LLM was {escape(llm)} for {_names(sorted(names))}; the table "
        f"says {escape(own)}."
        for (llm, own), names in groups.items()
    ]


def _further_options(runs: Mapping[Row, list[Mapping[str, Any]]]) -> list[str]:
    """Options of a result that are not those of its row."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for row, found in runs.items():
        for run in found:
            more = tuple(option for option in run["options"] if option not in row.options)
            groups.setdefault(more, []).append(run["name"])
    what = "Further options" if len(groups) == 1 else f"{UNLIKE}: further options"
    return [
        f"{what} of {_names(sorted(names))}: {escape(' '.join(more))}."
        for more, names in groups.items()
        if more
    ]


def _tests_differ(spec: TableSpec, results: Results) -> list[str]:
    lines = []
    for set_ in dict.fromkeys(column.set for column in spec.columns.values() if column.set):
        found = {name: run["sets"][set_] for name, run in results.items() if set_ in run["sets"]}
        entries = {name: _comparable(entry) for name, entry in found.items()}
        lines += _differ(entries, "options", f"other options or prompts of decoding {escape(set_)}")
        for key, what in DIFFERENT:
            if odd := _all_but_most(_groups(entries, key).values()):
                lines.append(
                    f"**Not comparable**: {escape(set_)} has other {what} in {_names(odd)}; no "
                    "comparison with the others, and no interval of what mixes them."
                )
    return lines


def _comparable(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A set of a result with what must be equal, None where it is not known."""
    words = entry["metrics"].get("wer", {}).get("denominators")  # of each reference
    decoding = entry.get("decoding")
    return {
        **entry,
        "counts": words and tuple(words),
        "clusters": stored_clusters(entry),
        "options": decoding and json.dumps(decoding, sort_keys=True),
    }


def _models(spec: TableSpec, results: Results) -> list[str]:
    """The model that measured a metric, for metrics that need one."""
    lines = []
    for column in spec.columns.values():
        found = {
            name: run["sets"].get(column.set, {}).get("metrics", {}).get(column.metric, {})
            for name, run in results.items()
        }
        groups = _groups(found, "model")
        label = escape(f"{metric_label(column.metric)} of {column.set}")
        if len(groups) > 1:
            odd = _names(_all_but_most(groups.values()))
            lines.append(f"**Not comparable**: {label} was measured by another model in {odd}.")
        lines += [
            f"{label} is measured by {escape(model)}; the paper's by {PAPERS_MODEL}."
            for model in groups
            if not str(model).endswith(PAPERS_MODEL)
        ]
    return lines


def _commits(results: Results) -> list[str]:
    groups = _groups(results, "commit")
    if len(groups) < 2:
        return []
    listed = ", ".join(f"{escape(_short(commit))} ({len(n)})" for commit, n in groups.items())
    return [
        f"Made at {len(groups)} commits: {listed}. What the code itself changed between them is in "
        "no configuration."
    ]
