"""What a metric is: one class in one file, and one line in a registry of `pam.score`.

The class declares the metric's name, direction and needs, how it is computed and how a report shows
it. No other code of the package mentions a metric by its name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pam.score import CAPTION_METRICS, METRICS, SBERT
from pam.score.items import Item, clusters_of
from pam.score.normalize import basic
from pam.score.significance import ci95
from pam.score.utterances import Statistics


@dataclass(frozen=True)
class Options:
    """`metrics`: further ones for captions; `sbert`: the model of those that need one."""

    seed: int = 0
    train_captions: Sequence[str] = ()
    metrics: Sequence[str] = ()
    sbert: str = SBERT


class Metric:
    """A metric; a subclass declares the attributes and defines `measure`.

    Attributes:
        name: what score.json and --metrics call it.
        title, unit: what reports call it, and the unit of its values, as in "WER" and "%".
        higher_is_better: its direction.
        digits: decimal places of its values in reports.
        needs: what must be installed or fetched in addition to tools/install.sh.
        is_of_captions: further metrics of captions are measured too.
        verdicts: what a page of answers calls those that are right, and those that are wrong.
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
        """The statistics of the utterances, and what else belongs into score.json.

        sbert: a model for metrics that compare sentences. Raises UserError for what is missing.
        """
        raise NotImplementedError

    def score(self, items: Sequence[Item], options: Options) -> dict[str, Any]:
        """The result of a task: `metric`, `value`, `count` (utterances), `errors` (None where none
        are counted), `ci95` (in the unit of `value`) and `statistics` ({name: Statistics}); the
        rest is the metric's own."""
        kept, more = self.measure(items, options.sbert)
        return {
            "metric": self.name,
            **value_of(kept, items, options.seed),
            "errors": None,
            "statistics": {self.name: kept},
            **more,
        }

    def counts(self, score: Mapping[str, Any]) -> str:
        """What a value of score.json was counted from, as in "12 / 340"; empty for means."""
        return ""

    def remarks(self, score: Mapping[str, Any]) -> list[str]:
        """What a reader must know to judge a value of score.json."""
        return []

    def files(self, items: Sequence[Item]) -> dict[str, str]:
        """{name: text} of further files for a reader, in the folder of score.json."""
        return {}

    def is_wrong(self, item: Item) -> bool:
        """Whether a page of answers marks this one; here: it is none of the references."""
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
    """The metric that score.json calls `name`. For one that is not registered, as in results of
    another version, only the name is known."""
    for registry in (METRICS, CAPTION_METRICS):
        if name in registry.entries:
            return registry.get(name)()
    unknown = Metric()
    unknown.name = unknown.title = name
    return unknown


def baseline_remark(score: Mapping[str, Any]) -> list[str]:
    """The score of one answer that is the same for all items."""
    baseline = score.get("baseline")
    return [f"{baseline['value']:.2f} by {baseline['what']}"] if baseline else []
