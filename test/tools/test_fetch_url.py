"""Downloads that resume and are checked; archives that cannot write outside their folder."""

import errno
import fcntl
import hashlib
import io
import os
import re
import signal
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from backports import tarfile
from processes import locked_by_another

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from pam.errors import PamError  # noqa: E402
from pam.lock import alone_at  # noqa: E402
from tools import fetch_url  # noqa: E402
from tools.fetch_url import download, unpack  # noqa: E402

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT as any name; `cut` breaks the first answers off, `ranges` allows to resume."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut, self.ranges, self.status, self.asked = [], True, 200, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        if server.status != 200:
            return self.send_error(server.status)
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut.pop(0)] if server.cut else body)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def fetch(server: Server, folder: Path, md5: str | None = MD5) -> Path:
    return download(server.url, folder / "got/file", md5, pause_seconds=0.0)


def test_a_file_is_fetched_once(server, tmp_path):
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    fetch(server, tmp_path)
    assert server.asked == [None]
    assert [file.name for file in (tmp_path / "got").iterdir()] == ["file"]


def test_broken_connections_are_resumed(server, tmp_path):
    server.cut = [1000, 500]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=1500-"]


def test_an_earlier_run_is_resumed(server, tmp_path):
    server.cut = [1000] * 5 + [0] * (fetch_url.TRIES - 1)
    with pytest.raises(PamError, match=r"ended after 5000 of 10240 .*it resumes; .*got/file"):
        fetch(server, tmp_path)
    assert not (tmp_path / "got/file").exists()
    server.asked.clear()
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=5000-"]


def test_tries_count_from_the_last_that_brought_something(server, tmp_path):
    """A large file over a connection that breaks every hour."""
    server.cut = [0, 500, 0, 0] * fetch_url.TRIES
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 1 + 4 * fetch_url.TRIES


def test_a_server_without_ranges_that_always_breaks_is_given_up(server, tmp_path):
    server.ranges, server.cut = False, [500, 1000, 900] * 9
    with pytest.raises(PamError, match="ended after"):
        fetch(server, tmp_path)
    assert len(server.asked) == 2 + fetch_url.TRIES - 1


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges, server.cut = False, [1000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"])
def test_a_part_that_is_complete_or_of_another_file(server, tmp_path, part):
    (tmp_path / "got").mkdir()
    (tmp_path / "got/file.part").write_bytes(part)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_another_md5_is_refused_and_not_kept(server, tmp_path):
    with pytest.raises(PamError, match="md5 .* expected 0000: it is removed, fetch http"):
        fetch(server, tmp_path, md5="0000")
    assert not list((tmp_path / "got").iterdir())
    (tmp_path / "got/file").write_bytes(b"put there by hand")
    with pytest.raises(PamError, match="got/file: md5 .*: remove it, or put the right file"):
        fetch(server, tmp_path)


def test_a_refused_address_is_asked_once(server, tmp_path):
    server.status = 404
    with pytest.raises(PamError, match="404.*put it at"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1
    server.status = 503
    with pytest.raises(PamError, match="503"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1 + fetch_url.TRIES


def test_a_small_disk_is_refused_before_writing(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("tools.fetch_url.shutil.disk_usage", lambda path: usage)
    with pytest.raises(PamError, match="free some space"):
        fetch(server, tmp_path)


def pack(file: Path, names: dict[str, str]) -> Path:
    """A tar.gz or zip with these members; "-> X" makes a link in a tar."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w") as packed:
            for name, text in names.items():
                packed.writestr(name, text)
        return file
    with tarfile.open(file, "w:gz") as packed:
        for name, text in names.items():
            member = tarfile.TarInfo(name)
            if text.startswith("-> "):
                member.type, member.linkname = tarfile.SYMTYPE, text.removeprefix("-> ")
            member.size = 0 if member.issym() else len(text)
            packed.addfile(member, io.BytesIO(text.encode()))
    return file


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_a_folder_of_an_archive_appears_complete(tmp_path, name):
    archive = pack(tmp_path / name, {"top/a/x.txt": "x", "top/a/b/y.txt": "y", "top/c.txt": "c"})
    assert unpack(archive, tmp_path / "out/a", "top/a") == tmp_path / "out/a"
    files = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert files == ["a/b/y.txt", "a/x.txt"]
    assert (unpack(archive, tmp_path / "all") / "top/c.txt").read_text() == "c"
    with pytest.raises(PamError, match="no folder 'top/d' in it"):
        unpack(archive, tmp_path / "d", "top/d")


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil-of-a-test", "..\\evil"])
def test_members_that_lead_outside_are_refused(tmp_path, suffix, name):
    archive = pack(tmp_path / f"bad.{suffix}", {"a/good": "x", name: "evil"})
    with pytest.raises(PamError, match="leads out of the folder: not unpacked"):
        unpack(archive, tmp_path / "in/out")
    assert not list(tmp_path.rglob("*evil*")) and not (tmp_path / "in/out").exists()
    assert not Path("/tmp/evil-of-a-test").exists()


@pytest.mark.parametrize("target", ["/etc", "../../.."])
def test_links_that_lead_outside_are_refused(tmp_path, target):
    archive = pack(tmp_path / "bad.tar.gz", {"a/link": f"-> {target}", "a/link/evil": "evil"})
    with pytest.raises(PamError, match="not unpacked, get the archive elsewhere"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_damaged_archives(tmp_path, name):
    archive = pack(tmp_path / name, {"a/x": "x" * 1000, "a/y": "y" * 1000})
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(PamError, match="damaged archive .*: remove it and run again"):
        unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_an_unpacking_that_was_killed_starts_again(tmp_path):
    """What it left is neither taken for complete nor kept."""
    archive = pack(tmp_path / "a.tar.gz", {"top/a/x.txt": "x"})
    killed = os.fork()
    if killed == 0:
        fetch_url._is_wanted = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        (tmp_path / ".a.part/top/a").mkdir(parents=True)
        (tmp_path / ".a.part/top/a/half.txt").write_text("ha")
        unpack(archive, tmp_path / "a", "top/a")
    assert os.WTERMSIG(os.waitpid(killed, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "a").exists()
    unpack(archive, tmp_path / "a", "top/a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.tar.gz"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.txt"]


def test_an_archive_is_unpacked_by_one_program(tmp_path):
    archive = pack(tmp_path / "a.tar.gz", {"top/x.txt": "x"})
    with (
        locked_by_another(tmp_path / "out", "unpacking", alone_at),
        pytest.raises(PamError, match=r"out: another unpacking is running .*: wait for it"),
    ):
        unpack(archive, tmp_path / "out")
    assert (unpack(archive, tmp_path / "out") / "top/x.txt").is_file()


def test_a_file_is_fetched_by_one_program(server, tmp_path):
    (tmp_path / "got").mkdir()
    with (
        locked_by_another(tmp_path / "got/file", "download", alone_at),
        pytest.raises(PamError, match="file: another download is running"),
    ):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_disk_without_locks(server, tmp_path, monkeypatch, caplog):
    """NFS refuses a lock of a file that is open for reading, Lustre may refuse all."""

    def refusing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, refusing)
    archive = pack(tmp_path / "a.tar.gz", {"top/x.txt": "x"})
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert (unpack(archive, tmp_path / "out") / "top/x.txt").is_file()
    assert "no locks (Function not implemented)" in caplog.text


def test_command(server, tmp_path):
    archive = pack(tmp_path / "local.tar.gz", {"a/x": "x"})
    fetch_url.main([server.url, str(archive), "--unpack", str(tmp_path / "a"), "--inner", "a"])
    assert (tmp_path / "a/x").read_text() == "x" and not server.asked
