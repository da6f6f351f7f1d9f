"""Pack the audio of a data directory into shards: hundreds of thousands of files become a few.

    OUT/shards/SET-000000.tar …     in the layout of WebDataset: KEY.flac, KEY.txt, KEY.json
    OUT/wav.scp …                   the files of the directory; wav.scp names places in the shards

Audio files are copied as they are. A shard that is complete and has the same files is kept. For a
dumped set, DUMPDIR/raw/SET, and OUT of that form, the lists of its states (ENCODER/SET/feats.scp)
are copied too. The states themselves stay where they are.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from pam.atomic import write_text
from pam.config.made import FILE as MADE
from pam.data.concat import concat_entry, files_of, is_concat, parse_concat
from pam.data.datadir import DataDir
from pam.data.opening import BARE, HEADERLESS
from pam.data.parquet import audio_suffix
from pam.data.shards import file_of, is_member, open_member
from pam.data.webdataset import TarMember, members, writing_shard
from pam.errors import PamError
from pam.log import progress

FOLDER = "shards"
RAW = "raw"  # DUMPDIR/raw/SET is a dumped set


@dataclass(frozen=True)
class Sample:
    """An audio file and what belongs to it; `about` are members NAME → content."""

    key: str
    audio: str  # a file, or a member of another shard
    size: int
    time: int
    about: dict[str, bytes]


def pack(data_dir: Path, out: Path, limit: int) -> DataDir:
    """Write the directory `out`, with shards of about `limit` bytes; returns its files."""
    if out.resolve() == data_dir.resolve():
        raise PamError(f"{out}: is the directory that is packed: choose another folder")
    data, name = DataDir.read(data_dir), data_dir.absolute().name
    plan = list(_cut(_samples(data), limit))
    places: dict[str, str] = {}
    for number, part in enumerate(progress(plan, len(plan), "shards")):
        shard = out / FOLDER / f"{name}-{number:06d}.tar"
        places |= _there(shard, part) or _write(shard, part, out)
    for old in sorted((out / FOLDER).glob(f"{escape(name)}-*.tar"))[len(plan) :]:
        old.unlink()
    entries = {key: _moved(entry, places) for key, entry in data["wav.scp"].items()}
    packed = DataDir(data.files | {"wav.scp": entries})
    _copy_lists_of_states(data_dir.absolute(), out.absolute())
    if (data_dir / MADE).is_file():  # the settings that the audio was made with
        write_text(out / MADE, (data_dir / MADE).read_text(encoding="utf-8"))
    packed.write(out)
    return packed


def _copy_lists_of_states(data_dir: Path, out: Path) -> None:
    """Copy feats.scp, whose paths are absolute, and what is recorded with it, of each encoder."""
    if not data_dir.parent.name == out.parent.name == RAW:
        return
    for scp in sorted(data_dir.parents[1].glob(f"*/{escape(data_dir.name)}/feats.scp")):
        folder = out.parents[1] / scp.parents[1].name / out.name
        for name in ("dump.json", "utt2num_frames", MADE, scp.name):  # the last one says: complete
            if (file := scp.with_name(name)).is_file():
                write_text(folder / name, file.read_text(encoding="utf-8"))


def is_packed(raw: Path) -> bool:
    """Whether a dumped set was packed; a dump writes no shards."""
    return any((raw / FOLDER).glob("*.tar"))


def _samples(data: DataDir) -> Iterator[Sample]:
    """A sample for each audio file, once. One that is an utterance has its text and speaker."""
    seen, keys = set(), set()
    for name, entry in sorted(data["wav.scp"].items()):
        for place, file in enumerate(files_of(entry)):
            if file in seen:
                continue
            seen.add(file)
            base = f"{name}-{place}" if is_concat(entry) else name
            key = base.replace(".", "_")  # a key ends at the first dot
            if key in keys:
                raise PamError(f"wav.scp: {name!r}: {key!r} is another key too: rename one id")
            keys.add(key)
            about = _about(data, name) if base in data["text"] else {}
            yield _sample(key, file, about)


def _about(data: DataDir, utt: str) -> dict[str, bytes]:
    facts = {"speaker": data["utt2spk"][utt], "task": data["utt2task"][utt]}
    return {"txt": data["text"][utt].encode(), "json": json.dumps(facts).encode()}


def _sample(key: str, file: str, about: dict[str, bytes]) -> Sample:
    if Path(file).suffix.lower() in (*HEADERLESS, *BARE):
        raise PamError(f"{file}: audio without a header cannot be packed: convert it to FLAC")
    try:
        state = file_of(file).stat()
    except OSError as error:
        raise PamError(f"{file}: cannot be read ({error.strerror}): correct wav.scp") from error
    size = open_member(file).size if is_member(file) else state.st_size
    return Sample(key, file, size, int(state.st_mtime), about)


def _cut(samples: Iterable[Sample], limit: int) -> Iterator[list[Sample]]:
    """Parts of at most `limit` bytes of audio, or of one sample."""
    part, size = [], 0
    for sample in samples:
        if part and size + sample.size > limit:
            yield part
            part, size = [], 0
        part.append(sample)
        size += sample.size
    if part:
        yield part


def _there(shard: Path, part: Sequence[Sample]) -> dict[str, str] | None:
    """Audio file → its place in `shard`; None if the shard is missing or holds something else."""
    if not shard.is_file():
        return None
    try:
        found = list(members(shard))
    except PamError:  # it is written again
        return None
    places, rest = {}, iter(found)
    for sample in part:
        audio = next(rest, None)
        if audio is None or (audio.key, audio.size, audio.time) != _stamp(sample):
            return None
        if not all(_is_same(next(rest, None), sample, *item) for item in sample.about.items()):
            return None
        places[sample.audio] = audio.entry
    return None if next(rest, None) else places


def _stamp(sample: Sample) -> tuple[str, int, int]:
    return sample.key, sample.size, sample.time


def _is_same(member: TarMember | None, sample: Sample, suffix: str, content: bytes) -> bool:
    return (
        member is not None
        and (member.key, member.suffix) == (sample.key, suffix)
        and member.content() == content
    )


def _write(shard: Path, part: Sequence[Sample], out: Path) -> dict[str, str]:
    (out / "wav.scp").unlink(missing_ok=True)  # its places may be others now
    places = {}
    with writing_shard(shard) as tar:
        for sample in part:
            content = _content(sample.audio)
            named = "" if is_member(sample.audio) else Path(sample.audio).suffix.lower()
            if not (suffix := audio_suffix(content) or named):
                raise PamError(f"{sample.audio}: unknown kind of audio: convert it to FLAC")
            places[sample.audio] = tar.add(sample.key + suffix, content, sample.time)
            for name, fact in sample.about.items():
                tar.add(f"{sample.key}.{name}", fact)
    return places


def _content(entry: str) -> bytes:
    return open_member(entry).readall() if is_member(entry) else Path(entry).read_bytes()


def _moved(entry: str, places: dict[str, str]) -> str:
    if is_concat(entry):
        return concat_entry([(places[file], *times) for file, *times in parse_concat(entry)])
    return places[entry]
