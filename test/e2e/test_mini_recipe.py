"""The mini recipe as a user runs it, with real weights and audio, at its smallest."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pam.config import load_yaml
from pam.config.made import stage_seconds
from pam.paths import conf_file

pytestmark = [pytest.mark.slow, pytest.mark.models, pytest.mark.corpora]

RECIPE = Path(__file__).resolve().parents[2] / "egs/mini"
ENCODERS = list(load_yaml(conf_file("scale", "mini"))["encoders"])
TRAIN = ["asr_clean_train", "asr_noisy_train", "snv_train", "ac_train"]
DEV = ["asr_clean_dev", "asr_noisy_dev", "snv_dev", "ac_dev"]
TEST = ["asr_clean_test", "asr_noisy_test", "snv_test_real", "ac_test_unseen"]
NAME = "pam_mini_tiny_s0"


class Run:
    """The recipe in a folder of its own: data, dump and exp of its runs."""

    def __init__(self, folder: Path):
        self.folder = folder

    def start(self, *options: str) -> subprocess.Popen:
        env = os.environ | {"OMP_NUM_THREADS": "1"}  # other tests run beside it
        places = [f"--{kind}dir={self.folder / kind}" for kind in ("data", "dump", "exp")]
        sets = [f"--train_sets={' '.join(TRAIN)}", f"--dev_sets={' '.join(DEV)}"]
        sets += [f"--test_sets={' '.join(TEST)}"]
        sets += ["--train_args=--set prompt_bank=16"]
        return subprocess.Popen(
            [RECIPE / "run.sh", "--config", "conf/tiny.conf", "--python", sys.executable]
            + places + sets + list(options),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    def __call__(self, *options: str) -> str:
        process = self.start(*options)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output

    def kill_when(self, condition, *options: str) -> None:
        """Start, and end run.sh with SIGKILL as soon as `condition` holds."""
        process = self.start(*options)
        while not condition():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=300)  # returns once no child holds the output open


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All eight stages, finished."""
    run = Run(tmp_path_factory.mktemp("mini run"))
    run()
    return run


def contents(folder: Path) -> dict[str, str]:
    """{file: checksum}"""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_results(run):
    exp = run.folder / "exp" / NAME
    results = json.loads((exp / "results.json").read_text())
    assert (results["system"], results["scale"], results["seed"]) == ("pam", "mini", 0)
    assert sorted(results["sets"]) == sorted(TEST)
    metrics = {name: entry["metric"] for name, entry in results["sets"].items()}
    assert metrics["asr_clean_test"] == metrics["asr_noisy_test"] == "wer"
    assert (metrics["snv_test_real"], metrics["ac_test_unseen"]) == ("accuracy", "meteor")
    for name, entry in results["sets"].items():
        answers = (exp / "greedy_unseen" / name / "hyp.jsonl").read_text().splitlines()
        assert entry["count"] == len(answers) > 0
        low, high = entry["ci95"]
        assert 0 <= low <= entry["value"] <= high
    wer = results["sets"]["asr_clean_test"]
    assert wer["value"] == pytest.approx(100 * wer["errors"] / wer["ref_words"], abs=1e-3)
    assert results["router"]["unseen"]["count"] == 600
    assert (exp / "RESULTS.md").read_text().count("\n| ") > 20
    page = (exp / "report.html").read_text()
    assert '"clip":0' in page and len(page) < 15e6


def test_dump(run):
    for name in TRAIN + DEV + TEST:
        utts = (run.folder / "dump/raw" / name / "text").read_text().splitlines()
        for encoder in ENCODERS:
            feats = (run.folder / "dump" / encoder / name / "feats.scp").read_text().splitlines()
            assert [line.split()[0] for line in feats] == [line.split()[0] for line in utts]


def test_seconds(run):
    seconds = stage_seconds(run.folder / "exp" / NAME)
    stages = ["data", "dump", "combine", "train", "average", "decode", "score", "report"]
    assert list(seconds) == stages
    assert all(seconds[stage] > 0 for stage in ("dump", "train", "decode"))


def results_written(folder: Path) -> dict[Path, int]:
    """{file: when it was written} of what takes long: states, weights, answers."""
    files = (file for kind in ("*.ark", "*.pth", "hyp.jsonl") for file in folder.rglob(kind))
    return {file: file.stat().st_mtime_ns for file in files}


def test_again_does_nothing_and_changes_nothing(run):
    before = contents(run.folder / "exp"), contents(run.folder / "dump")
    written = results_written(run.folder)
    run()
    assert (contents(run.folder / "exp"), contents(run.folder / "dump")) == before
    assert results_written(run.folder) == written and len(written) > 10


def test_a_dump_that_was_killed_resumes(run, tmp_path):
    name = "asr_clean_train"
    only = [f"--dumpdir={tmp_path / 'dump'}", f"--train_sets={name}", "--dev_sets=", "--test_sets="]
    only += ["--stage=2", "--stop_stage=2"]
    states = tmp_path / "dump" / ENCODERS[0] / name
    run.kill_when(lambda: (states / ".parts").is_dir(), *only)
    assert not (states / "feats.scp").exists()
    run(*only)
    wanted = run.folder / "dump" / ENCODERS[0] / name
    arks = [file.name for file in wanted.glob("feats.*.ark")]
    assert arks
    for ark in arks:
        assert (states / ark).read_bytes() == (wanted / ark).read_bytes()
