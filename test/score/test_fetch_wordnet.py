"""tools/fetch_wordnet.py with small files in the place of WordNet's."""

import gzip
import hashlib
import importlib.util
import threading
from pathlib import Path

import pytest

from pam.errors import PamError
from pam.lock import in_turn
from pam.paths import wordnet

TOOL = Path(__file__).parents[2] / "tools" / "fetch_wordnet.py"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("fetch_wordnet", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PAM_CACHE", str(tmp_path / "cache"))
    sha = {name: hashlib.sha256(text).hexdigest() for name, text in FILES.items()}
    monkeypatch.setattr(module, "SHA256", sha)
    return module


FILES = {"lexnames": b"00\tadj.all\t3\n01\tnoun.act\t1\n", "data.adj": b"1", "index.sense": b"2"}
TARGET = "cache/nltk_data/corpora/wordnet"


def source(tmp_path, **changed):
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    for name, text in {**FILES, **changed}.items():
        if text is not None:
            (folder / "deep" / name).write_bytes(text)
    return folder


def test_files_are_checked_and_copied(tool, tmp_path):
    tool.main(["--from", str(source(tmp_path))])
    installed = {path.name: path.read_bytes() for path in (tmp_path / TARGET).iterdir()}
    assert installed == FILES
    assert (tmp_path / TARGET).stat().st_mode & 0o022 == 0


def test_stage_1_takes_it_for_complete_once_the_last_file_is_there(tool, tmp_path, monkeypatch):
    """It is not fetched twice, and a copy that was killed is begun again."""
    spec = importlib.util.spec_from_file_location("whole", TOOL)
    whole = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(whole)
    last = list(whole.SHA256)[-1]
    monkeypatch.setattr(tool, "SHA256", {**tool.SHA256, last: hashlib.sha256(b"4").hexdigest()})
    for name in whole.SHA256:
        if name != last:
            (tmp_path / TARGET).mkdir(parents=True, exist_ok=True)
            (tmp_path / TARGET / name).touch()
    assert wordnet() is None
    tool.main(["--from", str(source(tmp_path, **{last: b"4"}))])
    assert wordnet() == tmp_path / TARGET


def test_files_behind_a_link(tool, tmp_path):
    (tmp_path / "brought").mkdir()
    (tmp_path / "brought/disk").symlink_to(source(tmp_path))
    tool.main(["--from", str(tmp_path / "brought")])
    assert not tool.missing(tmp_path / TARGET)


def test_again_does_nothing(tool, tmp_path):
    folder = source(tmp_path)
    tool.main(["--from", str(folder)])
    tool.main(["--from", str(tmp_path / "not there")])


def test_a_second_run_waits_for_the_first(tool, tmp_path):
    (tmp_path / "cache").mkdir()
    second = threading.Thread(target=tool.main, args=[["--from", str(tmp_path / "not there")]])
    with in_turn(tmp_path / "cache"):
        second.start()
        second.join(0.3)
        assert second.is_alive()
        tool.install([source(tmp_path)], tmp_path / TARGET)
        before = (tmp_path / TARGET).stat().st_mtime_ns
    second.join(60)
    assert not second.is_alive() and (tmp_path / TARGET).stat().st_mtime_ns == before


def test_a_changed_file_is_refused_and_nothing_is_left(tool, tmp_path):
    folder = source(tmp_path, **{"index.sense": b"3"})
    with pytest.raises(PamError, match="index.sense .*was not found: bring wordnet-base"):
        tool.main(["--from", str(folder)])
    assert not (tmp_path / TARGET).exists()


def test_lexnames_come_from_the_manual_page(tool, tmp_path, monkeypatch):
    page = b"text\n00\tadj.all\tall adjectives\n01\tnoun.act  \tacts\n"
    monkeypatch.setattr(tool.subprocess, "run", lambda *args, **kwargs: None)
    (tmp_path / "unpacked.src").mkdir()
    target = tmp_path / "unpacked"
    original = Path.mkdir

    def mkdir(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self == target:
            (self / tool.LEXNAMES_PAGE).write_bytes(gzip.compress(page))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    tool.unpack(tmp_path / "unpacked.src", target)
    assert (target / "lexnames").read_bytes() == FILES["lexnames"]
