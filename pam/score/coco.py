"""The metrics of coco-caption, through pycocoevalcap: METEOR 1.5 and CIDEr."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pam.errors import PamError
from pam.score import SBERT
from pam.score.items import Item
from pam.score.java import PLAIN, Program, require_java, time_limit, tokenize
from pam.score.metric import Metric
from pam.score.utterances import Statistics


class Meteor15(Metric):
    """METEOR 1.5 × 100, best of all references."""

    name = "meteor_1.5"
    title = "METEOR 1.5"
    needs = ("Java",)

    def measure(
        self, items: Sequence[Item], sbert: str = SBERT
    ) -> tuple[Statistics, dict[str, Any]]:
        return meteor(items)


class Cider(Metric):
    """CIDEr-D, 0 to 10, as coco-caption computes it."""

    name = "cider"
    title = "CIDEr"
    digits = 3
    needs = ("Java",)

    def measure(
        self, items: Sequence[Item], sbert: str = SBERT
    ) -> tuple[Statistics, dict[str, Any]]:
        return cider(items)


def meteor(items: Sequence[Item]) -> tuple[Statistics, dict[str, Any]]:
    """METEOR 1.5 × 100 (Denkowski and Lavie 2014): best of all references, mean over the captions.

    `corpus` is the jar's own value for the whole set, which pools the matches of all captions.
    """
    require_java("METEOR 1.5")
    references, hypotheses = tokenized(items)
    texts = sum(1 + len(item.references()) for item in items)
    with meteor_jar(time_limit(texts)) as jar:
        # pycocoevalcap's protocol. Its own code waits forever if the jar has died.
        matches = [
            jar.ask(" ||| ".join(("SCORE", *references[number], hypotheses[number][0])))[0]
            for number in hypotheses
        ]
        answers = jar.ask(" ||| ".join(("EVAL", *matches)), len(matches) + 1)
    *points, corpus = (as_number(answer) for answer in answers)
    return Statistics(points, scale=100.0), {"corpus": round(100 * corpus, 4)}


def meteor_jar(seconds: float) -> Program:
    from pycocoevalcap.meteor import meteor as package

    folder = Path(package.__file__).parent
    command = ["java", *PLAIN, "-Xmx2G", "-jar", package.METEOR_JAR]
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    return Program("METEOR 1.5", command, seconds, folder)


def as_number(answer: str) -> float:
    try:
        return float(answer)
    except ValueError as error:
        raise PamError(f"METEOR 1.5: its jar answered {answer!r}, which is not a number") from error


def cider(items: Sequence[Item]) -> tuple[Statistics, dict[str, Any]]:
    """CIDEr, 0 to 10, as coco-caption computes it and papers report it.

    Its definition is CIDEr-D (Vedantam et al. 2015): counts are clipped, and differences in length
    are penalised. Words are weighted by their inverse document frequency over the items, so a
    single item scores 0.
    """
    require_java("CIDEr's tokenizer")
    from pycocoevalcap.cider.cider import Cider

    _, points = Cider().compute_score(*tokenized(items))
    return Statistics(np.asarray(points, dtype=float).tolist()), {}


def tokenized(items: Sequence[Item]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and hypotheses by item number, in pycocoevalcap's format."""
    texts = [text for item in items for text in (item.hyp, *item.references())]
    tokens = iter(tokenize(texts))
    hypotheses, references = {}, {}
    for number, item in enumerate(items):
        hypotheses[number] = [next(tokens)]
        references[number] = [next(tokens) for _ in item.references()]
    return references, hypotheses
