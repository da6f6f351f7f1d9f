"""Checks of a stored result, so that no table shows what cannot be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pam.config import keys_of
from pam.config.keys import (
    ANY,
    FINITE,
    FLAG,
    LIST,
    NAMES,
    NUMBER,
    POSITIVE,
    TEXT,
    Key,
    Rule,
    check,
    option,
    or_null,
    whole,
)
from pam.errors import PamError
from pam.report.store import FORMAT

SECTION = or_null(Rule("a section", lambda value: isinstance(value, dict)))
CLOSE = 0.01  # in the unit of the metric: stored terms are rounded to four digits


def section_of(help_: str, rule: Rule) -> Any:
    return option(help_, keys=lambda: {ANY: Key(help_, rule)})


@dataclass(frozen=True)
class StoredMetric:
    """A metric of a set: scale · Σ numerators / Σ denominators, a term for each utterance."""

    value: float | None = option("The metric.", FINITE)
    numerators: list[float] | None = option("Of each utterance.", LIST)
    denominators: list[float] | None = option("Of each utterance; null: 1.", or_null(LIST))
    scale: float | None = option("100 for a percentage.", POSITIVE)
    errors: bool | None = option("Whether the numerators count errors.", FLAG)
    model: str | None = option("The model that the metric uses.", or_null(TEXT))


@dataclass(frozen=True)
class StoredSet:
    """A decoded set: its utterances as a digest, their clusters, and its metrics."""

    task: str | None = option("The task.", TEXT)
    count: int | None = option("The number of utterances.", whole(1))
    ids: str | None = option("A digest of the utterances' ids.", TEXT)
    clusters: dict[str, Any] | None = option("`names`, and `of` each utterance.", SECTION)
    references: str | None = option("A digest of the references.", or_null(TEXT))
    decoding: dict[str, Any] | None = option("The options of the decoding.", SECTION)
    metrics: dict[str, StoredMetric] | None = option("The metrics.")
    missing: dict[str, str] | None = option("What a metric lacked.", SECTION)


@dataclass(frozen=True)
class StoredResult:
    """RESULTS/SCALE/NAME.json, by `pam.report.store`."""

    format: int | None = option(
        "The version of this format.", Rule(f"{FORMAT}, the format of this version", FORMAT.__eq__)
    )
    name: str | None = option("The experiment.", TEXT)
    system: str | None = option("A file of conf/systems.", or_null(TEXT))
    options: list[str] | None = option("--set of the training.", NAMES)
    encoders: dict[str, int] | None = section_of("Hidden states of an encoder.", or_null(whole(1)))
    llm: str | None = option("The LLM.", or_null(TEXT))
    scale: str | None = option("A file of conf/scale.", or_null(TEXT))
    budget: str | None = option("The length of the training.", or_null(TEXT))
    budget_conf: dict[str, Any] | None = option("Its steps.", SECTION)
    seed: int | None = option("The seed.", whole(0))
    config_hash: str | None = option("Of the configuration.", or_null(TEXT))
    training_hash: str | None = option("Of what the rows of a table share.", or_null(TEXT))
    setup_hash: str | None = option("Of what the seeds of a row share.", or_null(TEXT))
    scale_hash: str | None = option("Of the scale's file.", or_null(TEXT))
    commit: str | None = option("The commit of the training.", or_null(TEXT))
    machine: str | None = option("The machine of the training.", or_null(TEXT))
    seconds: dict[str, float] | None = section_of("Seconds of a stage.", or_null(NUMBER))
    training_data: dict[str, Any] | None = option("Its sets.", SECTION)
    router: dict[str, Any] | None = option("The router's accuracy.", SECTION)
    weights: dict[str, list[float]] | None = section_of("Shares of an expert's |W|.", LIST)
    similarity: list[Any] | None = option("Of pairs of encoders.", or_null(LIST))
    sets: dict[str, StoredSet] | None = option("The decoded sets.")


def check_result(result: Mapping[str, Any], where: str) -> None:
    """PamError for the first key, of the file `where`, with an impossible value."""
    check(result, keys_of(StoredResult), where)
    for expert, shares in (result.get("weights") or {}).items():
        _check_terms(shares, None, f"{where}: weights.{expert}", NUMBER)
    for name, entry in result["sets"].items():
        for metric, stored in entry.get("metrics", {}).items():
            _check_metric(stored, entry, f"{where}: sets.{name}.metrics.{metric}")


def _check_metric(stored: Mapping[str, Any], entry: Mapping[str, Any], where: str) -> None:
    for key in ("numerators", "scale"):
        if key not in stored:
            raise PamError(f"{where}: no {key!r}: run the report of this experiment again")
    numerators, denominators = stored["numerators"], stored.get("denominators")
    count = entry.get("count") or len(numerators)
    rule = NUMBER if stored.get("errors") else FINITE
    _check_terms(numerators, count, f"{where}.numerators", rule)
    if denominators is not None:
        _check_terms(denominators, count, f"{where}.denominators", NUMBER)
    total = sum(denominators or [1] * count)
    if total <= 0:
        raise PamError(f"{where}.denominators: their sum is 0: expected more")
    value = stored["scale"] * sum(numerators) / total
    if abs(stored.get("value", value) - value) > CLOSE:
        raise PamError(f"{where}.value: {stored['value']}: its terms give {value:.4f}")
    _check_clusters(entry.get("clusters"), count, where.rpartition(".metrics.")[0])


def _check_terms(terms: Sequence[Any], count: int | None, where: str, rule: Rule) -> None:
    if not terms or len(terms) != (count or len(terms)):
        raise PamError(f"{where}: {len(terms)} numbers: expected {count or 'some'}")
    for number, term in enumerate(terms):
        if not rule.holds(term):
            raise PamError(f"{where}: {term!r} at place {number}: expected {rule.what}")


def _check_clusters(clusters: Mapping[str, Any] | None, count: int, where: str) -> None:
    if clusters is None:
        return
    names, places = clusters.get("names"), clusters.get("of")
    if not (NAMES.holds(names) and isinstance(places, list) and len(places) == count):
        raise PamError(f"{where}.clusters: expected `names`, and {count} places `of` utterances")
    for number, place in enumerate(places):
        if not (whole(0).holds(place) and place < len(names)):
            raise PamError(f"{where}.clusters.of: {place!r} at place {number}: no such name")
