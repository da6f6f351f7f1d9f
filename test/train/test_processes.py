"""Training in several processes, here on CPUs: it is that of one process."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from processes import is_running, wait_for
from torch.distributed.elastic.rendezvous import RendezvousConnectionError, RendezvousTimeoutError
from toydata import make_combined

from pam.bin.average import main as average_main
from pam.bin.train import get_parser, making_of
from pam.bin.train import main as train_main
from pam.config import load_yaml
from pam.config.made import PENDING, read_record
from pam.data.scp import read_text_file, write_text_file
from pam.errors import PamError
from pam.model.build import load_experiment
from pam.train import launch
from pam.train.endings import LOST, USER_ERROR
from pam.train.trainer import load_checkpoint

HERE = str(Path(__file__).parent)

START = """
import sys
from pam.errors import run_main
from pam.train.launch import launch
run_main(lambda: launch(sys.argv[1], sys.argv[3:], int(sys.argv[2])))
"""


def start(program, options, world, **more):
    """Start a program on `world` processes of the CPU, as `--ngpu` starts them on GPUs."""
    return start_module("first_writes", [program, *options], world, **more)


def start_module(module, options, world, **more):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([HERE, *sys.path])}
    command = [sys.executable, "-c", START, module, str(world), *map(str, options)]
    return subprocess.Popen(command, env=env, text=True, **more)


def run(program, options, world):
    """Run it to its end; return what it wrote on stderr."""
    process = start(program, options, world, stderr=subprocess.PIPE)
    log = process.communicate()[1]
    assert process.returncode == 0, log
    return log


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
        (2, ["--warmup", "ctc", "--set", "phases.ctc.optim_conf.muon_lr=2e-2"]),
        (3, ["--warmup", "none", "--set", "accum_grad=2", "--set", "num_workers=1"]),
    ],
    ids=["two", "two_with_muon", "three_accumulating"],
)
def test_processes_learn_what_one_learns(uneven, tmp_path, world, more):
    """As the training is: AdamW and Muon, a prompt for each utterance, word dropout."""
    exp, options = uneven
    options = [*options, *more]
    train_main(options)
    exp.rename(tmp_path / "one")
    run("train", options, world)
    for phase in ("warmup", "train") if "ctc" in more else ("train",):
        same_weights(*(folder / phase / "last.pth" for folder in (tmp_path / "one", exp)))
    curves = [json.loads((f / "curves.json").read_text()) for f in (tmp_path / "one", exp)]
    for alone, together in zip(*curves, strict=True):
        assert alone["step"] == together["step"]
        for part in ("train", "dev"):
            assert alone[part] == pytest.approx(together[part], rel=1e-4)
    assert json.loads((exp / "peak_memory.json").read_text()).keys() == {"gpus", "resident_bytes"}


def test_processes_hear_what_one_hears(uneven, tmp_path):
    """Stage 5: the same file, of the same model."""
    exp, options = uneven
    train_main([*options, "--warmup", "none"])
    shutil.copytree(exp, tmp_path / "one")
    heard = ["--dev", options[options.index("--dev") + 1]]
    average_main(["--exp", str(tmp_path / "one"), *heard])
    run("average", ["--exp", exp, *heard], 3)
    one, many = ((f / "hearing.json").read_text() for f in (tmp_path / "one", exp))
    assert one == many


def test_processes_that_died_resume_to_the_same_bits(uneven, tmp_path):
    """Inside an epoch, with the random states of each."""
    exp, options = uneven
    options += ["--warmup", "none", "--set", "checkpoint_minutes=1e-9"]
    options += ["--set", "llm_conf.lora_dropout=0.1"]
    run("train", options, 2)
    exp.rename(tmp_path / "whole")
    assert start_module("dies", [6, *options], 2, stderr=subprocess.DEVNULL).wait() == 1
    assert torch.load(exp / "train" / "midpoint.pth", weights_only=True)["batches"] == 2
    assert not read_record(exp, "train")["complete"]
    assert "epoch 2 goes on after 2 batches" in run("train", options, 2)
    assert read_record(exp, "train")["complete"]
    whole, resumed = (load_checkpoint(f / "train/last.pth") for f in (tmp_path / "whole", exp))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    losses = [
        [(row["step"], row["dev"]["loss"]) for row in json.loads((f / "curves.json").read_text())]
        for f in (tmp_path / "whole", exp)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_processes_of_a_cpu_split_each_batch(uneven, tmp_path):
    """`--nj 2` learns what one process learns; `batch.per: gpu` does not count them."""
    exp, options = uneven
    options = [*options, *sets({"batch.per": "gpu"}), "--warmup", "none"]
    train_main(options)
    exp.rename(tmp_path / "one")
    command = [sys.executable, "-m", "pam.bin.train", *options, "--nj", "2"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert load_yaml(exp / "config.yaml")["gpus"] == 1
    same_weights(*(folder / "train" / "last.pth" for folder in (tmp_path / "one", exp)))


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--nj", "0"], "--nj 0: "), (["--nj", "2", "--ngpu", "2"], "omit --nj")],
)
def test_numbers_of_processes_that_cannot_be(setup, more, message):
    with pytest.raises(PamError, match=message):
        train_main([*setup[1], *more])


def test_accumulated_batches_learn_what_the_joint_batch_learns(uneven, tmp_path):
    """Seven utterances of one task: in one batch, and in batches of four and three."""
    exp, options = uneven
    own = tmp_path / "own"
    tasks = read_text_file(own / "utt2task")
    write_text_file(own / "utt2task", {utt: task for utt, task in tasks.items() if task == "ac"})
    options += ["--warmup", "none", "--set", "batch.max_frames=1000"]
    trained = []
    for utts, accum_grad in ((7, 1), (4, 2)):
        given = {"batch.max_utts": utts, "accum_grad": accum_grad}
        steps = ("budgets.short.steps", "budgets.short.steps_per_epoch")
        train_main([*options, *sets(given | dict.fromkeys(steps, 3 * accum_grad))])
        trained.append(exp.rename(tmp_path / str(utts)) / "train" / "last.pth")
    same_weights(*trained)


def test_a_batch_for_each_gpu_is_a_larger_batch(uneven, tmp_path):
    """Two processes with batches of 2 learn what one with batches of 4 learns."""
    exp, options = uneven
    options += ["--warmup", "none"]
    rates = [f"phases.llm.optim_conf.{name}" for name in ("lr", "lora_lr")]
    one = {"batch.max_utts": 4, "batch.max_frames": 160, rates[0]: 2e-2, rates[1]: 1e-2}
    train_main([*options, *sets(one)])
    exp.rename(tmp_path / "one")
    each = {"batch.max_utts": 2, "batch.max_frames": 80, "batch.per": "gpu"}
    each |= {rates[0]: 1e-2, rates[1]: 5e-3, "phases.llm.lr_rule": "linear"}
    run("train", [*options, *sets(each)], 2)
    assert load_yaml(exp / "config.yaml")["gpus"] == 2
    same_weights(*(folder / "train" / "last.pth" for folder in (tmp_path / "one", exp)))
    making = making_of(get_parser().parse_args([*options, *sets(each)]))
    assert making.settings["gpus"] == 2 and making.is_complete()  # for stages that need fewer GPUs
    made = json.loads((exp / "made.json").read_text())
    made["train"]["complete"] = False
    (exp / "made.json").write_text(json.dumps(made))
    with pytest.raises(PamError, match="begun on 2 GPUs.* not on 1: give --ngpu"):
        train_main([*options, *sets(each)])


SRUN = """#!/bin/sh
export SLURM_JOB_ID=$$ SLURM_STEP_NODELIST=here SLURM_STEP_NUM_NODES=2 SLURM_NTASKS=2
SLURM_NODEID=1 "$@" &
SLURM_NODEID=0 "$@" || status=$?
wait $! && exit $status
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """srun starts a command on two machines, both this one; `scontrol` names the first."""
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\necho localhost\n")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return ["srun", sys.executable, "-m", "pam.bin.train"]


def test_two_machines_learn_what_one_learns(uneven, tmp_path, slurm):
    exp, options = uneven
    options += ["--warmup", "none"]
    train_main(options)
    exp.rename(tmp_path / "one")
    command = [*slurm, *options, "--num_nodes", "2"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    same_weights(*(folder / "train" / "last.pth" for folder in (tmp_path / "one", exp)))
    assert json.loads((exp / "made.json").read_text())["train"]["complete"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "--num_nodes 3: where do they meet"),
        (
            {"JOB_ID": "7", "STEP_NUM_NODES": "1", "NTASKS": "3"},
            "srun started 3 tasks on 1 machines: give it --nodes=3 --ntasks-per-node=1",
        ),
    ],
)
def test_machines_that_cannot_meet(setup, monkeypatch, variables, message):
    _, options = setup
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(PamError, match=message):
        train_main([*options, "--num_nodes", "3"])


@pytest.mark.parametrize(
    ("variables", "master", "expected"),
    [
        ({"JOB_ID": "10007", "NODEID": "0"}, None, ("first:20007", "true")),
        ({"JOB_ID": "10007", "NODEID": "1"}, "ib0", ("ib0:20007", "false")),
        ({"JOB_ID": "10007", "NODEID": "1"}, "ib0:99", ("ib0:99", "false")),
        ({}, "host", ("host:29500", None)),
    ],
)
def test_where_machines_meet(monkeypatch, variables, master, expected):
    monkeypatch.setattr(launch, "first_host", lambda: "first")
    monkeypatch.setattr(launch.socket, "getaddrinfo", lambda *_: [])  # every name is known
    for name, value in (variables | {"STEP_NUM_NODES": "2", "NTASKS": "2"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    found = launch.meeting(2, master)
    is_host = found.get("rdzv_configs", {}).get("is_host")
    assert (found["rdzv_endpoint"], is_host) == expected


@pytest.mark.parametrize("master", ["nowhere.invalid", "localhost:port"])
def test_a_place_that_is_unknown(setup, master):
    """In one line, and at once."""
    with pytest.raises(PamError, match=f"^{master}, where the machines meet: "):
        train_main([*setup[1], "--num_nodes", "2", "--master_addr", master])


@pytest.mark.parametrize(
    ("error", "cause", "message"),
    [
        (RendezvousTimeoutError("timeout"), None, "timeout"),
        (RendezvousConnectionError("see inner exception"), TimeoutError("no\nanswer"), "no answer"),
    ],
)
def test_machines_that_do_not_meet(setup, monkeypatch, caplog, error, cause, message):
    caplog.set_level("INFO")

    def start_nothing(*_):
        raise error from cause

    monkeypatch.setattr(launch, "elastic_launch", lambda *_: start_nothing)
    expected = f"the 2 machines did not meet at localhost:29500, or lost it: {message}: "
    with pytest.raises(PamError, match=expected):
        train_main([*setup[1], "--num_nodes", "2", "--master_addr", "localhost"])
    assert "2 machines meet at localhost:29500" in caplog.text


@pytest.mark.parametrize("on_prompt", ["true", "false"])
def test_a_sharded_llm_learns_what_a_whole_one_learns(uneven, tmp_path, on_prompt):
    """In both phases, and if its layers are run again in the backward pass (here with `on_prompt`);
    its checkpoints are those of any other training."""
    exp, options = uneven
    kind = {"llm_conf.lora_on_prompt": on_prompt, "llm_conf.attention": "eager"}
    options += ["--warmup", "ctc", *sets(kind)]
    train_main(options)
    exp.rename(tmp_path / "one")
    options += sets({"llm_conf.shard": "true", "llm_conf.gradient_checkpointing": on_prompt})
    log = run("train", options, 2)
    assert log.count("the LLM's layers are sharded") == 2  # phases
    for phase in ("warmup", "train"):
        same_weights(*(folder / phase / "last.pth" for folder in (tmp_path / "one", exp)))
    shutil.copy(exp / "train" / "last.pth", exp / "model.pth")
    assert not load_experiment(exp).llm.sharded  # in a single process


def test_each_process_keeps_its_part_of_the_layers(tiny_llm):
    process = start_module("shard_bytes", [tiny_llm], 2, stdout=subprocess.PIPE)
    whole, parts = json.loads(process.communicate()[0].splitlines()[-1])
    assert process.returncode == 0
    assert sum(parts) == whole and max(parts) <= 0.55 * whole


def sets(values):
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def same_weights(one, other):
    one, other = (torch.load(file, weights_only=True) for file in (one, other))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-5, msg=name)


def test_a_mistake_in_a_process_is_one_line(setup):
    _, options = setup
    wrong = ["--set", "llm_conf.lora_targets=[nothing]"]
    process = start("train", [*options, *wrong], 2, stderr=subprocess.PIPE)
    lines = process.communicate()[1].splitlines()
    assert process.returncode == 1
    assert "Traceback" not in lines
    [said] = [line for line in lines if line.startswith("error: ")]
    assert said.startswith("error: llm_conf.lora_targets: 'nothing': known: all-linear")


@pytest.mark.parametrize(
    ("how", "status", "last"),
    [
        ("wrong", 1, "error: what is wrong"),
        ("stopped", 143, None),
        ("broken", 1, "error: process .* failed with status 1: see its messages above"),
    ],
)
def test_a_process_says_why_it_ends(how, status, last):
    """The threads of the group aborted it at its exit, half of the time."""
    for _ in range(3):
        process = start_module("fails", [how], 2, stderr=subprocess.PIPE)
        lines = process.communicate()[1].splitlines()
        assert process.returncode == status, lines
        assert re.fullmatch(last, lines[-1]) if last else not lines, lines


def test_a_process_that_was_only_asked_says_that_there_is_work(uneven, tmp_path):
    (tmp_path / "own" / "wav.scp").touch()  # stage 3 is complete
    process = start("train", [*uneven[1], "--pending"], 2, stderr=subprocess.PIPE)
    assert (
        process.communicate()[1]
        .splitlines()[-1]
        .endswith(f"failed with status {PENDING}: see its messages above")
    )


def test_no_thread_aborts_a_process_that_has_done_its_work():
    """As threads of the group did, in Python's finalisation."""
    done = start_module("aborts_late", [], 2, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    written, log = done.communicate()
    assert done.returncode == 0, log
    assert sorted(written) == ["0", "1"]


@pytest.mark.parametrize("where", [0, 1])
def test_a_process_that_lost_the_connection_is_not_the_one_to_name(where):
    """Torchrun notices both at once; the times of messages are whole seconds."""
    lost = SimpleNamespace(exitcode=1, timestamp=7, message=f"{LOST}: gloo")
    ended = SimpleNamespace(exitcode=-signal.SIGTERM, timestamp=6, message="")
    own = SimpleNamespace(exitcode=1, timestamp=7, message=f"{USER_ERROR}what is wrong")
    failures = {2: ended, where: own, 1 - where: lost}
    assert launch.origin(failures) == where
    assert launch.reason(failures) == "what is wrong"


@pytest.mark.parametrize(
    ("exitcode", "message", "expected"),
    [
        (1, f"{USER_ERROR}utt7: a truncated file", "utt7: a truncated file"),
        (1, "", "process 1 of the training failed with status 1: see its messages above"),
        (-signal.SIGKILL, "", "process 1 of the training was ended by SIGKILL, perhaps for lack"),
    ],
)
def test_a_process_that_torchrun_killed_is_not_the_one_to_name(exitcode, message, expected):
    """Processes that wait for NCCL notice neither the lost one nor SIGTERM."""
    waiting = SimpleNamespace(exitcode=-signal.SIGKILL, timestamp=37, message="")
    own = SimpleNamespace(exitcode=exitcode, timestamp=7, message=message)
    assert launch.reason({0: waiting, 1: own, 2: waiting}).startswith(expected)


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
