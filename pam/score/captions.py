"""Further metrics of captions, on request; a metric whose jar or model is missing is reported."""

from collections.abc import Iterable, Sequence
from typing import Any

from pam.errors import PamError
from pam.score import CAPTION_METRICS
from pam.score.items import Item
from pam.score.metric import value_of
from pam.score.utterances import Statistics


def further(
    items: Sequence[Item], names: Iterable[str], seed: int, sbert: str
) -> tuple[dict[str, dict[str, Any]], dict[str, Statistics]]:
    """{name: {value, count, ci95, …}}, and {name: statistics of the utterances}.

    If a metric lacks a jar, a model or Java, its result is {"missing": what it needs}, and it has
    no statistics.
    """
    results: dict[str, dict[str, Any]] = {}
    statistics = {}
    for name in names:
        try:
            kept, more = CAPTION_METRICS.get(name)().measure(items, sbert)
        except PamError as error:
            results[name] = {"missing": str(error)}
            continue
        statistics[name] = kept
        results[name] = {
            **value_of(kept, items, seed),
            "references": sum(len(item.references()) for item in items),
            **more,
        }
    return results, statistics


def missing(results: Iterable[dict[str, Any]]) -> dict[str, str]:
    """{metric: what it needs} over the results of all sets."""
    return {
        name: entry["missing"]
        for result in results
        for name, entry in result.get("metrics", {}).items()
        if "missing" in entry
    }
