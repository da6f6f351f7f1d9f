"""Metrics: a metric is one function and one line in a table.

A task's metric is `score(items, seed) -> dict` with `metric`, `value`, `count` (utterances),
`errors` (None where the metric counts none), `ci95` (two numbers in the unit of `value`) and
`statistics` ({name: Statistics} of the utterances); the rest is the metric's own. A further metric
of captions is `measure(items, sbert) -> (Statistics, dict)`; see captions.py.
"""

from pam.registry import Registry

# The names are those of pam/data/tasks.py.
METRICS = Registry(
    "metric",
    {
        "wer": "pam.score.wer:score",
        "accuracy": "pam.score.accuracy:score",
        "caption": "pam.score.caption:score",
    },
)

CAPTION_METRICS = Registry(
    "metric of captions",
    {
        "meteor": "pam.score.caption:measure",  # NLTK's, which is always there
        "meteor_1.5": "pam.score.coco:meteor",
        "cider": "pam.score.coco:cider",
        "spice": "pam.score.spice:measure",
        "sbert": "pam.score.sbert:measure",
        "fense": "pam.score.fense:measure",
    },
)

ALWAYS = "meteor"  # the captions' main metric, NLTK's METEOR
SBERT = "cache:all-minilm-l6-v2"  # the model of sbert and fense


def metric_names(text: str) -> list[str]:
    """The metrics named in "meteor,cider" beside the one that is always there; `UserError`."""
    names = [name for name in text.replace(",", " ").split() if name != ALWAYS]
    for name in names:
        CAPTION_METRICS.check(name)
    return list(dict.fromkeys(names))
