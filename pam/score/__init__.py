"""Metrics: a metric is one file with `score(items, seed) -> dict` and one line in the table.

Every result holds `metric`, `value`, `count` (utterances), `errors` (None where the metric counts
none) and `ci95` (two numbers in the unit of `value`); the rest is the metric's own.
"""

from pam.table import Table

# The names are those of pam/data/tasks.py.
METRICS = Table(
    "metric",
    {
        "wer": "pam.score.wer:score",
        "accuracy": "pam.score.accuracy:score",
        "caption": "pam.score.caption:score",
    },
)
