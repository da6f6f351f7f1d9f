"""Read the decoded utterances to score from hyp.jsonl."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pam.errors import PamError


@dataclass(frozen=True)
class Item:
    """One decoded utterance; `refs` holds every reference, `ref` first.

    Items of one `cluster` (a speaker, a meeting, a clip) are not independent. `choices` has the
    meaning of the letters of a multiple-choice prompt. `experts` are the tasks whose experts are
    right for the prompt, if there are several.
    """

    id: str
    task: str
    hyp: str
    ref: str
    refs: tuple[str, ...] = ()
    prompt: str = ""
    prompt_seen: bool | None = None
    expert: str | None = None
    posterior: float | None = None
    choices: Mapping[str, str] | None = None
    cluster: str | None = None
    experts: Sequence[str] = ()

    @property
    def routed_right(self) -> bool:
        """Whether the router chose a right expert for the prompt."""
        return self.expert in (self.experts or (self.task,))

    def references(self) -> tuple[str, ...]:
        return self.refs or (self.ref,)


def clusters_of(items: Sequence[Item]) -> list[str] | None:
    """The cluster of every item; None if one has none, as in hyp.jsonl of earlier versions."""
    clusters = [item.cluster for item in items if item.cluster is not None]
    return clusters if len(clusters) == len(items) else None


def read_items(path: str | Path) -> list[Item]:
    """The items of a hyp.jsonl. `PamError` names the first invalid line."""
    path = Path(path)
    if not path.is_file():
        raise PamError(f"{path}: no such file: run python -m pam.bin.decode for this set first")
    items = list(_items(path))
    if not items:
        raise PamError(f"{path}: holds no utterance")
    if len({item.id for item in items}) < len(items):
        raise PamError(f"{path}: an utterance occurs twice: delete the file and decode again")
    return items


def _items(path: Path) -> Iterator[Item]:
    known = set(Item.__dataclass_fields__)
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                entry = {key: value for key, value in json.loads(line).items() if key in known}
                yield Item(**{**entry, "refs": tuple(entry.get("refs") or ())})
            except (ValueError, TypeError, AttributeError) as error:
                raise PamError(
                    f"{path}:{number}: not a decoded utterance ({error}): delete and decode again"
                ) from error
