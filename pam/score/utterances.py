"""Per-utterance statistics of the metrics, stored for intervals and paired tests."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pam.atomic import write_json
from pam.errors import PamError
from pam.score.significance import (
    Clusters,
    count_clusters,
    matched_pairs,
    paired_bootstrap,
    scope,
)


@dataclass(frozen=True)
class Statistics:
    """A metric is `scale` · Σ `numerators` / Σ `denominators`; without denominators, a mean.

    Both are [U], in the order of the set's utterances. `errors`: whether numerators count errors.
    """

    numerators: Sequence[float]
    denominators: Sequence[float] | None = None
    scale: float = 1.0
    errors: bool = False

    @property
    def value(self) -> float:
        total = len(self.numerators) if self.denominators is None else sum(self.denominators)
        return self.scale * sum(self.numerators) / total


def utterances_file(score: Path) -> Path:
    """The path of utterances.json for score.json, of utterances_TASK.json for score_TASK.json."""
    return score.with_name(score.name.replace("score", "utterances", 1))


def write_utterances(
    path: Path,
    ids: Sequence[str],
    statistics: Mapping[str, Statistics],
    clusters: Sequence[str] | None = None,
) -> None:
    """Write {"ids": [U], "clusters": [U] or null, "metrics": {name: {numerators, …, errors}}}."""
    metrics = {name: asdict(entry) for name, entry in statistics.items()}
    write_json(path, {"ids": list(ids), "clusters": clusters, "metrics": metrics})


def read_utterances(path: Path) -> tuple[list[str], dict[str, Statistics]]:
    """The ids, and the statistics of every metric. `PamError` for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["ids"], {k: Statistics(**v) for k, v in content["metrics"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PamError(f"{path}: {error}: run the score stage again") from error


def read_clusters(path: Path) -> list[str] | None:
    """The cluster of every utterance; None if they were unknown when the set was scored."""
    return json.loads(path.read_text(encoding="utf-8")).get("clusters")


def compare(
    first: Statistics, second: Statistics, clusters: Clusters = None, seed: int = 0
) -> dict[str, Any]:
    """Compare two models on the same utterances: `difference` (first − second), `ci95`, `p`,
    and `only`, the clusters that these are limited to (`scope`).

    If errors are counted, `matched_pairs` holds that test too. ValueError if the metrics or the
    utterances differ.
    """
    if (first.denominators, first.scale) != (second.denominators, second.scale):
        raise ValueError("not the same utterances: their reference counts or scales differ")
    result: dict[str, Any] = paired_bootstrap(
        first.numerators,
        second.numerators,
        first.denominators,
        clusters=clusters,
        seed=seed,
        scale=first.scale,
    )
    result["only"] = scope(count_clusters(clusters))
    if first.errors:
        result["matched_pairs"] = matched_pairs(first.numerators, second.numerators, clusters)
    return result
