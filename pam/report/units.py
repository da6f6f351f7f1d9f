"""Metrics as reports call them, with the unit of their values."""

UNITS = {
    "wer": "WER %",
    "accuracy": "accuracy %",
    "meteor": "METEOR × 100",
    "meteor_1.5": "METEOR 1.5",
    "cider": "CIDEr",
    "spice": "SPICE",
    "sbert": "sBERT",
    "fense": "FENSE",
}


def metric_label(metric: str) -> str:
    """A metric that is not in the list has its own name."""
    return UNITS.get(metric, metric)


def metric_digits(metric: str) -> int:
    """Decimal places: three of metrics that are shares of 1, two of percentages."""
    return 3 if metric in ("cider", "spice", "sbert", "fense") else 2
