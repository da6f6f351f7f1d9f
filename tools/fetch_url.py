#!/usr/bin/env python3
"""Download a file, resuming what an earlier run began, and unpack a folder of an archive.

    tools/fetch_url.py URL FILE [--md5 HEX] [--unpack FOLDER [--inner NAME]]

FILE exists when it is complete and its md5 is right; until then it is FILE.part. FOLDER exists when
it is complete. Members of an archive that lead out of the folder are refused. Proxies are those
of the environment. Recipes import `download` and `unpack`.
"""

import argparse
import hashlib
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from backports import tarfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # pam, installed or not

from pam.disk import writing  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.lock import alone_at  # noqa: E402
from pam.log import get_logger  # noqa: E402

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
TRIES = 5
SECONDS_BETWEEN_LINES = 30.0
MEGABYTE = 1e6
NOT_SATISFIABLE = 416  # nothing is left to send of the range that was asked for
PASSING = (408, 429)  # a slow or busy server: other answers from 400 to 499 stay as they are
NETWORK = (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
logger = get_logger(__name__)


class RefusedError(PamError):
    """The server's answer will be the same next time: there is no such file, or no right to it."""


def download(url: str, file: Path, md5: str | None = None, pause_seconds: float = 2.0) -> Path:
    """The file of `url` at `file`; downloaded, or the rest of it, if it is not there yet.

    Broken connections are tried again, five times since the last one that brought something, after
    1, 2, 4 … times `pause_seconds`. `PamError` where that did not help, for another md5, and for a
    full disk; `RefusedError` for an address that is refused.
    """
    if file.is_file():
        _check_md5(file, md5, "remove it, or put the right file there")
        return file
    part = file.with_name(file.name + ".part")
    with alone_at(file, "download"), writing(file):
        if file.is_file():  # another program has just fetched it
            return file
        with part.open("ab") as out:
            _fill(url, out, file, pause_seconds)
        try:
            _check_md5(part, md5, f"it is removed, fetch {url} again")
        except PamError:
            part.unlink()
            raise
        part.replace(file)
    return file


def _fill(url: str, out: BinaryIO, file: Path, pause_seconds: float) -> None:
    """Append to `out` all that it lacks of the file at `url`."""
    part, failed, most = Path(out.name), 0, 0
    while True:
        try:
            _continue(url, out, part)
            return
        except NETWORK as error:
            out.flush()
            have = part.stat().st_size
            failed, most = (1, have) if have > most else (failed + 1, most)
            _give_up(error, url, file, is_last=failed == TRIES)
            logger.info("%s: %s: trying again", url, _reason(error))
            time.sleep(pause_seconds * 2 ** (failed - 1))


def _check_md5(file: Path, expected: str | None, remedy: str) -> None:
    if expected is None:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != expected:
        raise PamError(f"{file}: md5 {found}, expected {expected}: {remedy}")


def _continue(url: str, out: BinaryIO, part: Path) -> None:
    """Append to `out` what it lacks of the file at `url`; OSError for a broken connection."""
    have = part.stat().st_size
    headers = {"User-Agent": "pam-fetch"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") != f"bytes */{have}":
            out.truncate(0)  # more than the file has: it was another one
            raise ConnectionError("the part of an earlier run does not fit") from error
        return
    with response:
        if have and response.status != 206:  # no ranges here: all of it comes
            out.truncate(0)
            have = 0
        _copy(response, out, have, url, part)


def _copy(response: HTTPResponse, out: BinaryIO, have: int, url: str, part: Path) -> None:
    length = response.headers.get("Content-Length")
    total = None if length is None else have + int(length)
    if total is not None:
        _check_space(part, total - have)
    shown = time.monotonic()
    while chunk := response.read(CHUNK_BYTES):
        out.write(chunk)
        have += len(chunk)
        if time.monotonic() - shown > SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            logger.info("%s: %.0f of %.0f MB", url, have / MEGABYTE, (total or 0) / MEGABYTE)
    out.flush()
    if total is not None and have != total:
        raise ConnectionError(f"ended after {have} of {total} bytes")


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise PamError(
            f"{part}: {needed / MEGABYTE:.0f} MB are missing, {free / MEGABYTE:.0f} MB are free: "
            "free some space or choose another folder"
        )


def _give_up(error: Exception, url: str, file: Path, is_last: bool) -> None:
    """Raise for errors that another attempt cannot mend."""
    code = getattr(error, "code", 0)
    refused = 400 <= code < 500 and code not in PASSING
    if refused or is_last:
        raise (RefusedError if refused else PamError)(
            f"{url}: {_reason(error)}: run the same command again, it resumes; or get the file "
            f"elsewhere and put it at {file}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def unpack(archive: Path, folder: Path, inner: str = "") -> Path:
    """The folder `inner` of a tar or zip file (all for "") as `folder`, complete or not there.

    `PamError` for an archive that is damaged, lacks `inner`, or has members that lead elsewhere.
    """
    if folder.is_dir():
        return folder
    work = folder.with_name(f".{folder.name}.part")
    with alone_at(folder, "unpacking"), writing(folder):
        logger.info("unpacking %s", archive)
        if folder.is_dir():  # another program has just made it
            return folder
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
        try:
            with _readable(archive):
                _extract(archive, work, PurePosixPath(inner))
            found = work / inner
            if not found.is_dir() or not any(found.iterdir()):
                raise PamError(f"{archive}: no folder {inner!r} in it: is it another archive?")
            found.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except tarfile.FilterError as error:
        raise PamError(f"{archive}: {error}: not unpacked, get the archive elsewhere") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise PamError(
            f"{archive}: damaged archive ({_reason(error)}): remove it and run again"
        ) from error


def _extract(archive: Path, folder: Path, inner: PurePosixPath) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                if _is_wanted(archive, member.filename, inner):
                    packed.extract(member, folder)
        return
    with tarfile.open(archive) as packed:
        for member in packed:
            if _is_wanted(archive, member.name, inner):
                packed.extract(member, folder, filter="data")  # refuses links that lead outside


def _is_wanted(archive: Path, name: str, inner: PurePosixPath) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise PamError(f"{archive}: member {name!r} leads out of the folder: not unpacked")
    return path.is_relative_to(inner)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--md5", help="that the file must have")
    parser.add_argument("--unpack", type=Path, metavar="FOLDER", help="make FOLDER of the archive")
    parser.add_argument("--inner", default="", help="only this folder of the archive")
    args = parser.parse_args(argv)
    if args.unpack and args.unpack.is_dir():
        return
    download(args.url, args.file, args.md5)
    if args.unpack:
        unpack(args.file, args.unpack, args.inner)


if __name__ == "__main__":
    run_main(main)
