"""Clips of data directories, to try the page with."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pam.data.audio import load_audio, write_flac
from pam.data.datadir import DataDir
from pam.data.prompts import draw, load_all_prompts


@dataclass(frozen=True)
class Example:
    """A clip, a prompt of its task, and a label with its reference."""

    audio: str
    prompt: str
    label: str


def examples_of(data_dirs: Iterable[Path], each: int, folder: Path) -> list[Example]:
    """`each` clips of every data directory, an even sample, written to `folder` as FLAC."""
    return [example for data in data_dirs for example in _of_one(data, each, folder)]


def _of_one(path: Path, each: int, folder: Path) -> Iterator[Example]:
    data = DataDir.read(path)
    utterances, name = data.utterances, path.resolve().name
    count = min(each, len(utterances))
    for number in range(count):
        utt = utterances[number * len(utterances) // count]
        task = data["utt2task"][utt]
        file = folder / f"{name}-{number}.flac"
        write_flac(file, load_audio(*data.audio(utt)))
        prompt = draw(load_all_prompts([task])[task], utt, 0, "unseen")
        reference = data[data.references[0]][utt]
        yield Example(str(file), prompt, f"{name}: {reference}")
