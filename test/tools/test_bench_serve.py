"""The benchmark of the server refuses a choice of no clip before it starts a server."""

import re
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from pam.data.scp import write_text_file  # noqa: E402
from pam.errors import PamError  # noqa: E402
from tools import bench_serve  # noqa: E402


@pytest.mark.parametrize(
    ("seconds", "options", "message"),
    [
        ({}, [], "no clip: give --data a set with audio"),
        ({"ann-1": "3.0"}, ["--longest", "1.5"], "no clip has at most 1.5 s: give a larger"),
        ({"ann-1": "3.0"}, ["--requests", "0"], "--requests 0: give at least 1"),
    ],
)
def test_no_clip_is_one_line(tmp_path, capsys, seconds, options, message):
    for name, value in (
        ("wav.scp", "ann-1.wav"),
        ("text", "words"),
        ("utt2spk", "ann"),
        ("utt2task", "asr_clean"),
    ):
        write_text_file(tmp_path / name, dict.fromkeys(seconds, value))
    write_text_file(tmp_path / "spk2utt", {"ann": "ann-1"} if seconds else {})
    if seconds:
        write_text_file(tmp_path / "utt2dur", seconds)
    with pytest.raises(PamError, match=re.escape(message)) as error:
        bench_serve.main(["--exp", "exp/x", "--data", str(tmp_path), *options])
    assert "\n" not in str(error.value) and capsys.readouterr().out == ""
