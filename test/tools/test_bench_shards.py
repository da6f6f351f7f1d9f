"""The comparison of files and shards: it reads all clips both ways."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from tools import bench_shards  # noqa: E402


def test_it_compares_both_ways_of_reading(tmp_path, capsys, monkeypatch):
    read = []
    load_audio = bench_shards.load_audio
    monkeypatch.setattr(bench_shards, "load_audio", lambda e: read.append(e) or load_audio(e))
    options = ["--clips", "120", "--seconds", "0.1", "--rounds", "2", "--size", "50K"]
    assert bench_shards.main([*options, "--out", str(tmp_path)]) == 0
    assert len(read) == 2 * 2 * 2 * 120 and len(set(read)) == 2 * 120
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| cold", "| warm"]
    assert all(float(line.split(" | ")[3].rstrip(" |")) > 0 for line in lines[2:4])
    assert lines[-1].startswith("120 files take ")
