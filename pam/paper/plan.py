"""The missing experiments of a table, and their predicted time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from statistics import fmean
from typing import Any

from pam.config import load_yaml, read_experiment
from pam.errors import PamError
from pam.paper.spec import TableSpec
from pam.paper.store import FILE, Store, named, stored_runs
from pam.paths import CONF
from pam.report.markdown import GAP

STAGES = ("train", "average", "decode", "score", "report")  # those that every experiment needs
ANALYSED = "similarity"  # the kind of table, and what a result has of an analysis
AGAIN = ("decode", "score", "report")


@dataclass(frozen=True)
class Run:
    """An experiment to run. `options` are further --set of its training. `lacks` names sets and
    metrics that are missing in its result: then it is only decoded and scored again, where it was
    trained. `analysed`: whether a table shows results of pam.bin.analyse."""

    name: str
    system: str
    seed: int
    options: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    analysed: bool = False


def missing_runs(
    specs: Iterable[TableSpec],
    store: Store,
    budget: str,
    seeds: Sequence[int],
    metrics: Sequence[str] = (),
) -> list[Run]:
    """Each run once. All systems of a seed come before the next seed, so that the table is soon
    complete. A result that lacks a set of the table, or one of `metrics` in it, is missing too.

    PamError for a result with the name of a missing one, which a training would replace.
    """
    specs = list(specs)
    looked_into = {row.system for spec in specs if spec.kind == ANALYSED for row in spec.systems()}
    runs: dict[str, Run] = {}
    for seed, spec in product(seeds, specs):
        for row in (row for row in spec.systems() if not row.missing):
            name = row.experiment(spec.scale, budget, seed)
            found = stored_runs(row, store, spec.scale, budget)[0].get(seed)
            lacks = lacking(found, spec, metrics) if found else ()
            other = None if found else named(row, store, spec.scale, budget).get(seed)
            if other:
                raise PamError(
                    f"{other[FILE]}: made with the options {other['options']}, not with "
                    f"{list(row.options)}: remove it to train the system of the table"
                )
            if found is None or lacks:
                analysed = row.system in looked_into and not row.options
                run = Run(name, row.system, seed, row.options, lacks, analysed)
                runs.setdefault(name, run)
    return list(runs.values())


def lacking(result: Mapping[str, Any], spec: TableSpec, metrics: Sequence[str]) -> tuple[str, ...]:
    """Items of the table that are missing in the result: an analysis, sets, or `metrics`."""
    lacks = [ANALYSED] if spec.kind == ANALYSED and not result.get(ANALYSED) else []
    columns = spec.columns.values() if spec.kind == "systems" else ()
    for column in (column for column in columns if not column.missing):
        found = result["sets"].get(column.set)
        if found is None:
            lacks.append(column.set)
        elif column.metric in metrics and column.metric not in found["metrics"]:
            lacks.append(column.metric)
    return tuple(dict.fromkeys(lacks))


def absent_models(runs: Iterable[Run], scale: str) -> list[str]:
    """A line for each file or folder of a model that is not on this machine, with its runs."""
    needed: dict[str, list[str]] = {}
    for run in (run for run in runs if not run.lacks):
        files = (CONF / "scale" / f"{scale}.yaml", CONF / "systems" / f"{run.system}.yaml")
        experiment = read_experiment(*files, assignments=run.options)
        paths = [encoder.path for encoder in experiment.encoders.values()]
        for path in filter(None, [*paths, experiment.llm_conf.get("path")]):
            if Path(path).is_absolute() and not Path(path).exists():
                needed.setdefault(path, []).append(run.name)
    where = f"set its path in conf/scale/{scale}.yaml or conf/tables/scales.yaml"
    return [f"there is no {path}: {where} ({', '.join(names)})" for path, names in needed.items()]


def gone(runs: Iterable[Run], expdir: Path) -> list[Run]:
    """Runs with a result but without a trained model, whose missing items cannot be scored."""
    return [run for run in runs if run.lacks and not (expdir / run.name / "model.pth").is_file()]


def predicted_seconds(run: Run, store: Store, scale: str, budget: str) -> float | None:
    """The mean time of the same system, else of all systems; None where none was measured. For a
    run that is only decoded and scored again: the time of its own decoding, scoring and report."""
    if run.lacks:
        return sum(store[run.name].get("seconds", {}).get(stage, 0) for stage in AGAIN)
    alike = [r for r in store.values() if (r["scale"], r["budget"]) == (scale, budget)]
    measured = [r for r in alike if r.get("seconds", {}).get("train")]
    same = [r for r in measured if r["system"] == run.system]
    totals = [sum(r["seconds"].get(stage, 0) for stage in STAGES) for r in same or measured]
    return fmean(totals) if totals else None


def describe(
    runs: Sequence[Run],
    specs: Sequence[TableSpec],
    store: Store,
    budget: str,
    train_args: str = "",
) -> Iterator[str]:
    """Lines for a reader: what is missing, for how long, which results have other options than the
    missing ones would have with `train_args`, and what cannot be had at the scale."""
    scale = specs[0].scale
    times = [predicted_seconds(run, store, scale, budget) for run in runs]
    for run, seconds in zip(runs, times, strict=True):
        what = f"{', '.join(run.lacks)} of {run.name}" if run.lacks else run.name
        yield f"missing: {what}, {_time(seconds)}" + "".join(f" --set {o}" for o in run.options)
    if not runs:
        yield "nothing is missing that this scale can have"
    elif None in times:
        length = budget_length(scale, budget)
        yield f"{len(runs)} to run, each of {length}; no time is known yet"
    else:
        yield f"{len(runs)} to run, {_time(sum(times))} in all, as the stored ones took"
    if any(not run.lacks for run in runs):
        yield from other_options(specs, store, budget, options_in(train_args))
    for spec in specs:
        for row in spec.systems():
            if row.missing:
                yield f"{spec.name}: no {row.name}: {row.missing}"


def options_in(train_args: str) -> tuple[str, ...]:
    """The assignments of `--set A --set=B`, split at spaces as in utils/recipe.sh."""
    words = train_args.replace("--set=", "--set ").split()
    return tuple(word for before, word in pairwise(words) if before == "--set")


def other_options(
    specs: Sequence[TableSpec], store: Store, budget: str, given: Sequence[str]
) -> Iterator[str]:
    """A line for results that count, and whose options are not `given` and those of their row."""
    groups: dict[tuple[str, ...], dict[str, None]] = {}
    for row, scale in ((row, spec.scale) for spec in specs for row in spec.systems()):
        for result in stored_runs(row, store, scale, budget)[0].values():
            more = tuple(option for option in result["options"] if option not in row.options)
            if {*more} != {*given} - {*row.options}:
                groups.setdefault(more, {})[result["name"]] = None
    for more, names in groups.items():
        yield (
            f"counted: {', '.join(names)}, trained with {_settings(more)}; the missing ones would "
            f"be trained with {_settings(given)}: give the same --train_args, or leave published "
            "results out with --published false"
        )


def _settings(options: Sequence[str]) -> str:
    return " ".join(f"--set {option}" for option in options) or "no further --set"


def budget_length(scale: str, budget: str) -> str:
    """`ctc_steps 1600, steps 600`, from the scale's file."""
    conf = load_yaml(CONF / "scale" / f"{scale}.yaml")
    return length_words(conf["budgets"].get(budget, {}), conf.get("warmup"))


def length_words(length: Mapping[str, Any], warmup: str | None) -> str:
    """The same words for the same lengths, whatever order a file has them in.

    Where the scale's `warmup` is "none", its steps are no part of the length.
    """
    left_out = {"steps_per_epoch", *(["ctc_steps"] if warmup == "none" else [])}
    kept = [f"{key} {value}" for key, value in sorted(length.items()) if key not in left_out]
    return ", ".join(kept) or GAP


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {hours} h {minutes:02d} min" if hours else f"about {minutes} min"
