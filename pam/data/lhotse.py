"""Utterances of lhotse manifests: JSON lines, plain or gzipped. lhotse itself is not needed.

    recordings.jsonl.gz supervisions.jsonl.gz       or      cuts.jsonl.gz

A supervision is an utterance. Audio stays where it is, except one channel of a file with several:
that is written to OUT/audio/RECORDING-cN.flac. What only lhotse can compute (audio from commands
or URLs, transforms, mixed and padded cuts) is refused.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pam.data.audio import MAX_OVERSHOOT_SECONDS, write_channel
from pam.data.corpus import cluster_id
from pam.data.importing import Item, LeftOut
from pam.errors import PamError

EPSILON = 0.001  # seconds; a supervision this close to both ends is a whole recording
SAVE_AUDIO = "write its audio to files with lhotse (save_audios) and import that"
KINDS = ("recordings", "supervisions", "cuts")


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording; `files` are its files, each with the channels that it holds."""

    id: str
    files: tuple[tuple[str, tuple[int, ...]], ...]
    seconds: float

    @property
    def channels(self) -> list[int]:
        return [channel for _, channels in self.files for channel in channels]


def read_manifests(
    manifests: Sequence[Path], channel: int | None, root: Path, out: Path
) -> Iterator[Item | LeftOut]:
    """The utterances of manifests of supervisions, with those of their recordings, or of cuts.

    Args:
        channel: the channel of supervisions that have several.
        root: the folder of relative paths.
        out: the data directory, for channels that are written as files.
    """
    by_kind: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for manifest in manifests:
        by_kind[_kind(manifest)].append(manifest)
    audio = _Audio(channel, root, out)
    recordings: dict[str, Recording] = {}
    for manifest in by_kind["recordings"]:
        for where, entry in _lines(manifest):
            _recording(where, entry, recordings)
    if by_kind["supervisions"] and not recordings:
        raise PamError(f"{by_kind['supervisions'][0]}: name its manifest of recordings too")
    if recordings and not by_kind["supervisions"]:
        raise PamError(f"{by_kind['recordings'][0]}: name its manifest of supervisions too")
    for manifest in by_kind["supervisions"]:
        for where, entry in _lines(manifest):
            name = _field(where, entry, "recording_id", str)
            if name not in recordings:
                raise PamError(f"{where}: no recording {name!r}: name its manifest too")
            yield _item(where, entry, recordings[name], audio)
    for manifest in by_kind["cuts"]:
        for where, entry in _lines(manifest):
            yield from _cut(where, entry, recordings, audio)
    audio.write_channels()


def _kind(manifest: Path) -> str:
    for where, entry in _lines(manifest):
        if "sources" in entry:
            return "recordings"
        if str(entry.get("type", "")).endswith("Cut"):
            return "cuts"
        if "recording_id" in entry and "duration" in entry:
            return "supervisions"
        raise PamError(f"{where}: no recording, supervision or cut: name manifests of lhotse")
    raise PamError(f"{manifest}: empty: make the manifest again")


def _lines(manifest: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (FILE:LINE, object) of each line."""
    opened = gzip.open if manifest.suffix == ".gz" else open
    number = 0
    try:
        with opened(manifest, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise PamError(f"{manifest}:{number}: {line.strip()[:60]!r} is no object")
                yield f"{manifest}:{number}", entry
    except json.JSONDecodeError as error:
        raise PamError(f"{manifest}:{number}: not JSON ({error}): make it again") from error
    except (OSError, EOFError, zlib.error) as error:
        raise PamError(f"{manifest}: truncated or unreadable ({error}): copy it again") from error
    except UnicodeDecodeError as error:
        raise PamError(f"{manifest}:{number + 1}: not UTF-8: make it again") from error


def _field(where: str, entry: Mapping[str, Any], name: str, *kinds: type) -> Any:
    if not isinstance(entry, Mapping):
        raise PamError(f"{where}: {entry!r} is no object: make the manifest again")
    value = entry.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise PamError(f"{where}: {name} is {value!r}: make the manifest again")
    return value


def _recording(where: str, entry: Mapping[str, Any], known: dict[str, Recording]) -> Recording:
    """The recording of an entry, added to those that are `known`.

    `PamError` for one that only lhotse can compute, and if its id is that of another one.
    """
    name = _field(where, entry, "id", str)
    if entry.get("transforms"):
        raise PamError(f"{where}: recording {name!r} has transforms: {SAVE_AUDIO}")
    files = []
    for source in _field(where, entry, "sources", list):
        kind = _field(where, source, "type", str)
        if kind != "file":
            raise PamError(f"{where}: recording {name!r} is of type {kind!r}: {SAVE_AUDIO}")
        channels = tuple(_field(where, source, "channels", list))
        files.append((_field(where, source, "source", str), channels))
    seconds = float(_field(where, entry, "duration", int, float))
    recording = Recording(name, tuple(files), seconds)
    if (other := known.setdefault(name, recording)) != recording:
        before = ", ".join(file for file, _ in other.files)
        raise PamError(
            f"{where}: the recording {name!r} was used before, for {before}: make the ids unique"
        )
    return recording


def _cut(
    where: str, cut: Mapping[str, Any], known: dict[str, Recording], audio: "_Audio"
) -> Iterator[Item | LeftOut]:
    kind = cut.get("type")
    if kind not in ("MonoCut", "MultiCut"):
        raise PamError(f"{where}: cut {cut.get('id')!r} is a {kind}: {SAVE_AUDIO}")
    recording = _recording(where, _field(where, cut, "recording", dict), known)
    start = float(_field(where, cut, "start", int, float))
    end = start + float(_field(where, cut, "duration", int, float))
    supervisions = _field(where, cut, "supervisions", list)
    if not supervisions:
        yield LeftOut(where, "without a supervision")
    for entry in supervisions:
        begins = float(_field(where, entry, "start", int, float))  # in the cut
        moved = {"channel": cut.get("channel", 0), **entry, "start": start + begins}
        if begins < -EPSILON or _end(where, moved) > end + EPSILON:
            yield LeftOut(where, "with a supervision that is not inside its cut")
        else:
            yield _item(where, moved, recording, audio)


def _end(where: str, entry: Mapping[str, Any]) -> float:
    return float(entry["start"]) + float(_field(where, entry, "duration", int, float))


def _item(
    where: str, entry: Mapping[str, Any], recording: Recording, audio: "_Audio"
) -> Item | LeftOut:
    begins, ends = float(_field(where, entry, "start", int, float)), _end(where, entry)
    start, end = max(begins, 0.0), min(ends, recording.seconds)
    overshoot = max(-begins, ends - recording.seconds)  # rounding is accepted
    if overshoot > MAX_OVERSHOOT_SECONDS or end - start < EPSILON:
        return LeftOut(where, "not inside its recording, or without length")
    channel = _field(where, {"channel": 0} | entry, "channel", int, list)
    name, path = audio.of(where, recording, channel)
    text, speaker = (_field(where, entry, key, str, type(None)) for key in ("text", "speaker"))
    utt = _field(where, entry, "id", str)
    is_whole = start < EPSILON and end > recording.seconds - EPSILON
    return Item(where, utt, path, text or "", speaker, name, start, end, is_whole)


@dataclass
class _Audio:
    """Finds the file of a channel; one of a file with several is written to its own."""

    channel: int | None
    root: Path
    out: Path
    # FLAC file of a channel → its recording's id, its source, and its place there
    channels: dict[Path, tuple[str, str, int]] = field(default_factory=dict)

    def of(self, where: str, recording: Recording, channel: int | Sequence[int]) -> tuple[str, str]:
        """(id, path) of the audio of a supervision on `channel`."""
        if len(recording.channels) == 1:
            return recording.id, self._path(where, recording.files[0][0])
        chosen = self._chosen(where, recording, channel)
        name = f"{recording.id}-c{chosen}"
        file, channels = next(found for found in recording.files if chosen in found[1])
        path = self._path(where, file)
        if len(channels) > 1:
            flac = self.out.absolute() / "audio" / f"{cluster_id(name)}.flac"
            wanted = recording.id, path, channels.index(chosen)
            if (other := self.channels.setdefault(flac, wanted)) != wanted:
                raise PamError(
                    f"{where}: the recordings {other[0]!r} and {recording.id!r} give one name to "
                    f"their channels, {flac.stem}: make the ids differ in more than spaces and "
                    "slashes"
                )
            path = str(flac)
        return name, path

    def write_channels(self) -> None:
        """Write the files of channels, once all manifests have been read without an error: an
        earlier import to the same folder may have files of these names."""
        for flac, (_, path, place) in self.channels.items():
            time = Path(path).stat().st_mtime_ns
            if not flac.is_file() or flac.stat().st_mtime_ns != time:
                write_channel(flac, path, place)
                os.utime(flac, ns=(time, time))  # of the source that it was made from

    def _chosen(self, where: str, recording: Recording, channel: int | Sequence[int]) -> int:
        named = [channel] if isinstance(channel, int) else list(channel)
        chosen = named[0] if self.channel is None else self.channel
        if self.channel is None and len(named) > 1:
            listed = ", ".join(map(str, named))
            raise PamError(f"{where}: several channels ({listed}): choose one with --channel")
        if chosen not in recording.channels:
            listed = ", ".join(map(str, recording.channels))
            raise PamError(f"{where}: no channel {chosen!r}: {recording.id!r} has {listed}")
        return chosen

    def _path(self, where: str, source: str) -> str:
        path = (self.root / source).absolute()
        if not path.is_file():
            raise PamError(f"{where}: {path}: no such audio file: give its folder by --audio_root")
        return str(path)
