"""The base class of metrics. A metric is one class in one file, and one line in a registry of
`pam.score`.

The class declares the metric's name, direction and requirements, its computation, and its display
in reports. No other code of the package names a metric.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pam.score import CAPTION_METRICS, METRICS, SBERT
from pam.score.items import Item, clusters_of
from pam.score.normalize import basic
from pam.score.significance import ci95
from pam.score.utterances import Statistics


@dataclass(frozen=True)
class Options:
    """`metrics`: further metrics of captions; `sbert`: the sentence model for some of them."""

    seed: int = 0
    train_captions: Sequence[str] = ()
    metrics: Sequence[str] = ()
    sbert: str = SBERT


class Metric:
    """A metric; a subclass declares the attributes and defines `measure`.

    Attributes:
        name: its name in score.json and --metrics.
        title, unit: its name and unit in reports, such as "WER" and "%".
        higher_is_better: its direction.
        digits: decimal places of its values in reports.
        needs: what must be installed or fetched in addition to tools/install.sh.
        is_of_captions: whether further metrics of captions are measured too.
        verdicts: labels of right and wrong answers on a page of answers.
    """

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool = True
    digits: int = 2
    needs: tuple[str, ...] = ()
    is_of_captions: bool = False
    verdicts: tuple[str, str] = ("✓ right", "✗ wrong")

    @property
    def label(self) -> str:
        """The title with the unit."""
        return f"{self.title} {self.unit}".strip()

    def measure(
        self, items: Sequence[Item], sbert: str = SBERT
    ) -> tuple[Statistics, dict[str, Any]]:
        """The statistics of the utterances, and further entries for score.json.

        `sbert` is the model of metrics that compare sentences. `PamError` if something is missing.
        """
        raise NotImplementedError

    def score(self, items: Sequence[Item], options: Options) -> dict[str, Any]:
        """The result of a task.

        It has `metric`, `value`, `count` (utterances), `errors` (None if errors are not counted),
        `ci95` (in the unit of `value`), `statistics` ({name: Statistics}), and entries of the
        metric's own.
        """
        kept, more = self.measure(items, options.sbert)
        return {
            "metric": self.name,
            **value_of(kept, items, options.seed),
            "errors": None,
            "statistics": {self.name: kept},
            **more,
        }

    def counts(self, score: Mapping[str, Any]) -> str:
        """The counts behind a value of score.json, such as "12 / 340"; empty for means."""
        return ""

    def remarks(self, score: Mapping[str, Any]) -> list[str]:
        """Remarks that help a reader to judge a value of score.json."""
        return []

    def files(self, items: Sequence[Item]) -> dict[str, str]:
        """{name: text} of further files to write next to score.json."""
        return {}

    def is_wrong(self, item: Item) -> bool:
        """Whether a page of answers marks this answer as wrong; here: it equals no reference."""
        return basic(item.hyp) not in map(basic, item.references())


def value_of(kept: Statistics, items: Sequence[Item], seed: int) -> dict[str, Any]:
    """`value`, `count` and `ci95` (clusters resampled)."""
    return {
        "value": round(kept.value, 4),
        "count": len(items),
        "ci95": ci95(
            kept.numerators,
            kept.denominators,
            clusters=clusters_of(items),
            seed=seed,
            scale=kept.scale,
        ),
    }


def metric_called(name: str) -> Metric:
    """The metric called `name` in score.json.

    Results of another version may have a metric that is not registered: it has only a name.
    """
    for registry in (METRICS, CAPTION_METRICS):
        if name in registry.entries:
            return registry.get(name)()
    unknown = Metric()
    unknown.name = unknown.title = name
    return unknown


def most_given(items: Sequence[Item]) -> dict[str, Any]:
    """The most frequent answer of the model, and its number."""
    answer, count = commonest(basic(item.hyp) for item in items)
    return {"answer": answer, "count": count}


def commonest(texts: Iterable[str]) -> tuple[str, int]:
    """The most frequent of one or more texts, and its number. Of equally frequent ones the first in
    C order."""
    counts = Counter(texts)
    text = min(counts, key=lambda text: (-counts[text], text))
    return text, counts[text]


def most_given_remark(score: Mapping[str, Any]) -> list[str]:
    """How much one answer dominates those of the model."""
    most = score.get("most_given")
    if most is None:  # scored by an earlier version
        return []
    share = 100 * most["count"] / score["count"]
    return [f"{share:.0f} % of the answers are “{most['answer']}”"]


def baseline_remark(score: Mapping[str, Any]) -> list[str]:
    """The score of giving the same answer to all items."""
    baseline = score.get("baseline")
    return [f"{baseline['value']:.2f} by {baseline['what']}"] if baseline else []
