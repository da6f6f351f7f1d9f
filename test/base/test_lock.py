"""The lock of a folder ends with its process, however that ends."""

import pytest
from processes import locked_by_another

from pam.errors import PamError
from pam.lock import FILE, alone


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    with locked_by_another(tmp_path / "exp", "training") as pid:
        expected = f"another training is running \\(process {pid} on .+\\): wait for it"
        with pytest.raises(PamError, match=expected), alone(tmp_path / "exp", "training"):
            pass
    with alone(tmp_path / "exp", "training"):
        assert (tmp_path / "exp" / FILE).read_text() != ""


def test_a_file_system_without_locks_gets_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with alone(tmp_path, "dump"):
        assert "run one dump at a time" in caplog.text
