"""The clusters of a set: their entry in score.json, and the remark of a report."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pam.score.significance import ClusterCount, Clusters, count_clusters, too_few


def cluster_entry(clusters: Clusters) -> dict[str, Any] | None:
    """`count`, `effective`, and whether they are too `few`; None if hyp.jsonl has no clusters."""
    found = count_clusters(clusters)
    return found and {**asdict(found), "few": found.few}


def doubt(score: Mapping[str, Any]) -> str:
    """The remark after an interval with too few clusters, such as `, too few clusters: 3`.

    Empty for score files of earlier versions, which have no clusters.
    """
    if "clusters" not in score:
        return ""
    entry = score["clusters"]
    note = too_few(ClusterCount(entry["count"], entry["effective"]) if entry else None)
    return f", {note}" if note else ""
