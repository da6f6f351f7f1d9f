"""test/slow.txt names tests that exist."""

from pathlib import Path

import pytest

TEST = Path(__file__).resolve().parents[1]
LINES = (TEST / "slow.txt").read_text().splitlines()


@pytest.mark.parametrize("line", LINES)
def test_slow_tests_exist(line):
    seconds, name = line.split()
    file, *_, function = name.split("::")  # maybe with a class between them
    assert float(seconds) >= 1
    assert f"def {function}(" in (TEST / file).read_text()
