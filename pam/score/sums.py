"""What a metric is made of, utterance by utterance: enough to resample it, and small.

Every metric is scale · Σ numerators / Σ denominators, without denominators a mean. For WER they are
errors and reference words, for accuracy a 1 where the answer is right, for captions points.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from pam.data.tasks import get_task
from pam.score import accuracy, caption, wer
from pam.score.items import Item
from pam.score.normalize import NORMALIZERS

DIGITS = 4  # of points between 0 and 1
Sums = dict[str, Any]  # numerators, denominators (None: a mean), scale


def utterance_sums(task: str, items: Sequence[Item]) -> dict[str, Sums]:
    """{metric: sums} of the metrics of a task, in the order of `items`."""
    return _SUMS[get_task(task).metric](items)


def set_digest(items: Sequence[Item]) -> str:
    """Equal where two systems answered the same utterances with the same references."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.id}\t{item.ref}\n".encode())
    return digest.hexdigest()[:16]


def _wer(items: Sequence[Item]) -> dict[str, Sums]:
    counts = wer.utterance_counts(items, NORMALIZERS["basic"])
    return {
        "wer": {
            "numerators": [count["sub"] + count["del"] + count["ins"] for count in counts],
            "denominators": [count["hits"] + count["sub"] + count["del"] for count in counts],
            "scale": 100,
        }
    }


def _accuracy(items: Sequence[Item]) -> dict[str, Sums]:
    hits = [accuracy.score([item])["correct"] for item in items]
    return {"accuracy": {"numerators": hits, "denominators": None, "scale": 100}}


def _caption(items: Sequence[Item]) -> dict[str, Sums]:
    points = [round(caption.meteor([item.ref], item.hyp), DIGITS) for item in items]
    return {"meteor": {"numerators": points, "denominators": None, "scale": 100}}


_SUMS: dict[str, Callable[[Sequence[Item]], dict[str, Sums]]] = {
    "wer": _wer,
    "accuracy": _accuracy,
    "caption": _caption,
}
