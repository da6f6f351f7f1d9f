"""The answers of an experiment for the page: aligned with references, and marked right or wrong."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam.data.sample import even_places
from pam.data.tasks import task_names
from pam.report.results import MAIN_TAG
from pam.score import wer
from pam.score.items import Item, read_items
from pam.score.normalize import basic
from pam.score.score_set import metric_of

MOST = 5000  # answers on a page, over all sets; about 5 MB
OPERATIONS = {"equal": "=", "substitute": "S", "delete": "D", "insert": "I"}

Diff = list[tuple[str, str, str]]


@dataclass(frozen=True)
class DecodedSet:
    """The shown answers of exp/NAME/TAG/SET; `total` is the number of all its answers."""

    exp: Path
    tag: str
    name: str
    total: int
    items: tuple[Item, ...]


def decoded_sets(exps: Sequence[Path], most: int = MOST) -> list[DecodedSet]:
    """Every hyp.jsonl of the experiments, the main decoding first.

    If there are more than `most` answers, each set shows the same share, evenly spread.
    """
    files = [file for exp in exps for file in sorted(exp.glob("*/*/hyp.jsonl"), key=_main_first)]
    read = [(file, read_items(file)) for file in files]
    everything = sum(len(items) for _, items in read)
    sets = []
    for file, items in read:
        count = max(1, len(items) * most // everything)
        chosen = tuple(items[n] for n in even_places(count, len(items)))
        exp, tag, name = file.parents[2], file.parents[1].name, file.parent.name
        sets.append(DecodedSet(exp, tag, name, len(items), chosen))
    return sets


def word_diffs(items: Sequence[Item]) -> list[Diff]:
    """jiwer's alignment of each item, normalised as for the WER.

    A chunk is (one of "=SDI", reference, hypothesis), with words joined by spaces. In equal and
    substituted chunks, both sides have the same number of words.
    """
    output = wer.align(items, basic)
    return [
        [
            (
                OPERATIONS[chunk.type],
                " ".join(reference[chunk.ref_start_idx : chunk.ref_end_idx]),
                " ".join(hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]),
            )
            for chunk in chunks
        ]
        for reference, hypothesis, chunks in zip(
            output.references, output.hypotheses, output.alignments, strict=True
        )
    ]


def is_misrouted(item: Item) -> bool:
    """Whether the router chose another task's expert; false if experts have no tasks."""
    return item.expert in task_names() and not item.routed_right


def entries(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The data of each item for the page, ready for JSON."""
    if not items:
        return []
    return [_entry(item, diff) for item, diff in zip(items, word_diffs(items), strict=True)]


def _entry(item: Item, diff: Diff) -> dict[str, Any]:
    posterior = item.posterior
    return {
        "id": item.id,
        "task": item.task,
        "prompt": item.prompt,
        "seen": item.prompt_seen,
        "expert": item.expert,
        "posterior": posterior if posterior is not None and math.isfinite(posterior) else None,
        "wrong": metric_of(item.task).is_wrong(item),
        "misrouted": is_misrouted(item),
        "diff": diff,
        "hyp": item.hyp,
        "refs": item.references(),
    }


def _main_first(file: Path) -> tuple[bool, Path]:
    return file.parents[1].name != MAIN_TAG, file
