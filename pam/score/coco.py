"""The metrics of coco-caption, through pycocoevalcap: METEOR 1.5 and CIDEr."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pam.errors import UserError
from pam.score.items import Item
from pam.score.java import require_java, tokenize
from pam.score.utterances import Statistics


def meteor(items: Sequence[Item], sbert: str = "") -> tuple[Statistics, dict[str, Any]]:
    """METEOR 1.5 × 100 (Denkowski and Lavie 2014), best of all references, mean of the captions.

    `corpus` is the jar's own figure for the whole set, which pools the matches of all captions.
    """
    require_java("METEOR 1.5")
    from pycocoevalcap.meteor.meteor import Meteor

    references, hypotheses = tokenized(items)
    with _utf8_java():
        scorer = Meteor()
    try:
        corpus, points = scorer.compute_score(references, hypotheses)
    except (ValueError, OSError) as error:  # the jar died: an empty line, or a closed pipe
        raise UserError(
            f"METEOR 1.5: its jar ended early ({error}): is there memory for java -Xmx2G?"
        ) from error
    return Statistics(points, scale=100.0), {"corpus": round(100 * corpus, 4)}


def cider(items: Sequence[Item], sbert: str = "") -> tuple[Statistics, dict[str, Any]]:
    """CIDEr, 0 to 10, as coco-caption computes it and papers print it.

    That is CIDEr-D (Vedantam et al. 2015) under CIDEr's name: counts are clipped, and lengths that
    differ are penalised. Words weigh by how few items have them, so one item alone scores 0.
    """
    require_java("CIDEr's tokenizer")
    from pycocoevalcap.cider.cider import Cider

    _, points = Cider().compute_score(*tokenized(items))
    return Statistics(np.asarray(points, dtype=float).tolist()), {}


def tokenized(items: Sequence[Item]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and hypotheses by number, as pycocoevalcap takes them."""
    texts = [text for item in items for text in (item.hyp, *item.references())]
    tokens = iter(tokenize(texts))
    hypotheses, references = {}, {}
    for number, item in enumerate(items):
        hypotheses[number] = [next(tokens)]
        references[number] = [next(tokens) for _ in item.references()]
    return references, hypotheses


@contextmanager
def _utf8_java() -> Iterator[None]:
    """For a program whose command line is not ours: its text is UTF-8 in any locale."""
    before = os.environ.get("JAVA_TOOL_OPTIONS")
    os.environ["JAVA_TOOL_OPTIONS"] = f"{before or ''} -Dfile.encoding=UTF-8".strip()
    try:
        yield
    finally:
        os.environ.pop("JAVA_TOOL_OPTIONS")
        if before is not None:
            os.environ["JAVA_TOOL_OPTIONS"] = before
