"""Fixing: whatever is wrong, a valid directory is left, or nothing is changed."""

import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from small_dirs import UTTS, data_dirs, edit

from pam.data.datadir import DataDir, check, fix
from pam.errors import PamError


def test_fix_keeps_a_backup_and_tells_all(folder):
    edit(folder, "text", "ann-2 words of ann-2", "ann-2")
    before = (folder / "text").read_bytes()
    assert [problem.rule for problem in fix(folder)][0] == "empty value"
    assert (folder / ".backup" / "text").read_bytes() == before


def test_every_fix_has_a_backup_of_its_own(folder):
    """The first one holds the originals, which a later fix must not replace."""
    before = []
    for utt in ("bob-1", "ann-2"):
        edit(folder, "text", f"{utt} words of {utt}", utt)
        before.append({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})
        fix(folder)
    assert fix(folder) == []
    kept = sorted(file for file in folder.iterdir() if file.is_dir())
    assert [file.name for file in kept] == [".backup", ".backup.1"]
    assert [{file.name: file.read_bytes() for file in one.iterdir()} for one in kept] == before


def test_fix_of_a_good_directory_writes_nothing(folder):
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert fix(folder) == []
    assert times == {file: file.stat().st_mtime_ns for file in folder.iterdir()}


FILES = ["wav.scp", "text", "utt2spk", "utt2task", "spk2utt", "segments", "prompt", "text_ref2"]
PIECES = st.sampled_from(
    [*UTTS, "ann", "asr_clean", "snv", "rec1", "0", "1.5", "nan", " ", "  ", "\t", "\n", "\r\n"]
    + ["\x0b", "\x00", "\u2028", "\ufeff", "é", "/", "x|", "-"]
)
RAW = st.one_of(
    st.binary(max_size=60), st.lists(PIECES, max_size=25).map(lambda p: "".join(p).encode())
)


@settings(max_examples=75, deadline=None)
@given(st.dictionaries(st.sampled_from([*FILES, "utt2dur", "utt2num_frames", "feats_x.scp"]), RAW))
def test_fix_of_random_files(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("random")
    for name in FILES[:5]:
        (folder / name).write_bytes(files.pop(name, b"ann-1 x\n"))
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    assert_fixable(folder)


@settings(max_examples=75, deadline=None)
@given(data_dirs(), st.integers(0, 2**32), st.integers(1, 6))
def test_fix_of_damaged_directories(tmp_path_factory, data, seed, wounds):
    folder = tmp_path_factory.mktemp("damaged")
    data.write(folder)
    chance = random.Random(seed)
    for _ in range(wounds):
        damage(chance.choice(sorted(folder.iterdir())), chance)
    assert_fixable(folder)


def damage(file: Path, chance: random.Random) -> None:
    raw = file.read_bytes()
    lines = raw.splitlines(keepends=True)
    at, line = chance.randrange(len(raw) + 1), chance.randrange(max(1, len(lines)))
    junk = chance.choice(
        [b"\n", b"\r", b"\xff", b" ", b"\x0b", b"\x00", b"a", b"\t", b"\xef\xbb\xbf"]
    )
    wounds = [
        raw[:at],
        raw[:at] + junk + raw[at:],
        raw[:at] + raw[at + 1 :],
        b"".join(reversed(lines)),
        b"".join(lines + lines[line : line + 1]),
        b"".join(lines[:line] + lines[line + 1 :]),
    ]
    file.write_bytes(chance.choice(wounds))


def assert_fixable(folder):
    """Fixing leaves a valid directory, or changes nothing where nothing is good."""
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    try:
        problems = fix(folder)
    except PamError as error:
        assert "nothing was changed" in str(error) and "\n" not in str(error)
        assert before == {file.name: file.read_bytes() for file in folder.iterdir()}
        return
    left, remaining = check(folder)
    assert all(problem.warning for problem in remaining), remaining
    assert DataDir.read(folder) == left and len(left) > 0
    assert all("\n" not in str(problem) for problem in problems)
    assert all(p.remedy for p in problems)
