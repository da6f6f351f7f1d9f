"""Metrics: a metric is one class in one file (`pam.score.metric`) and one line in a registry."""

from pam.registry import Registry

# The metric of a task: the names are those that conf/prompts/TASK.yaml gives as `metric`.
METRICS = Registry(
    "metric",
    {
        "wer": "pam.score.wer:Wer",
        "accuracy": "pam.score.accuracy:Accuracy",
        "caption": "pam.score.caption:Meteor",
    },
)

# Further metrics of captions: the names are those of --metrics.
CAPTION_METRICS = Registry(
    "metric of captions",
    {
        "meteor": "pam.score.caption:Meteor",  # NLTK's, always installed
        "meteor_1.5": "pam.score.coco:Meteor15",
        "cider": "pam.score.coco:Cider",
        "spice": "pam.score.spice:Spice",
        "sbert": "pam.score.sbert:Sbert",
        "fense": "pam.score.fense:Fense",
    },
)

ALWAYS = "meteor"  # the captions' main metric, NLTK's METEOR
SBERT = "cache:all-minilm-l6-v2"  # the model of sbert and fense


def metric_names(text: str) -> list[str]:
    """The metrics of a text like "meteor,cider", without the one that is always measured.

    `PamError` for an unknown name.
    """
    names = [name for name in text.replace(",", " ").split() if name != ALWAYS]
    for name in names:
        CAPTION_METRICS.check(name)
    return list(dict.fromkeys(names))


def on_request(name: str) -> bool:
    """Whether this metric is measured only if --metrics names it."""
    return name in CAPTION_METRICS.entries and name != ALWAYS
