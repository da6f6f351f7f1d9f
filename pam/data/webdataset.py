"""Tar files in the layout of WebDataset: list their samples, and write them.

    train-000000.tar: KEY.flac KEY.txt KEY.json KEY2.flac …

The members of a sample follow each other and share KEY, the name up to the first dot of its last
part. Members are only listed and read in place, so no name can leave a folder; names that would are
refused, as the shard is not what it should be.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

from backports import tarfile

from pam.atomic import atomic_path
from pam.data.shards import BLOCK, open_member
from pam.disk import writing
from pam.errors import PamError

COPY_AGAIN = "copy or pack it again"


@dataclass(frozen=True)
class TarMember:
    """A plain file of a shard; `entry` is that of wav.scp."""

    name: str
    size: int
    time: int
    entry: str

    @property
    def key(self) -> str:
        return self.name[: -len(self.suffix) - 1] if self.suffix else self.name

    @property
    def suffix(self) -> str:
        """What follows the first dot of the name's last part, in lower case: flac, txt …"""
        return PurePosixPath(self.name).name.partition(".")[2].lower()

    def content(self) -> bytes:
        return open_member(self.entry).readall()


def samples(shard: Path) -> Iterator[tuple[str, list[TarMember]]]:
    """Yield (key, its members) of a shard. `PamError` as of `members`."""
    for key, group in groupby(members(shard), key=lambda member: member.key):
        yield key, list(group)


def members(shard: Path) -> Iterator[TarMember]:
    """Yield the files of a shard.

    `PamError` if it is truncated or compressed, if tars were joined, and for a link, a device, or
    a name that leaves the folder.
    """
    path = str(shard.absolute())
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while info := tar.next():
                tar.members = []  # else it keeps all of them
                _refuse(shard, info)
                if not info.isdir():
                    entry = f"{path}:{info.offset_data}"
                    yield TarMember(info.name, info.size, int(info.mtime), entry)
            _check_end(shard, file, tar.offset)
    except (tarfile.TarError, OSError) as error:
        reason = " ".join(str(error).split())
        raise PamError(
            f"{shard}: truncated, compressed or no tar file ({reason}): {COPY_AGAIN}, uncompressed"
        ) from error


def _refuse(shard: Path, info: tarfile.TarInfo) -> None:
    name = PurePosixPath(info.name)
    if name.is_absolute() or ".." in name.parts:
        raise PamError(f"{shard}: {info.name!r}: the name leaves the folder: {COPY_AGAIN}")
    if not info.isdir() and info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise PamError(f"{shard}: {info.name!r} is a link or no plain file: {COPY_AGAIN}")


def _check_end(shard: Path, file: io.BufferedReader, end: int) -> None:
    """A tar ends with two blocks of zeros. A copy that was cut between members lacks them, and
    tarfile takes a damaged header for the end."""
    file.seek(end)
    rest = file.read(2 * BLOCK)
    if len(rest) < 2 * BLOCK or any(rest):
        raise PamError(f"{shard}: truncated or damaged after byte {end}: {COPY_AGAIN}")
    while block := file.read(1 << 20):
        if any(block):
            raise PamError(f"{shard}: tars were joined: only the first is read: {COPY_AGAIN}")


class ShardWriter:
    """Writes one shard; `size` is its bytes so far."""

    def __init__(self, tar: tarfile.TarFile, final: Path):
        self.tar, self.final = tar, final.absolute()

    @property
    def size(self) -> int:
        return self.tar.offset

    def add(self, name: str, content: bytes, time: int = 0) -> str:
        """Append a member; returns its entry of wav.scp."""
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(content), time, 0o644
        self.tar.addfile(info, io.BytesIO(content))
        padded = -(-len(content) // BLOCK) * BLOCK
        return f"{self.final}:{self.tar.offset - padded}"


@contextmanager
def writing_shard(final: Path) -> Iterator[ShardWriter]:
    """Write a shard under another name; it is renamed when it is complete."""
    with (
        writing(final),
        atomic_path(final) as part,
        tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield ShardWriter(tar, final)
