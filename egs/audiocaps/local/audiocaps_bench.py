"""AudioBench's sets of AudioCaps: Parquet files of context (audio), instruction and answer.

Each row is an utterance with one reference. Of audiocaps_qa_test the question is the fixed prompt;
of audiocaps_test it is not: AudioBench itself draws its instructions when it evaluates.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pam.data.corpus import cluster_id, even_sample, report_count
from pam.data.datadir import DataDir
from pam.data.parquet import audio_file, find_parquet, numbered_rows
from pam.data.scp import one_line
from pam.errors import PamError
from pam.log import get_logger

TASK = "ac"
# set: (folder of the copy, its rows as published, whether the instruction is the prompt)
BENCH_SETS = {
    "audiocaps_test_audiobench": ("audiocaps_test", 4400, False),
    "audiocaps_test_qa": ("audiocaps_qa_test", 313, True),
}
WITH_AUDIO = "copy the data set with its audio inside (embedded bytes)"
COLUMNS = ("context", "instruction", "answer")
logger = get_logger("prepare")


def bench_set(corpus: Path, name: str, audio: Path, count: int | None) -> DataDir:
    """An even sample of `count` rows (None: all); their audio is written to the folder `audio`."""
    source, published, asks = BENCH_SETS[name]
    files = find_parquet(corpus / source)
    if not files:
        raise PamError(f"{corpus / source}: no *.parquet: copy AudioLLMs/{source} of the hub there")
    texts: dict[str, dict[str, str]] = {
        file: {} for file in ("wav.scp", "text", "prompt", "utt2cluster")
    }
    for number, row in _sampled_rows(files, count):
        utt = f"{name}-{number:05d}"
        if not (clip := audio_file(row["context"], audio)):
            raise PamError(f"{corpus / source}, row {number}: no audio in it: {WITH_AUDIO}")
        texts["wav.scp"][utt] = str(clip)
        texts["utt2cluster"][utt] = cluster_id(clip.stem)  # rows of one clip are not independent
        for file, column in [("text", "answer"), ("prompt", "instruction")][: 1 + asks]:
            if not isinstance(row[column], str) or not one_line(row[column]):
                raise PamError(f"{corpus / source}, row {number}: no {column}: copy it again")
            texts[file][utt] = one_line(row[column])
    found = len(texts["text"])
    if count is None:
        report_count(logger, str(corpus / source), found, published, "rows")
    texts["utt2spk"] = {utt: utt for utt in texts["text"]}
    texts["utt2task"] = dict.fromkeys(texts["text"], TASK)
    return DataDir({file: entries for file, entries in texts.items() if entries})


def _sampled_rows(files: Sequence[Path], count: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number in the set, columns) of the rows; only the audio of these is read."""
    sizes = [sum(1 for _ in numbered_rows(file, ["answer"])) for file in files]
    chosen = even_sample(range(sum(sizes)), count)
    first = 0
    for file, size in zip(files, sizes, strict=True):
        wanted = [number - first for number in chosen if first <= number < first + size]
        for number, row in numbered_rows(file, COLUMNS, wanted):
            yield first + number, row
        first += size
