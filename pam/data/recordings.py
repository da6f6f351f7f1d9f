"""The recordings that a user names: audio files, patterns, data directories."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from pam.data.audio import load_audio
from pam.data.scp import read_text_file
from pam.errors import PamError

WAV_SCP, SEGMENTS = "wav.scp", "segments"


@dataclass(frozen=True)
class Recording:
    """A recording, or its part from `start` to `end` in seconds.

    Attributes:
        name: what answers and messages call it: the path that was given, or an utterance's id.
        path: a file, a member of a shard, or a concatenation.
    """

    name: str
    path: str
    start: float | None = None
    end: float | None = None

    def audio(self) -> str | Float[np.ndarray, " N"]:
        """As `SpeechLLM.generate` takes it: the path, or the samples of a part at 16 kHz."""
        return self.path if self.start is None else load_audio(self.path, self.start, self.end)


def matches(given: str) -> list[str]:
    """The files and data directories of a pattern such as "calls/**/*.wav"; any other name is
    returned as it is. `PamError` if nothing matches."""
    if not any(c in given for c in "*?[") or "://" in given or Path(given).exists():
        return [given]
    found = sorted(glob.glob(given, recursive=True))  # noqa: PTH207  (Path's must be relative)
    found = [name for name in found if Path(name).is_file() or is_data_dir(name)]
    if not found:
        raise PamError(f"{given}: no file matches this pattern")
    return _once(found) if "**" in given else found


def _once(names: list[str]) -> list[str]:
    """Each file by its shortest name, since `**` follows links, which may lead in a circle."""
    shortest: dict[tuple[str, str], str] = {}
    for name in sorted(names, key=lambda name: (name.count(os.sep), name)):
        shortest.setdefault((os.path.realpath(Path(name).parent), Path(name).name), name)
    return sorted(shortest.values())


def is_data_dir(path: str | Path) -> bool:
    return (Path(path) / WAV_SCP).is_file()


def utterances(folder: str | Path) -> Iterator[Recording]:
    """The utterances of a data directory, of which only wav.scp and segments are read."""
    folder = Path(folder)
    paths = read_text_file(folder / WAV_SCP)
    if not (folder / SEGMENTS).is_file():
        yield from (Recording(utt, path) for utt, path in paths.items())
        return
    for utt, value in read_text_file(folder / SEGMENTS).items():
        try:
            recording, start, end = value.split()
            yield Recording(utt, paths[recording], float(start), float(end))
        except (KeyError, ValueError) as error:
            raise PamError(
                f"{folder / SEGMENTS}: {utt} {value}: expected RECORDING START END, with a "
                f"recording of {WAV_SCP}: correct the line"
            ) from error


def by_name(recordings: Iterable[Recording]) -> dict[str, Recording]:
    """{name: recording}. `PamError` for two recordings of the same name."""
    found: dict[str, Recording] = {}
    for recording in recordings:
        if found.setdefault(recording.name, recording) != recording:
            raise PamError(
                f"{recording.name}: two recordings have this name "
                f"({found[recording.name].path}, {recording.path}): ask about them one by one"
            )
    return found
