"""Audio inside tar files: an entry `SHARD.tar:OFFSET` of wav.scp. Nothing is unpacked.

    utt1 /corpora/train-000000.tar:1536

OFFSET is the byte where a member's content begins, as in Kaldi's archives. The 512 bytes before it
are the member's header, with its name and size. Reads state their place, so forked processes and
threads share an open shard. `pam.bin.shard` packs shards, `pam.bin.import` finds those of others.
"""

import io
import os
import re
from functools import lru_cache
from pathlib import Path

from backports import tarfile

from pam.errors import PamError

ENTRY = re.compile(r"(.+\.tar):(\d{1,18})", re.DOTALL)
BLOCK = tarfile.BLOCKSIZE  # bytes of a header; contents are padded to a multiple of it
SHARDS_OPEN = 64  # in a process
BUFFER_BYTES = 1 << 16  # libsndfile reads a few bytes at a time
PACK_AGAIN = "pack the shards again, or import them again"


def is_member(entry: str | Path) -> bool:
    """Whether an entry of wav.scp is a member of a shard, not a file."""
    return bool(ENTRY.fullmatch(str(entry)))


def file_of(entry: str | Path) -> Path:
    """The file on the disk that holds the audio of an entry: its shard, or the file itself."""
    found = ENTRY.fullmatch(str(entry))
    return Path(found[1] if found else entry)


class Member(io.RawIOBase):
    """The content of a member, as a file that can be read and sought."""

    def __init__(self, shard: "_Shard", begin: int, size: int):
        self.shard, self.begin, self.size, self.place = shard, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        self.place = max(start + offset, 0)
        return self.place

    def readinto(self, buffer) -> int:
        room = memoryview(buffer)[: max(self.size - self.place, 0)]
        count = os.preadv(self.shard.fd, [room], self.begin + self.place) if room else 0
        self.place += count
        return count


def open_member(entry: str) -> Member:
    """The member of an entry. `PamError` if the shard is missing or truncated, or has no file
    there."""
    found = ENTRY.fullmatch(entry)
    path, begin = found[1], int(found[2])
    shard = _shard(entry, path)
    try:
        header = os.pread(shard.fd, BLOCK, begin - BLOCK) if begin >= BLOCK else b""
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise PamError(
            f"{entry}: no file of the shard begins at this byte: {PACK_AGAIN}"
        ) from error
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise PamError(f"{entry}: {info.name!r} is a link or no plain file: {PACK_AGAIN}")
    if begin + info.size > shard.size:
        held = max(shard.size - begin, 0)
        raise PamError(
            f"{entry}: truncated shard ({info.name!r} has {info.size} bytes, {held} are there): "
            "copy it again"
        )
    return Member(shard, begin, info.size)


def open_buffered(entry: str) -> io.BufferedReader:
    """As `open_member`, for many small reads."""
    return io.BufferedReader(open_member(entry), BUFFER_BYTES)


class _Shard:
    """An open tar file. It is closed when no member and no cache needs it."""

    def __init__(self, fd: int, size: int):
        self.fd, self.size = fd, size

    def __del__(self) -> None:
        os.close(self.fd)


def _shard(entry: str, path: str) -> _Shard:
    try:
        state = Path(path).stat()
        return _opened(path, state.st_ino, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise PamError(
            f"{entry}: the shard cannot be read ({error.strerror}): {PACK_AGAIN}"
        ) from error


@lru_cache(maxsize=SHARDS_OPEN)
def _opened(path: str, _inode: int, size: int, _time: int) -> _Shard:
    """The shard. One that was replaced in the meantime is opened again."""
    return _Shard(os.open(path, os.O_RDONLY | os.O_CLOEXEC), size)
