"""Utterances of data sets of the Hugging Face hub: folders of `save_to_disk`, Parquet snapshots.

    FOLDER/dataset_dict.json, FOLDER/SPLIT/state.json, FOLDER/SPLIT/data-00000-of-00002.arrow …
    FOLDER/state.json, FOLDER/data-00000-of-00002.arrow …
    FOLDER/**/SPLIT-00000-of-00002.parquet, FOLDER/**/SPLIT/0000.parquet

Audio in the cells is written to shards (pam/data/shards.py), not to a file for each row.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam.data.importing import FORMS, Item, LeftOut, chosen_split
from pam.data.pack import FOLDER
from pam.data.parquet import audio_suffix, columns, find_parquet, numbered_rows
from pam.data.webdataset import ShardWriter, writing_shard
from pam.errors import PamError

NUMBERED = re.compile(r"(.+?)-\d{5}-of-\d{5}(?:-\w+)?")
SHARD_BYTES = 1 << 30
NO_AUDIO = "without audio, in the data set or at its path"


@dataclass(frozen=True)
class Columns:
    """Names of columns; without `id` an utterance is named by its row."""

    text: str
    audio: str
    speaker: str | None = None
    id: str | None = None

    @property
    def names(self) -> list[str]:
        return [name for name in (self.audio, self.text, self.speaker, self.id) if name]


def files_of_split(folder: Path, split: str | None) -> tuple[str, list[Path]]:
    """The name and the files of a split.

    `PamError` if there are several and none is named, or if it is in several folders, which are
    the configurations of a snapshot.
    """
    if (folder / "dataset_dict.json").is_file():
        names = _read_json(folder / "dataset_dict.json").get("splits")
        if not isinstance(names, list) or not all(map(_is_name, names)):
            raise PamError(f"{folder / 'dataset_dict.json'}: no list of splits: save it again")
        name = chosen_split(folder, split, names)
        return name, _saved(folder / name)
    if (folder / "state.json").is_file():
        name = _read_json(folder / "state.json").get("_split") or folder.absolute().name
        return chosen_split(folder, split, [str(name)]), _saved(folder)
    splits: dict[str, list[Path]] = {}
    for file in find_parquet(folder):
        splits.setdefault(_split_of(file.absolute()), []).append(file)
    if not splits:
        raise PamError(f"{folder}: no state.json and no Parquet file: {FORMS}")
    name = chosen_split(folder, split, list(splits))
    homes = sorted({str(_home_of(file.relative_to(folder))) for file in splits[name]})
    if len(homes) > 1:
        listed = ", ".join(homes)
        raise PamError(
            f"{folder}: {name!r} is in several folders: give one as the source: {listed}"
        )
    return name, splits[name]


@contextmanager
def reading_rows(
    files: list[Path], split: str, names: Columns, out: Path
) -> Iterator[Iterator[Item | LeftOut]]:
    """Context with the utterances of Parquet or Arrow files; their audio goes to `out`/shards.

    The shards of an earlier import are removed at the end. If the context fails, they stay, and
    the new ones are removed. `PamError` for a column that a file lacks, before any row is read.
    """
    folder, name = out / FOLDER, re.sub(r"[^\w.-]", "_", split)
    old = {*folder.glob(f"{name}-*.tar")}
    try:
        with closing(_rows(files, split, names, folder, name)) as found:
            yield found
    except BaseException:
        _remove({*folder.glob(f"{name}-*.tar")} - old)
        raise
    _remove(old)


def _rows(
    files: list[Path], split: str, names: Columns, folder: Path, name: str
) -> Iterator[Item | LeftOut]:
    for file in files:
        _refuse_lacking(file, names)
    before = 0
    with ExitStack() as stack:
        shards = _Shards(stack, folder, name)
        for file in files:
            number = -1
            for number, row in numbered_rows(file, names.names):
                default = f"{split}-{before + number:08d}"
                yield _item(f"{file}: row {number}", row, names, default, shards)
            before += number + 1


def _refuse_lacking(file: Path, names: Columns) -> None:
    has = columns(file)
    for option, name in vars(names).items():
        if name and name not in has:
            raise PamError(
                f"{file}: no column {name!r}: choose --{option}_column of {', '.join(has)}"
            )


def _item(
    where: str, row: Mapping[str, Any], names: Columns, default: str, shards: "_Shards"
) -> Item | LeftOut:
    key, speaker = (_name(where, row, name) for name in (names.id, names.speaker))
    text = row[names.text]
    if not isinstance(text, str | None):
        raise PamError(
            f"{where}: {names.text} is {text!r}, no text: choose another --text_column or cast it"
        )
    audio = _audio(where, row[names.audio], key or default, shards)
    if isinstance(audio, LeftOut):
        return audio
    return Item(where, key or default, audio, text or "", speaker)


def _name(where: str, row: Mapping[str, Any], column: str | None) -> str | None:
    if column is None:
        return None
    if not isinstance(row[column], str | int):
        raise PamError(f"{where}: {column} is {row[column]!r}, no name: choose another column")
    return str(row[column])


def _audio(where: str, cell: Any, key: str, shards: "_Shards") -> str | LeftOut:
    """The entry of wav.scp."""
    if not isinstance(cell, Mapping) or not {"bytes", "path"} & cell.keys():
        if cell is None:
            return LeftOut(where, NO_AUDIO)
        raise PamError(f"{where}: the audio has no bytes and no path: cast the column to Audio()")
    if content := cell.get("bytes"):
        suffix = audio_suffix(content)
        if not suffix:
            return LeftOut(where, "not an audio file that is known")
        return shards.add(key.replace(".", "_").replace("/", "_") + suffix, content)
    file = Path(cell.get("path") or "")
    return str(file) if file.is_absolute() and file.is_file() else LeftOut(where, NO_AUDIO)


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink()


class _Shards:
    """Writes members to shards beside those that are there; `stack` completes the last one."""

    def __init__(self, stack: ExitStack, folder: Path, name: str):
        self.stack, self.folder, self.name = stack, folder, name
        self.count, self.shard = 0, None

    def add(self, name: str, content: bytes) -> str:
        if self.shard is None or self.shard.size > SHARD_BYTES:
            self.shard = self._next()
        return self.shard.add(name, content)

    def _next(self) -> ShardWriter:
        self.stack.pop_all().close()
        while (shard := self.folder / f"{self.name}-{self.count:06d}.tar").exists():
            self.count += 1
        return self.stack.enter_context(writing_shard(shard))


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of a folder of `save_to_disk`."""
    state = folder / "state.json"
    listed = _read_json(state).get("_data_files")
    try:
        names = [entry["filename"] for entry in listed]
    except (TypeError, KeyError) as error:
        raise PamError(f"{state}: no _data_files: save the data set again") from error
    for name in names:
        if not _is_name(name):
            raise PamError(f"{state}: {name!r} is not a file of the folder: save the set again")
    return [folder / name for name in names]


def _is_name(name: Any) -> bool:
    """Whether `name` is that of a file or folder, and no path that leads elsewhere."""
    return isinstance(name, str) and Path(name).name == name


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PamError(f"{file}: cannot be read ({error}): save the data set again") from error
    return found if isinstance(found, dict) else {}


def _split_of(file: Path) -> str:
    if found := NUMBERED.fullmatch(file.stem):
        return found[1]
    return file.parent.name if file.stem.isdigit() else file.stem


def _home_of(file: Path) -> Path:
    """The folder of a file's splits."""
    return file.parent.parent if file.stem.isdigit() else file.parent
