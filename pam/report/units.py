"""Labels and digits of metrics in reports, as each metric declares them."""

from pam.score.metric import metric_called


def metric_label(metric: str) -> str:
    return metric_called(metric).label


def metric_digits(metric: str) -> int:
    """Decimal places."""
    return metric_called(metric).digits
