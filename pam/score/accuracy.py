"""Accuracy of counting speakers. Answers that cannot be parsed are wrong and counted separately."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pam.errors import PamError
from pam.score.items import Item, clusters_of
from pam.score.metric import Metric, Options, baseline_remark, most_given, most_given_remark
from pam.score.parse import parse_answer
from pam.score.significance import proportion_ci95
from pam.score.utterances import Statistics


class Accuracy(Metric):
    """Answers with the right number / all answers."""

    name = "accuracy"
    title = "accuracy"
    unit = "%"

    def score(self, items: Sequence[Item], options: Options) -> dict[str, Any]:
        return score(items, options.seed)

    def counts(self, score: Mapping[str, Any]) -> str:
        return f"{score.get('correct')} / {score.get('count')}"

    def remarks(self, score: Mapping[str, Any]) -> list[str]:
        unparsed = score.get("parse_failures")
        failures = [] if unparsed is None else [f"{unparsed} answers without a number (wrong)"]
        return failures + most_given_remark(score) + baseline_remark(score)

    def is_wrong(self, item: Item) -> bool:
        answer = parse_answer(item.hyp, item.choices)
        return answer is None or answer != parse_answer(item.ref, item.choices)


def score(items: Sequence[Item], seed: int = 0) -> dict[str, Any]:
    """Accuracy in percent, `parse_failures`, and the confusion as {reference: {answer: count}}."""
    truth = [_truth(item) for item in items]
    answers = [parse_answer(item.hyp, item.choices) for item in items]
    hits = [answer == ref for answer, ref in zip(answers, truth, strict=True)]
    most, most_count = Counter(truth).most_common(1)[0]
    return {
        "metric": "accuracy",
        "value": round(100 * sum(hits) / len(items), 4),
        "count": len(items),
        "errors": len(items) - sum(hits),
        "ci95": proportion_ci95(hits, clusters=clusters_of(items), seed=seed),
        "statistics": {"accuracy": Statistics([int(hit) for hit in hits], scale=100.0)},
        "correct": sum(hits),
        "parse_failures": sum(answer is None for answer in answers),
        "most_given": most_given(items),
        "confusion": _confusion(truth, answers),
        "baseline": {
            "what": f"always answering {most}, the most frequent answer of this set",
            "value": round(100 * most_count / len(items), 4),
        },
    }


def _truth(item: Item) -> int:
    number = parse_answer(item.ref, item.choices)
    if number is None:
        raise PamError(
            f"{item.id}: the reference {item.ref!r} is not a number of speakers: correct `text`"
        )
    return number


def _confusion(truth: list[int], answers: list[int | None]) -> dict[str, dict[str, int]]:
    table: dict[str, Counter] = {str(ref): Counter() for ref in sorted(set(truth))}
    for ref, answer in zip(truth, answers, strict=True):
        table[str(ref)]["unparsed" if answer is None else str(answer)] += 1
    return {ref: dict(sorted(counts.items())) for ref, counts in table.items()}
