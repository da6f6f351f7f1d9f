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
from pam.data.scp import read_table, write_table
from pam.errors import UserError
from pam.train import phases
from pam.train.task import PaMTask, run_task

RANK = """
import json, sys
from pam.train.task import run_task
run_task(json.loads(sys.argv[1]))
"""


def two_processes(options):
    """In place of `run_task`: what ESPnet starts on two GPUs, on the CPU."""
    assert options["ngpu"] == 2 and options["multiprocessing_distributed"]
    meet = f"file://{options['output_dir']}.meet"
    options |= {"ngpu": 0, "multiprocessing_distributed": False, "dist_backend": "gloo"}
    options |= {"dist_world_size": 2, "dist_init_method": meet, "optim": "sgd"}
    ranks = [json.dumps(options | {"dist_rank": rank}) for rank in range(2)]
    started = [subprocess.Popen([sys.executable, "-c", RANK, rank]) for rank in ranks]
    assert [process.wait() for process in started] == [0, 0]


def test_two_processes_learn_what_one_learns(setup, combined, tmp_path, monkeypatch):
    """Every batch is of one task, and its shares are of unlike numbers of tokens.

    SGD, for Adam makes a step of the rounding where a gradient is nothing else. The prompt is the
    same for all of a batch: the router's loss is weighted by tokens over processes, as the answers'
    is.
    """
    exp, options = setup
    own = make_combined(tmp_path / "own")
    words = {utt: " ".join([utt[:3]] * (1 + int(utt[-1]))) for utt in read_table(own / "text")}
    write_table(own / "text", words)
    options = [str(own) if option == str(combined) else option for option in options]
    options += ["--set", "prompts_per_batch=1"]
    monkeypatch.setattr(phases, "run_task", lambda plain: run_task(plain | {"optim": "sgd"}))
    train_main(options)
    exp.rename(tmp_path / "one")
    monkeypatch.setattr(phases, "run_task", two_processes)
    train_main([*options, "--ngpu", "2"])
    for phase in ("warmup", "train"):
        one, two = (
            torch.load(folder / phase / "last.pth", weights_only=True)
            for folder in (tmp_path / "one", exp)
        )
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5, msg=name)
    curves = [json.loads((f / "curves.json").read_text()) for f in (tmp_path / "one", exp)]
    for alone, together in zip(*curves, strict=True):
        assert alone["step"] == together["step"]
        assert alone["dev"]["loss"] == pytest.approx(together["dev"]["loss"], rel=1e-4)
    assert json.loads((exp / "peak_memory.json").read_text()).keys() == {"gpus", "resident_bytes"}


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
