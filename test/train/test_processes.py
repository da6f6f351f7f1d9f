"""Training in several processes, here on CPUs: it is that of one process."""

import argparse
import json
import subprocess
import sys

import pytest
import torch
from espnet2.tasks.abs_task import AbsTask
from torch.multiprocessing import ProcessExitedException
from toydata import make_combined

from pam.bin.train import main as train_main
from pam.data.scp import read_text_file, write_text_file
from pam.errors import UserError
from pam.train import phases
from pam.train.task import PaMTask, run_task

# Of several processes the first one alone writes files of the experiment: two that write the same
# one take each other's unfinished file away.
RANK = """
import json, sys
from pathlib import Path
from pam.train.task import run_task

options = json.loads(sys.argv[1])
if options["dist_rank"]:
    def replace(path, target):
        raise AssertionError(f"rank {options['dist_rank']} writes {target}")
    Path.replace = replace
run_task(options)
"""


def start(world):
    """In place of `run_task`: what ESPnet starts on `world` GPUs, on the CPU."""

    def start(options):
        assert options["ngpu"] == world and options["multiprocessing_distributed"]
        meet = f"file://{options['output_dir']}.meet"
        options |= {"ngpu": 0, "multiprocessing_distributed": False, "dist_backend": "gloo"}
        options |= {"dist_world_size": world, "dist_init_method": meet}
        ranks = [json.dumps(options | {"dist_rank": rank}) for rank in range(world)]
        started = [subprocess.Popen([sys.executable, "-c", RANK, rank]) for rank in ranks]
        assert [process.wait() for process in started] == [0] * world

    return start


@pytest.fixture
def uneven(setup, combined, tmp_path):
    """Options of a training with word dropout: utterances of a task have unlike numbers of tokens,
    and some batches a single utterance."""
    exp, options = setup
    own = make_combined(tmp_path / "own", count=7)
    words = {utt: " ".join([utt[:3]] * (1 + int(utt[-1]))) for utt in read_text_file(own / "text")}
    write_text_file(own / "text", words)
    options = [str(own) if option == str(combined) else option for option in options]
    return exp, [*options, "--set", "model_conf.word_dropout=0.3"]


@pytest.mark.parametrize(
    "world, more",
    [
        (2, ["--warmup", "ctc"]),
        (3, ["--warmup", "none", "--set", "accum_grad=2", "--set", "num_workers=1"]),
    ],
    ids=["two", "three_accumulating"],
)
def test_processes_learn_what_one_learns(uneven, tmp_path, monkeypatch, world, more):
    """As the training is: AdamW, a prompt for each utterance, word dropout."""
    exp, options = uneven
    options = [*options, *more]
    train_main(options)
    exp.rename(tmp_path / "one")
    monkeypatch.setattr(phases, "run_task", start(world))
    train_main([*options, "--ngpu", str(world)])
    for phase in ("warmup", "train") if "ctc" in more else ("train",):
        one, many = (
            torch.load(folder / phase / "last.pth", weights_only=True)
            for folder in (tmp_path / "one", exp)
        )
        assert one.keys() == many.keys()
        for name in one:
            torch.testing.assert_close(many[name], one[name], rtol=0, atol=1e-5, msg=name)
    curves = [json.loads((f / "curves.json").read_text()) for f in (tmp_path / "one", exp)]
    for alone, together in zip(*curves, strict=True):
        assert alone["step"] == together["step"]
        for part in ("train", "dev"):
            assert alone[part] == pytest.approx(together[part], rel=1e-4)
    assert json.loads((exp / "peak_memory.json").read_text()).keys() == {"gpus", "resident_bytes"}


def test_accumulated_batches_learn_what_the_joint_batch_learns(uneven, tmp_path):
    """Seven utterances of one task: in one batch, and in batches of four and three."""
    exp, options = uneven
    own = tmp_path / "own"
    tasks = read_text_file(own / "utt2task")
    write_text_file(own / "utt2task", {utt: task for utt, task in tasks.items() if task == "ac"})
    options += ["--warmup", "none", "--set", "batch.max_frames=1000"]
    trained = []
    for utts, accum_grad in ((7, 1), (4, 2)):
        sets = {"batch.max_utts": utts, "accum_grad": accum_grad}
        sets |= dict.fromkeys(
            ("budgets.short.steps", "budgets.short.steps_per_epoch"), 3 * accum_grad
        )
        train_main([*options, *(part for k, v in sets.items() for part in ("--set", f"{k}={v}"))])
        trained.append(torch.load(exp / "train" / "last.pth", weights_only=True))
        exp.rename(tmp_path / str(utts))
    for name, weight in trained[0].items():
        torch.testing.assert_close(trained[1][name], weight, rtol=0, atol=1e-5, msg=name)


def test_a_mistake_in_a_process_is_one_line(monkeypatch, capsys):
    def wrong(args):
        raise UserError("llm_conf.path: nowhere")

    monkeypatch.setattr(AbsTask, "main_worker", wrong)
    with pytest.raises(SystemExit, match="1"):
        PaMTask.main_worker(argparse.Namespace(multiprocessing_distributed=True))
    assert capsys.readouterr().err == "error: llm_conf.path: nowhere\n"

    def ended(args):
        raise ProcessExitedException("process 0 terminated with exit code 1", 0, 1, 1)

    monkeypatch.setattr(PaMTask, "main", ended)
    with pytest.raises(UserError, match="on 2 GPUs: process 0 terminated with exit code 1"):
        run_task({"ngpu": 2})
