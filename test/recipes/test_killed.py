"""Stages 1 and 2 killed (SIGKILL) at every moment a file becomes complete: nothing half is left."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from imitations import audio_bench, audiocaps_parquet, common_voice, preparation

from pam.data import scan
from pam.data.datadir import DataDir
from pam.data.raw import dump_audio

audiocaps, snv = preparation("audiocaps"), preparation("snv")
PREPARE = {
    "audiocaps": (audiocaps, ["audiocaps_val"], lambda folder: (
        ["--audiocaps", str(audiocaps_parquet(folder / "corpus"))]
    )),
    "audiobench": (audiocaps, ["audiocaps_test_qa"], lambda folder: (
        ["--audiobench", str(audio_bench(folder / "corpus"))]
    )),
    "snv": (snv, ["snv_commonvoice_dev"], lambda folder: (
        ["--common_voice", str(common_voice(folder / "corpus")), "--audio", "flac", "--size=tiny"]
    )),
}  # fmt: skip

KEY = re.compile(rb'"[0-9a-f]{12}-[0-9a-f]{12}", ')  # of scan.jsonl: entry, size and time of files


def killed_at(renames: int, work: Callable[[], None]) -> bool:
    """Whether `work`, in a process of its own, is killed instead of its rename number `renames`."""
    pid = os.fork()
    if pid == 0:
        left, replace = [renames], os.replace

        def die_or_replace(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(*arguments, **options)

        os.replace = die_or_replace
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but those of locks, with the folder's own name and times taken out."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {
        str(file.relative_to(folder)): KEY.sub(b"", file.read_bytes().replace(bytes(folder), b""))
        for file in files
        if file.name not in (".lock", ".digest")
    }


@pytest.mark.parametrize("corpus", PREPARE)
def test_a_killed_run_leaves_nothing_half_and_resumes(tmp_path, corpus, monkeypatch):
    module, sets, make = PREPARE[corpus]
    options = make(tmp_path)
    monkeypatch.setattr(scan, "UTTERANCES_PER_TASK", 2)

    def stages(out: Path) -> None:
        module.main([*options, "--sets", *sets, "--out", str(out / "data")])
        for name in sets:
            dump_audio(out / "data" / name, out / "dump/raw" / name)

    stages(tmp_path / "reference")
    renames = 1
    while killed_at(renames, lambda: stages(tmp_path / "killed")):
        for complete in (tmp_path / "killed").rglob("wav.scp"):
            DataDir.read(complete.parent)
        renames += 1
    assert renames > 10
    assert contents(tmp_path / "killed") == contents(tmp_path / "reference")
