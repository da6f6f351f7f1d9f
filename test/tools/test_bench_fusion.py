"""The benchmark of the fusion compares two orders that give the same features."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from pam.errors import PamError  # noqa: E402
from tools import bench_fusion  # noqa: E402


def test_both_orders_give_the_same_features(capsys):
    bench_fusion.main(["--clips", "2", "--frames", "9", "--rounds", "1"])
    rows = [line.split("|")[1:5] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ["states projected first", "sums first"]
    assert float(rows[0][3]) < 1e-4


def test_a_scale_without_the_choice_is_one_line():
    with pytest.raises(PamError, match="--scale paper: no adapter of PaM projects its states"):
        bench_fusion.main(["--scale", "paper", "--rounds", "1"])
