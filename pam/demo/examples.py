"""Clips of data directories, to try the page with."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pam.data.audio import load_audio, write_flac
from pam.data.datadir import DataDir
from pam.data.prompts import load_all_prompts
from pam.data.utterances import read_utterances


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
    data, name = DataDir.read(path), path.resolve().name
    prompts = load_all_prompts(sorted(set(data["utt2task"].values())))
    utterances = read_utterances(data, prompts, "unseen", seed=0)
    count = min(each, len(utterances))
    for number in range(count):
        one = utterances[number * len(utterances) // count]
        file = folder / f"{name}-{number}.flac"
        write_flac(file, load_audio(*data.audio(one.id)))
        yield Example(str(file), one.prompt, f"{name}: {one.refs[0]}")
