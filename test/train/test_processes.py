"""Training in several processes, here on CPUs: it is that of one process."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from processes import is_running, wait_for
from toydata import make_combined

from pam.bin.train import main as train_main
from pam.data.scp import read_text_file, write_text_file
from pam.errors import UserError
from pam.train.launch import meeting

HERE = str(Path(__file__).parent)

START = """
import sys
from pam.errors import run_main
from pam.train.launch import launch
module, world, machines, master, *argv = sys.argv[1:]
run_main(lambda: launch(module, argv, int(world), int(machines), master))
"""


def start(program, options, world, machines=1, master="", **more):
    """Start a program on `world` processes of the CPU, as `--ngpu` starts them on GPUs."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([HERE, *sys.path])}
    place = ["first_writes", str(world), str(machines), master]
    command = [sys.executable, "-c", START, *place, program, *options]
    return subprocess.Popen(command, env=env, text=True, **more)


def run(program, options, world):
    process = start(program, options, world)
    assert process.wait() == 0


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
def test_processes_learn_what_one_learns(uneven, tmp_path, world, more):
    """As the training is: AdamW, a prompt for each utterance, word dropout."""
    exp, options = uneven
    options = [*options, *more]
    train_main(options)
    exp.rename(tmp_path / "one")
    run("train", options, world)
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


def test_a_batch_for_each_gpu_is_the_whole_batch_of_one(uneven, tmp_path):
    """Two batches of two utterances are one of four, here with twice the rates."""
    exp, options = uneven
    options += ["--warmup", "none", "--set", "batch.max_frames=1000"]
    rates = ["--set", "phases.llm.optim_conf={lr: 2e-2, lora_lr: 1e-2}"]
    train_main([*options, "--set", "batch.max_utts=4", *rates])
    exp.rename(tmp_path / "one")
    rule = ["--set", "phases.llm.lr_rule=linear"]
    run("train", [*options, "--set", "batch.max_utts=2", "--set", "batch.per=gpu", *rule], 2)
    assert yaml.safe_load((exp / "config.yaml").read_text())["gpus"] == 2
    one, two = (
        torch.load(folder / "train" / "last.pth", weights_only=True)
        for folder in (tmp_path / "one", exp)
    )
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-5, msg=name)


def test_two_machines_meet_and_train_together(setup, tmp_path):
    """Both are this one. Each of them starts one process."""
    exp, options = setup
    options += ["--warmup", "none"]
    train_main(options)
    exp.rename(tmp_path / "one")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        master = f"localhost:{free.getsockname()[1]}"
    both = [start("train", options, 1, 2, master) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    one, two = (
        torch.load(folder / "train" / "last.pth", weights_only=True)
        for folder in (tmp_path / "one", exp)
    )
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-5, msg=name)


def test_where_machines_meet(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="--num_nodes 2: where do they meet?"):
        meeting(2, None)
    assert meeting(2, "node1") == {"rdzv_endpoint": "node1:29500", "run_id": "pam"}
    assert meeting(2, "node1:7")["rdzv_endpoint"] == "node1:7"
    step = {"JOB_ID": "12345", "STEP_NUM_NODES": "2", "NTASKS": "2", "NODEID": "1"}
    for name, value in (step | {"STEP_NODELIST": "n[3-4]"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\n[ \"$*\" = 'show hostnames n[3-4]' ] && printf 'n3\\nn4\\n'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = meeting(2, None)
    assert found["rdzv_endpoint"] == "n3:22345" and found["run_id"] == "12345"
    assert found["rdzv_configs"] == {"is_host": "false"}
    with pytest.raises(UserError, match="give it --nodes=3 --ntasks-per-node=1"):
        meeting(3, None)


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


def test_a_mistake_in_a_process_is_one_line(setup):
    _, options = setup
    wrong = ["--set", "llm_conf.lora_targets=[nothing]"]
    process = start("train", [*options, *wrong], 2, stderr=subprocess.PIPE)
    lines = process.communicate()[1].splitlines()
    assert process.returncode == 1
    assert "Traceback" not in lines
    [said] = [line for line in lines if line.startswith("error: ")]
    assert said.startswith("error: llm_conf.lora_targets: 'nothing': known: all-linear")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others(setup, tmp_path, rank):
    """Within a minute, with one line, and nothing of the job is left."""
    exp, options = setup
    endless = ["--set", "budgets.short.steps=4000", "--warmup", "none"]
    with (tmp_path / "log").open("w") as log:
        process = start("train", [*options, *endless], 2, stderr=log)
    assert wait_for((exp / "train" / "1epoch.pth").is_file)
    started = {place(pid): pid for pid in children(process.pid) if place(pid) is not None}
    assert started.keys() == {"0", "1"}
    everyone = children(process.pid)
    os.kill(started[str(rank)], signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert wait_for(lambda: not any(map(is_running, everyone)), seconds=1)
    *_, before, last = (tmp_path / "log").read_text().splitlines()
    assert "Error" not in before
    assert [last] == [
        f"error: process {rank} of the training was ended by SIGKILL, perhaps for lack of memory: "
        "the same command resumes"
    ]


def children(pid):
    """All processes below a process."""
    below = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            below += [child, *children(child)]
    return below


def place(pid):
    """The rank of a process of a training; None for others, such as its workers."""
    if b"first_writes" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        return None
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(v.partition("=")[::2] for v in variables).get("RANK")
