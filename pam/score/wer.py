"""Word error rate over a set: pooled errors / pooled reference words."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pam.errors import PamError
from pam.score.items import Item, clusters_of
from pam.score.metric import Metric, Options
from pam.score.normalize import NORMALIZERS, basic
from pam.score.significance import ci95
from pam.score.utterances import Statistics

if TYPE_CHECKING:
    from jiwer import AlignmentChunk, WordOutput

_COUNT_OF = {"equal": "hits", "substitute": "sub", "delete": "del", "insert": "ins"}
_HEADING = re.compile(r"^=== SENTENCE (\d+) ===$", re.MULTILINE)


class Wer(Metric):
    """Pooled errors / pooled reference words, with `basic` normalisation."""

    name = "wer"
    title = "WER"
    unit = "%"
    higher_is_better = False

    def score(self, items: Sequence[Item], options: Options) -> dict[str, Any]:
        return score(items, options.seed)

    def counts(self, score: Mapping[str, Any]) -> str:
        return f"{score.get('errors')} / {score.get('ref_words')}"

    def remarks(self, score: Mapping[str, Any]) -> list[str]:
        whisper = score.get("whisper")
        value = f"{whisper['value']:.2f}" if whisper else "—: it leaves no word of the references"
        return [f"Whisper normalisation {value}"]

    def files(self, items: Sequence[Item]) -> dict[str, str]:
        return {"wer_alignment": alignment_text(items)}

    def is_wrong(self, item: Item) -> bool:
        return basic(item.hyp) != basic(item.ref)


def score(items: Sequence[Item], seed: int = 0) -> dict[str, Any]:
    """WER in percent with `basic` normalisation; `whisper` holds the counts with Whisper's.

    `whisper` is None if its normalisation, which drops fillers, leaves no word of the references.
    """
    basic = pooled(items, NORMALIZERS["basic"], seed)
    if basic is None:
        raise PamError(
            f"{items[0].id} …: none of the {len(items)} references holds a word, so there is no "
            "WER: correct `text` or leave the set out"
        )
    result, statistics = {"metric": "wer", **basic[0], "whisper": None}, {"wer": basic[1]}
    if whisper := pooled(items, NORMALIZERS["whisper"], seed):
        result["whisper"], statistics["wer_whisper"] = whisper
    return {**result, "statistics": statistics}


def pooled(
    items: Sequence[Item], normalize: Callable[[str], str], seed: int
) -> tuple[dict[str, Any], Statistics] | None:
    """Counts of the whole set, the WER and its confidence interval (clusters resampled).

    None if no reference holds a word. Insertions for an empty reference count.
    """
    counts = utterance_counts(items, normalize)
    total = sum(counts, Counter({"hits": 0, "sub": 0, "del": 0, "ins": 0}))
    words = [_words(count) for count in counts]
    errors = [_errors(count) for count in counts]
    if sum(words) == 0:
        return None
    result = {
        "value": round(100 * sum(errors) / sum(words), 4),
        "count": len(items),
        "errors": sum(errors),
        "ref_words": sum(words),
        "ci95": ci95(errors, words, clusters=clusters_of(items), seed=seed),
        **{name: total[name] for name in ("hits", "sub", "del", "ins")},
        "sentence_errors": sum(error > 0 for error in errors),
    }
    return result, Statistics(errors, words, scale=100.0, errors=True)


def utterance_counts(items: Sequence[Item], normalize: Callable[[str], str]) -> list[Counter]:
    """A counter of hits, sub, del and ins for each utterance, in the order of `items`."""
    return [_ops(chunks) for chunks in align(items, normalize).alignments]


def align(items: Sequence[Item], normalize: Callable[[str], str]) -> "WordOutput":
    """The alignment of every utterance, normalised."""
    from jiwer import process_words  # the card of an exported model asks only for the name

    return process_words(
        [normalize(item.ref) for item in items], [normalize(item.hyp) for item in items]
    )


def alignment_text(items: Sequence[Item]) -> str:
    """A readable alignment of each utterance: the reference's words above the hypothesis's."""
    from jiwer import visualize_alignment

    output = align(items, NORMALIZERS["basic"])
    text = visualize_alignment(output, show_measures=False, skip_correct=False)
    return _HEADING.sub(lambda match: f"=== {items[int(match[1]) - 1].id} ===", text)


def _ops(chunks: Sequence["AlignmentChunk"]) -> Counter:
    counts: Counter = Counter()
    for chunk in chunks:
        width = max(
            chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
        )
        counts[_COUNT_OF[chunk.type]] += width
    return counts


def _words(count: Counter) -> int:
    return count["hits"] + count["sub"] + count["del"]


def _errors(count: Counter) -> int:
    return count["sub"] + count["del"] + count["ins"]
