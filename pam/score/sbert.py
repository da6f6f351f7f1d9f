"""Similarity of captions by sentence embeddings (Sentence-BERT, Reimers and Gurevych 2019)."""

import functools
from collections.abc import Sequence
from typing import Any

from pam.errors import PamError
from pam.paths import resolve_model
from pam.score import SBERT
from pam.score.items import Item
from pam.score.metric import Metric
from pam.score.normalize import one_line
from pam.score.utterances import Statistics


class Sbert(Metric):
    """Similarity of sentence embeddings, −1 to 1."""

    name = "sbert"
    title = "sBERT"
    digits = 3
    needs = ("a model of sentence-transformers (--sbert)",)

    def measure(
        self, items: Sequence[Item], sbert: str = SBERT
    ) -> tuple[Statistics, dict[str, Any]]:
        return measure(items, sbert)


def measure(items: Sequence[Item], sbert: str = SBERT) -> tuple[Statistics, dict[str, Any]]:
    """Mean cosine of a caption's embedding with those of its references, −1 to 1."""
    return Statistics(similarities(items, sbert)), {"model": sbert}


def similarities(items: Sequence[Item], sbert: str) -> list[float]:
    """[U]: one mean cosine for each item."""
    texts = sorted({one_line(t) for item in items for t in (item.hyp, *item.references())})
    row = {text: number for number, text in enumerate(texts)}
    vectors_ND = _model(sbert).encode(texts, normalize_embeddings=True, show_progress_bar=False)
    vectors_ND = vectors_ND.astype("float64")

    def similarity(item: Item) -> float:
        references_RD = vectors_ND[[row[one_line(text)] for text in item.references()]]
        return float((references_RD @ vectors_ND[row[one_line(item.hyp)]]).mean())

    return [similarity(item) for item in items]


@functools.cache
def _model(path: str):
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise PamError("sBERT needs sentence-transformers: run tools/install.sh") from error
    try:
        return SentenceTransformer(resolve_model(path), device="cpu")  # the same everywhere
    except (OSError, ValueError) as error:
        if isinstance(error, PamError):
            raise
        why = str(error).strip().splitlines()[0]
        raise PamError(
            f"sBERT: {path!r} is not a model folder and cannot be fetched ({why}): "
            "set --sbert to a folder of sentence-transformers"
        ) from error
