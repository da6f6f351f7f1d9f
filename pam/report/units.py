"""Metrics as reports call them, with the unit of their values: each says so itself."""

from pam.score.metric import metric_called


def metric_label(metric: str) -> str:
    return metric_called(metric).label


def metric_digits(metric: str) -> int:
    """Decimal places."""
    return metric_called(metric).digits
