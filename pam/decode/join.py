"""Join the answers about overlapping pieces of one recording.

Transcripts become one transcript. Other answers cannot be joined as words: a count or a caption of
a piece holds for this piece. Their text lists the distinct answers, and the pieces have the times.
"""

import string
from collections.abc import Iterable, Sequence
from math import fsum

from pam.data.tasks import all_tasks
from pam.decode.answer import Answer, Piece

WORDS_PER_SECOND = 5  # of fast speech
SHORTEST_PART = 2  # letters that are left of a cut word


def join_transcripts(texts: Iterable[str], overlap: float) -> str:
    """One transcript of pieces that overlap by `overlap` seconds.

    The words of the overlap are in both transcripts. They are found as the longest run of words
    that the end of one and the start of the next have in common. Without a common run, all words
    of both are kept.
    """
    most = words_of(overlap)
    words: list[str] = []
    for text in texts:
        words = join_words(words, text.split(), most)
    return " ".join(words)


def words_of(overlap: float) -> int:
    """The largest number of words in an overlap of so many seconds; both ends may cut a word."""
    return round(overlap * WORDS_PER_SECOND) + 2


def settled_text(texts: Sequence[str], overlap: float | None) -> str:
    """The beginning of the joined answer that no later piece can change.

    The next transcript may change the words of its overlap. Other answers are only appended to.
    """
    if overlap is None:
        return list_answers(texts)
    return " ".join(join_transcripts(texts, overlap).split()[: -words_of(overlap)])


def join_words(left: Sequence[str], right: Sequence[str], most: int) -> list[str]:
    """`left` and `right` with the words of their overlap, at most `most`, only once.

    The words are found as the longest run that the end of `left` and the start of `right` have in
    common. A run may leave out words at the cut, but fewer than it has itself.
    """
    runs = [(0, 0, len(left), 0)]  # length, minus the words left out, where it begins in both
    for i in range(max(len(left) - most, 0), len(left)):
        for j in range(min(most, len(right))):
            run = _run(left, right, i, j, most)
            left_out = len(left) - i - run + j
            if left_out < run:
                runs.append((run, -left_out, i, j))
    run, _, i, j = max(runs)
    pairs = zip(left[i : i + run], right[j : j + run], strict=True)
    common = [_whole(one, other, 2 * n < run) for n, (one, other) in enumerate(pairs)]
    return [*left[:i], *common, *right[j + run :]]


def _run(left: Sequence[str], right: Sequence[str], i: int, j: int, most: int) -> int:
    """How many words of `left` from `i` and of `right` from `j` are the same."""
    run = 0
    while i + run < len(left) and j + run < min(most, len(right)):
        if not _same(left, right, i + run, j + run):
            break
        run += 1
    return run


def _same(left: Sequence[str], right: Sequence[str], i: int, j: int) -> bool:
    """Whether two words are the same; the last of `left` and the first of `right` may be cut."""
    one, other = bare(left[i]), bare(right[j])
    if i == len(left) - 1 and len(one) >= SHORTEST_PART and other.startswith(one):
        return True
    if j == 0 and len(other) >= SHORTEST_PART and one.endswith(other):
        return True
    return one == other


def _whole(one: str, other: str, earlier: bool) -> str:
    """The longer form of a word. The first half of a run is taken from the earlier piece, the
    second half from the later one: each knows what follows or precedes."""
    if len(bare(one)) != len(bare(other)):
        return max(one, other, key=lambda word: len(bare(word)))
    return one if earlier else other


def bare(word: str) -> str:
    """A word in lower case, without punctuation around it."""
    return word.lower().strip(string.punctuation) or word


def list_answers(texts: Iterable[str]) -> str:
    """The distinct answers in their order, as one text."""
    distinct: dict[str, str] = {}
    for text in filter(None, texts):
        distinct.setdefault(text.casefold().rstrip("."), text)
    return "; ".join(distinct.values())


def transcribes(expert: str | None, tasks: Sequence[str]) -> bool:
    """Whether the answers of `expert` are transcripts. If it is no task's, all tasks must be so.

    A recipe's own task is unknown where only the package is installed; it counts as another kind.
    """
    known = all_tasks()
    asked = [expert] if expert in known else tasks
    return all(task in known and known[task].metric == "wer" for task in asked)


def join_answers(
    times: Sequence[tuple[float, float]], answers: Sequence[Answer], overlap: float | None
) -> Answer:
    """The answer about a recording, of the `answers` about its pieces.

    Transcripts have an `overlap` in seconds; None for other answers. The posteriors are means,
    `no_speech` is the lowest of the pieces, `repetition` the highest.
    """
    texts = [answer.text for answer in answers]
    text = list_answers(texts) if overlap is None else join_transcripts(texts, overlap)
    posteriors = {
        expert: fsum(answer.posteriors[expert] for answer in answers) / len(answers)
        for expert in answers[0].posteriors
    }
    return Answer(
        text,
        max(posteriors, key=posteriors.get, default=None),
        posteriors,
        min(answer.no_speech for answer in answers),
        max(answer.repetition for answer in answers),
        all(answer.skipped for answer in answers),
        tuple(Piece(*time, text) for time, text in zip(times, texts, strict=True)),
        sum(answer.tokens for answer in answers),
        all(answer.complete for answer in answers),
    )
