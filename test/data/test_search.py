"""Files of a corpus are found behind links, each once."""

import os

import pytest

from pam.data.parquet import find_parquet
from pam.data.recordings import matches
from pam.data.search import find_files


@pytest.fixture
def corpus(tmp_path):
    """FOLDER/meetings/a.wav, and FOLDER/linked, which leads to another disk with b.wav."""
    folder, disk = tmp_path / "corpus", tmp_path / "disk"
    for file in (folder / "meetings/a.wav", disk / "deep/b.wav", folder / "notes.txt"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (folder / "linked").symlink_to(disk)
    return folder


def names(folder, pattern="*.wav"):
    return [file.relative_to(folder).as_posix() for file in find_files(folder, pattern)]


def test_links_are_followed(corpus):
    assert names(corpus) == ["linked/deep/b.wav", "meetings/a.wav"]
    (corpus / "meetings/._a.wav").touch()  # macOS leaves it beside a.wav
    assert names(corpus, "*") == ["linked/deep/b.wav", "meetings/a.wav", "notes.txt"]
    assert names(corpus, "[b-z].wav") == ["linked/deep/b.wav"]
    assert names(corpus, "*.WAV") == [] == find_files(corpus / "none")


def test_links_in_circles_end(corpus):
    """The path of a file has a link only where no other leads there."""
    (corpus / "again").symlink_to(corpus)
    (corpus / "also").symlink_to(corpus / "meetings")
    (corpus.parent / "disk/deep/back").symlink_to(corpus.parent / "disk")
    (corpus / "meetings/two").symlink_to(corpus.parent / "disk/deep")
    assert names(corpus) == ["linked/deep/b.wav", "meetings/a.wav"]


def test_a_file_may_be_a_link(corpus):
    (corpus / "c.wav").symlink_to(corpus / "meetings/a.wav")
    (corpus / "gone.wav").symlink_to(corpus / "nowhere")
    assert names(corpus) == ["c.wav", "gone.wav", "linked/deep/b.wav", "meetings/a.wav"]


def test_a_folder_that_cannot_be_read_is_said(corpus, monkeypatch, caplog):
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("meetings"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert names(corpus) == ["linked/deep/b.wav"]
    assert f"{corpus / 'meetings'}: cannot be read (Permission denied): not searched" in caplog.text


def test_parquet_files(corpus):
    (corpus.parent / "disk/deep/train-00000-of-00001.parquet").touch()
    (corpus / "again").symlink_to(corpus / "linked/deep")
    (file,) = find_parquet(corpus)
    assert file.name == "train-00000-of-00001.parquet"


def test_a_pattern_of_recordings(corpus, monkeypatch):
    monkeypatch.chdir(corpus)
    (corpus / "meetings/self").symlink_to(corpus / "meetings")
    assert matches("**/*.wav") == ["linked/deep/b.wav", "meetings/a.wav"]
    (corpus / "other").symlink_to(corpus / "meetings")  # both names are asked for
    assert matches("*/a.wav") == ["meetings/a.wav", "other/a.wav"]
