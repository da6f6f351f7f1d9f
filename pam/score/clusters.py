"""The clusters of a set: their entry in score.json, and the remark of a report."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pam.score.significance import ClusterCount, Clusters, count_clusters, scope

ALONE = 1.5  # with fewer effective clusters, one is nearly the whole set


def cluster_entry(clusters: Clusters) -> dict[str, Any] | None:
    """`count`, `effective`, whether they are too `few`, and what was `resampled`; None if hyp.jsonl
    has no clusters."""
    found = count_clusters(clusters)
    if found is None:
        return None
    resampled = "utterances" if found.few else "clusters"
    return {**asdict(found), "few": found.few, "resampled": resampled}


def doubt(score: Mapping[str, Any]) -> str:
    """The remark after an interval with too few clusters, such as `, for these 3 clusters only`.

    Results of earlier versions have none, or resampled even two clusters, which is unreliable;
    utterances only if one cluster was nearly the whole set.
    """
    if "clusters" not in score:
        return ""
    entry = score["clusters"]
    if entry and entry["few"] and "resampled" not in entry and entry["effective"] >= ALONE:
        return f", unreliable: {entry['count']} clusters were resampled"
    note = scope(ClusterCount(entry["count"], entry["effective"]) if entry else None)
    return f", {note}" if note else ""
