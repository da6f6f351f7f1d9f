"""Fetching packages: pinned files, no way out of the folder, errors that say what to do."""

import io
import sys
from pathlib import Path

import pytest
from backports import tarfile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from pam.errors import PamError  # noqa: E402
from tools import fetch_corpora as fetch  # noqa: E402


def tar_bytes(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def deb_bytes(files: dict[str, bytes]) -> bytes:
    """An `ar` file with the three members of a Debian package."""
    out = b"!<arch>\n"
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": tar_bytes(files)}
    for name, content in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a package of these files into the downloads folder, as if somebody did it by hand."""
    monkeypatch.setenv("PAM_CACHE", str(tmp_path))

    def put(files: dict[str, bytes], kind: str = "deb") -> fetch.Package:
        name = "toy_1.0_all.deb" if kind == "deb" else "toy-1.0.tar.gz"
        path = tmp_path / "downloads" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(deb_bytes(files) if kind == "deb" else tar_bytes(files))
        toy = fetch.Package(kind, "toy", "1.0", name, fetch.sha256_of(path), 1)
        monkeypatch.setitem(fetch.PACKAGES, "toy", toy)
        return toy

    return put


@pytest.mark.parametrize("kind", ["deb", "sdist"])
def test_wanted_members_are_unpacked_once(package, tmp_path, kind):
    package({"./usr/a.wav": b"sound", "./usr/b.txt": b"text"}, kind)
    folder = fetch.unpacked("toy", lambda path: path == "usr/a.wav")
    assert folder == tmp_path / "corpora" / "toy"
    assert [p.name for p in folder.rglob("*") if p.is_file()] == ["a.wav"]
    assert [p.name for p in folder.parent.iterdir()] == ["toy"]  # no temporary folder is left
    (tmp_path / "downloads").rename(tmp_path / "away")
    assert fetch.unpacked("toy") == folder  # a complete folder needs no archive


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil"])
def test_nothing_is_written_outside(package, tmp_path, name):
    package({name: b"bad", "ok": b"good"})
    try:
        fetch.unpacked("toy")
    except tarfile.FilterError:
        assert not (tmp_path / "corpora" / "toy").exists()
    outside = [p for p in tmp_path.rglob("evil") if "corpora/toy" not in p.as_posix()]
    assert outside == [] and not Path("/etc/evil").exists()


def test_a_changed_file_is_refused(package, tmp_path):
    toy = package({"a": b"1"})
    path = tmp_path / "downloads" / toy.file
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(PamError, match=f"{toy.sha256}.*remove the file"):
        fetch.unpacked("toy")
    assert not (tmp_path / "corpora" / "toy").exists()


def test_without_apt_the_error_names_the_file_and_its_place(package, tmp_path, monkeypatch):
    toy = package({"a": b"1"})
    (tmp_path / "downloads" / toy.file).unlink()
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(PamError) as error:
        fetch.fetch("toy")
    for part in (toy.file, toy.sha256, str(tmp_path / "downloads")):
        assert part in str(error.value)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_another_version_in_the_registry_is_named(package, tmp_path, monkeypatch):
    toy = package({"a": b"1"})
    (tmp_path / "downloads" / toy.file).unlink()
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "apt-get").write_text("#!/bin/sh\necho 'E: Version 1.0 was not found'; exit 100\n")
    (bin_dir / "apt-cache").write_text("#!/bin/sh\necho '  Candidate: 2.0'\n")
    for tool in bin_dir.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_dir}:/usr/bin:/bin")
    with pytest.raises(PamError, match="offers version 2.0.*pinned to 1.0"):
        fetch.fetch("toy")


def test_an_unknown_package_lists_the_known_ones():
    with pytest.raises(PamError, match="qabcs-data"):
        fetch.fetch("qabcs")


def test_every_package_is_pinned():
    for name, package in fetch.PACKAGES.items():
        assert (
            package.name == name and len(package.sha256) == 64 and package.version in package.file
        )
