"""Files and folders under another name until they are complete: each program has its own."""

import multiprocessing
import os
import signal
import time

import pytest

from pam.atomic import atomic_folder, atomic_path, complete_lines, part_of, write_json, write_text

fork = multiprocessing.get_context("fork")


def test_atomic_path_leaves_nothing_half_written(tmp_path):
    final = tmp_path / "out.json"
    write_json(final, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(final) as part:
        part.write_text("half")
        raise RuntimeError("killed")
    assert final.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [final]


def test_a_link_in_the_place_of_a_part_is_not_written_through(tmp_path):
    (tmp_path / "kept").write_text("mine")
    part_of(tmp_path / "out.json").symlink_to(tmp_path / "kept")
    write_json(tmp_path / "out.json", {})
    assert (tmp_path / "kept").read_text() == "mine"
    assert not (tmp_path / "out.json").is_symlink()


def test_the_first_error_of_a_file_is_told(tmp_path):
    part_of(tmp_path / "out.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path / "out.json", {})


def write_slowly(kind, final, ready, go_on) -> None:
    """The first half of a file, and the second one when `go_on` is set."""
    with kind(final) as part:
        file = part if kind is atomic_path else part / "file"
        with file.open("w") as lines:
            lines.write("first\n" * 1000)
            lines.flush()
            ready.set()
            assert go_on.wait(60)
            lines.write("second\n" * 1000)


@pytest.mark.parametrize("kind", [atomic_path, atomic_folder])
def test_two_programs_that_write_the_same_do_not_mix(tmp_path, kind):
    """As two jobs do on a file system without locks."""
    final, events = tmp_path / "out", [fork.Event() for _ in range(4)]
    whole = "first\n" * 1000 + "second\n" * 1000
    programs = [
        fork.Process(target=write_slowly, args=[kind, final, *events[n : n + 2]]) for n in (0, 2)
    ]
    for program, ready in zip(programs, events[::2], strict=True):
        program.start()
        assert ready.wait(60)
    for program, go_on in zip(programs, events[1::2], strict=True):
        go_on.set()
        program.join(60)
        assert program.exitcode == 0
        assert (final if kind is atomic_path else final / "file").read_text() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", [atomic_path, atomic_folder])
def test_what_a_killed_program_left_goes_when_the_next_one_writes(tmp_path, kind):
    killed, ready = tmp_path / "killed", fork.Event()
    program = fork.Process(target=write_slowly, args=[kind, killed, ready, fork.Event()])
    program.start()
    assert ready.wait(60)
    running, ready, go_on = tmp_path / "running", fork.Event(), fork.Event()
    other = fork.Process(target=write_slowly, args=[kind, running, ready, go_on])
    other.start()
    assert ready.wait(60)
    os.kill(program.pid, signal.SIGKILL)
    program.join()
    (tmp_path / "mine.part").write_text("not of this kind")
    write_text(tmp_path / "next", "")
    assert len([*tmp_path.iterdir()]) == 3
    go_on.set()
    other.join(60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.part", "next", "running"]


def test_what_another_machine_left_goes_after_a_day(tmp_path, monkeypatch):
    with monkeypatch.context() as there:
        there.setattr("os.uname", lambda: type("Uname", (), {"nodename": "another.host"}))
        old, new = (part_of(tmp_path / name) for name in ("old", "new"))
    for part in (old, new):
        part.write_text("half")
    os.utime(old, (time.time() - 90_000,) * 2)
    write_text(tmp_path / "next", "")
    assert sorted(tmp_path.iterdir()) == sorted([new, tmp_path / "next"])


def test_names_of_parts_fit_the_longest_names(tmp_path, monkeypatch):
    """An id has up to 200 bytes; a machine may have a long name, with dots."""
    monkeypatch.setattr("os.uname", lambda: type("Uname", (), {"nodename": "node.of.a." * 6}))
    monkeypatch.setattr("os.getpid", lambda: 4194303)
    write_text(tmp_path / f"{'a' * 200}.flac", "whole")
    assert (tmp_path / f"{'a' * 200}.flac").read_text() == "whole"


def test_a_file_that_grows_loses_only_what_a_kill_left_of_its_last_line(tmp_path):
    file = tmp_path / "part"
    lines = ["one", "", "two\u2028still two\x85\x0b\x0c", "drei ü"]
    whole = "".join(f"{line}\n" for line in lines).encode()
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        assert complete_lines(file) == lines[: whole[:cut].count(b"\n")]
