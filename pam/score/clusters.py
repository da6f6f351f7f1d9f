"""The clusters of a set: their entry in score.json, and the remark of a report."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pam.score.significance import ClusterCount, Clusters, count_clusters, too_few


def cluster_entry(clusters: Clusters) -> dict[str, Any] | None:
    """`count`, `effective`, and whether they are `few`; None where hyp.jsonl does not say."""
    found = count_clusters(clusters)
    return found and {**asdict(found), "few": found.few}


def doubt(score: Mapping[str, Any]) -> str:
    """`, too few clusters: 3` where the interval of a score.json says little, to stand after it.

    Empty for score files of earlier versions, which have no clusters.
    """
    if "clusters" not in score:
        return ""
    entry = score["clusters"]
    note = too_few(ClusterCount(entry["count"], entry["effective"]) if entry else None)
    return f", {note}" if note else ""
