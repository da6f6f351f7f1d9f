"""The digest of a directory is that of its files in one piece, however large they are."""

from pam.config.made import digest
from pam.data.digests import DECODED, data_digest


def test_a_digest_does_not_depend_on_how_the_files_are_read(folder):
    (folder / "text_ref2").write_bytes(b"x" * ((2 << 20) + 1))
    (folder / "text_ref3").write_bytes(b"")
    files = [file for pattern in DECODED for file in sorted(folder.glob(pattern))]
    parts = [part for file in files for part in (f"\0{file.name}\0", file.read_bytes())]
    assert len(files) == 6 and data_digest(folder) == digest(*parts)
    (folder / "text_ref3").write_bytes(b"y")
    assert data_digest(folder) != digest(*parts)
    assert data_digest(folder / "missing") is None
