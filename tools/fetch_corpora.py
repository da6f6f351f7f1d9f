#!/usr/bin/env python3
"""Fetch the source packages of the mini corpora into the cache, each pinned by version and sha256.

    tools/fetch_corpora.py            every package (about 400 MB)
    tools/fetch_corpora.py NAME ...   only these
    tools/fetch_corpora.py --list     what they are

`apt-get download` fetches Debian packages (no root needed), `pip download` Python source
distributions, each from its configured mirror. A file that was put into the downloads folder by
hand is used if its sha256 agrees.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backports import tarfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs before pam is installed

from pam.errors import PamError, run_main  # noqa: E402
from pam.log import get_logger  # noqa: E402
from pam.paths import cache_dir  # noqa: E402

logger = get_logger(__name__)
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Package:
    """One pinned file: `kind` is "deb" or "sdist", `megabytes` is for the reader."""

    kind: str
    name: str
    version: str
    file: str
    sha256: str
    megabytes: int


def _deb(name: str, version: str, sha256: str, megabytes: int) -> Package:
    return Package("deb", name, version, f"{name}_{version}_all.deb", sha256, megabytes)


PACKAGES = {
    package.name: package
    for package in (
        _deb(
            "flight-of-the-amazon-queen",
            "1.0.0-9",
            "40c08fd258d6fe95c46c1eaf5e9137f84ba330657995a281bd887c94a560a0f1",
            35,
        ),
        _deb(
            "asterisk-core-sounds-en-wav",
            "1.6.1-1",
            "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
            18,
        ),
        _deb(
            "asterisk-core-sounds-en",
            "1.6.1-1",
            "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
            1,
        ),
        _deb(
            "qabcs-data",
            "1.0.2-6",
            "3484da4cf258e6f3a39a1fc99bbfcaddfd679cff96a8fa792f261ab0a2bf9d86",
            34,
        ),
        _deb(
            "scratch",
            "1.4.0.6~dfsg1-6.1",
            "36c582eb93110f64f06c4e685c41e933ccba2fa68db12f79b10bfe840b21fc10",
            26,
        ),
        _deb(
            "lincity-ng-data",
            "2.9~git20150314-5",
            "8f5e85bd42879abdc7099b035d7a3d7468eceb6b93b52a12270c28f3f3c792f9",
            45,
        ),
        _deb(
            "sonic-pi-samples",
            "3.2.2~repack-8",
            "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
            22,
        ),
        _deb(
            "gcompris-qt-data",
            "3.1-2",
            "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
            44,
        ),
        _deb(
            "tuxpaint-stamps-default",
            "2022.06.04-1",
            "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
            161,
        ),
        Package(
            "sdist",
            "speakerbox",
            "1.2.0",
            "speakerbox-1.2.0.tar.gz",
            "08da93c037108369cd1ac3aca6f418152f897aadd7137836826b312113161316",
            39,
        ),
        Package(
            "sdist",
            "pyannote.audio",
            "4.0.7",
            "pyannote_audio-4.0.7.tar.gz",
            "3a903dfb5ca711d134cc2522561c9158b186836f5d62e8a57c46c6648e8a8229",
            14,
        ),
    )
}


def downloads_dir() -> Path:
    return cache_dir() / "downloads"


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(name: str) -> Path:
    """The verified file of a package in the downloads folder; downloaded if it is not there."""
    if name not in PACKAGES:
        raise PamError(f"unknown package {name!r}: one of {', '.join(sorted(PACKAGES))}")
    package = PACKAGES[name]
    final = downloads_dir() / package.file
    if final.is_file():
        _verify(package, final)
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    logger.info("downloading %s (%d MB)", package.file, package.megabytes)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{name}.") as folder:
        download = _download_deb if package.kind == "deb" else _download_sdist
        found = download(package, Path(folder))
        _verify(package, found)
        found.replace(final)
    return final


def _verify(package: Package, path: Path) -> None:
    actual = sha256_of(path)
    if actual != package.sha256:
        raise PamError(
            f"{path}: sha256 {actual} is not the pinned {package.sha256}: remove the file and "
            f"run again, or put {package.file} of version {package.version} there"
        )


def _by_hand(package: Package) -> str:
    return f"or put {package.file} (sha256 {package.sha256}) into {downloads_dir()} and run again"


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _download_deb(package: Package, folder: Path) -> Path:
    if not shutil.which("apt-get"):
        raise PamError(
            f"{package.name}: there is no apt-get here: fetch it elsewhere, {_by_hand(package)}"
        )
    folder.chmod(0o755)  # apt drops to its own user to download
    command = ["apt-get", "download", f"{package.name}={package.version}"]
    result = _run(command, folder)
    if result.returncode and os.geteuid() == 0:
        logger.info("apt does not know %s: updating its package lists", package.name)
        _run(["apt-get", "update"], folder)
        result = _run(command, folder)
    files = list(folder.glob("*.deb"))
    if result.returncode or not files:
        raise PamError(_why_no_deb(package, result.stdout))
    return files[0]


def _why_no_deb(package: Package, output: str) -> str:
    offered = [
        line.split(":", 1)[1].strip()
        for line in _run(["apt-cache", "policy", package.name], Path.cwd()).stdout.splitlines()
        if line.strip().startswith("Candidate:")
    ]
    if offered and offered[0] not in ("(none)", package.version):
        problem = f"apt offers version {offered[0]}, the recipe is pinned to {package.version}"
    else:
        lines = [line for line in output.splitlines() if line.startswith("E:")] or ["no output"]
        problem = f"apt-get download failed ({lines[-1]})"
    return f"{package.name}: {problem}: run `apt-get update` as root, {_by_hand(package)}"


def _download_sdist(package: Package, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    result = _run([*command, "--dest", ".", f"{package.name}=={package.version}"], folder)
    found = folder / package.file  # pip builds its metadata too, and saves it only if that works
    if not found.is_file():
        last = (result.stdout.strip().splitlines() or ["no output"])[-1]
        raise PamError(f"{package.name}: pip download failed ({last}): retry, {_by_hand(package)}")
    return found


@contextmanager
def complete_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it gets the name `final` when all went well."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}.") as folder:
        part = Path(folder) / "content"
        part.mkdir()
        yield part
        try:
            part.replace(final)
        except OSError:
            if not final.is_dir():  # else another process was first with the same content
                raise


def unpacked(name: str, wanted: Callable[[str], bool] = lambda path: True) -> Path:
    """The folder with the wanted members of a package, unpacked once: it exists when complete.

    `wanted` sees a member's path without a leading "./"; it must not change between calls.
    """
    final = cache_dir() / "corpora" / name
    if final.is_dir():
        return final
    archive = fetch(name)
    logger.info("unpacking %s", archive.name)
    with complete_folder(final) as part, _open_archive(archive) as tar:
        _extract(tar, part, wanted)
    return final


def _open_archive(path: Path) -> tarfile.TarFile:
    return _open_deb(path) if path.suffix == ".deb" else tarfile.open(path)


def _extract(tar: tarfile.TarFile, folder: Path, wanted: Callable[[str], bool]) -> None:
    for member in tar:
        if member.isfile() and wanted(member.name.removeprefix("./")):
            tar.extract(member, folder, filter="data")  # "data" refuses paths that lead outside


def _open_deb(path: Path) -> tarfile.TarFile:
    """The data archive inside a .deb (an `ar` file: 60-byte headers, contents at even offsets)."""
    with path.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise PamError(f"{path}: not a Debian package: remove it and run again")
        while header := file.read(60):
            member, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
            if member.startswith("data.tar"):
                content = tempfile.TemporaryFile()  # noqa: SIM115 (the tar file owns it)
                shutil.copyfileobj(_Limited(file, size), content, CHUNK_BYTES)
                content.seek(0)
                return tarfile.open(fileobj=content)
            file.seek(size + size % 2, os.SEEK_CUR)
    raise PamError(f"{path}: no data archive inside: remove the file and run again")


class _Limited:
    """The next `size` bytes of a file."""

    def __init__(self, file, size: int):
        self.file, self.left = file, size

    def read(self, count: int) -> bytes:
        chunk = self.file.read(min(count, self.left))
        self.left -= len(chunk)
        return chunk


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="packages (default: all)")
    parser.add_argument("--list", action="store_true", help="print the packages and stop")
    args = parser.parse_args(argv)
    if args.list:
        for package in PACKAGES.values():
            print(f"{package.file}\t{package.megabytes} MB\tsha256 {package.sha256}")
        return
    for name in args.names or PACKAGES:
        print(fetch(name))


if __name__ == "__main__":
    run_main(main)
