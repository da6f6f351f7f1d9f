"""The lock of a folder ends with its process, however that ends."""

import pytest
from processes import locked_by_another

from pam.errors import PamError
from pam.lock import FILE, alone, alone_at, take_inherited


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    with locked_by_another(tmp_path / "exp", "training") as pid:
        expected = f"another training is running \\(process {pid} on .+\\): wait for it"
        with pytest.raises(PamError, match=expected), alone(tmp_path / "exp", "training"):
            pass
    with alone(tmp_path / "exp", "training"):
        assert (tmp_path / "exp" / FILE).read_text() != ""


def test_a_file_has_one_writer_at_a_time(tmp_path):
    file = tmp_path / "new" / "a.part"
    with locked_by_another(file, "program", alone_at):
        with alone_at(file.with_name("b.part"), "program"):
            pass
        with (
            pytest.raises(PamError, match=r"a\.part: another program is running \(process"),
            alone_at(file, "program"),
        ):
            pass
    with alone_at(file, "program"):  # that one was killed
        file.touch()
    assert [path.name for path in file.parent.iterdir()] == ["a.part"]


def test_a_lock_that_its_holder_removes_is_not_taken(tmp_path, monkeypatch):
    file, lock = tmp_path / "a.part", tmp_path / f"a.part{FILE}"
    taken = []

    def take(opened, *_):
        taken.append(opened)
        if len(taken) == 1:  # between opening and locking, the holder ends
            lock.unlink()

    monkeypatch.setattr("pam.lock.take", take)
    with alone_at(file, "program"):
        assert len(taken) == 2 and taken[0].closed and lock.exists()
    assert not lock.exists()


def test_a_file_system_without_locks_gets_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with alone(tmp_path, "dump"):
        assert "run one dump at a time" in caplog.text


def test_a_shell_has_the_lock_until_it_closes_the_file(tmp_path, monkeypatch, caplog):
    with (tmp_path / FILE).open("a") as shell, (tmp_path / FILE).open("a") as other:
        take_inherited(shell.fileno(), tmp_path, "preparation")
        take_inherited(shell.fileno(), tmp_path, "preparation")  # for the same shell again
        with pytest.raises(PamError, match="another preparation is running: wait for it, or end"):
            take_inherited(other.fileno(), tmp_path, "preparation")
        shell.close()
        take_inherited(other.fileno(), tmp_path, "preparation")

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    take_inherited(0, tmp_path, "preparation")
    assert "run one preparation at a time" in caplog.text
