"""What every utterance adds to a metric: kept beside score.json, for intervals and paired tests."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pam.atomic import write_json
from pam.errors import UserError
from pam.score.significance import matched_pairs, paired_bootstrap


@dataclass(frozen=True)
class Statistics:
    """A metric is `scale` · Σ `numerators` / Σ `denominators`; without these, a mean.

    Both are [U], in the order of the set's utterances. `errors`: the numerators count errors.
    """

    numerators: Sequence[float]
    denominators: Sequence[float] | None = None
    scale: float = 1.0
    errors: bool = False

    @property
    def value(self) -> float:
        total = len(self.numerators) if self.denominators is None else sum(self.denominators)
        return self.scale * sum(self.numerators) / total


def utterances_file(score: Path) -> Path:
    """Beside score.json or score_TASK.json: utterances.json or utterances_TASK.json."""
    return score.with_name(score.name.replace("score", "utterances", 1))


def write_utterances(path: Path, ids: Sequence[str], statistics: Mapping[str, Statistics]) -> None:
    """{"ids": [U], "metrics": {name: {numerators, denominators, scale, errors}}}."""
    metrics = {name: asdict(entry) for name, entry in statistics.items()}
    write_json(path, {"ids": list(ids), "metrics": metrics})


def read_utterances(path: Path) -> tuple[list[str], dict[str, Statistics]]:
    """The ids and the statistics of every metric; `UserError` where the file is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["ids"], {k: Statistics(**v) for k, v in content["metrics"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: {error}: run the score stage again") from error


def compare(first: Statistics, second: Statistics, seed: int = 0) -> dict[str, Any]:
    """Two systems on the same utterances: `difference`, `ci95`, `p` (first − second).

    Where errors are counted, `matched_pairs` holds that test beside the bootstrap. ValueError
    where the two are not of the same metric and utterances.
    """
    if (first.denominators, first.scale) != (second.denominators, second.scale):
        raise ValueError("not the same utterances: their reference counts or scales differ")
    result: dict[str, Any] = paired_bootstrap(
        first.numerators, second.numerators, first.denominators, seed=seed, scale=first.scale
    )
    if first.errors:
        result["matched_pairs"] = matched_pairs(first.numerators, second.numerators)
    return result
