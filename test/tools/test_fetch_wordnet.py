"""WordNet out of packages that apt-get does not fetch: on machines without Debian's programs."""

import gzip
import hashlib
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from pam.errors import PamError  # noqa: E402
from tools import fetch_wordnet  # noqa: E402

PAGE = ".TH\n00\tadj.all\tall adjective clusters\n03\tnoun.Tops\tunique beginners\n"
LEXNAMES = "00\tadj.all\t3\n03\tnoun.Tops\t1\n"


def test_packages_need_dpkg(tmp_path, monkeypatch):
    (tmp_path / "wordnet-base_3.0-39_all.deb").write_bytes(b"!<arch>")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PamError, match="base_3.0-39_all.deb: dpkg-deb is not on this machine: unp"):
        fetch_wordnet.unpack(tmp_path, tmp_path / "unpacked")


def test_packages_that_were_unpacked_elsewhere(tmp_path, monkeypatch):
    """They have lexnames only as a manual page."""
    files = {"index.noun": "an index\n", "lexnames": LEXNAMES}
    sha = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    monkeypatch.setattr(fetch_wordnet, "SHA256", sha)
    monkeypatch.setenv("PAM_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "from" / "usr/share"
    (source / "man/man5").mkdir(parents=True)
    (source / "man/man5/lexnames.5WN.gz").write_bytes(gzip.compress(PAGE.encode()))
    (source / "wordnet").mkdir()
    (source / "wordnet/index.noun").write_text(files["index.noun"])
    fetch_wordnet.main(["--from", str(tmp_path / "from")])
    target = tmp_path / "cache/nltk_data/corpora/wordnet"
    assert {file.name: file.read_text() for file in target.iterdir()} == files
