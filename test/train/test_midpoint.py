"""A training that is ended inside an epoch goes on there, to the same bits."""

import itertools
import os
import random
import signal
import sys

import pytest
import torch

from pam.bin.train import main as train_main
from pam.train import midpoint
from pam.train.trainer import load_checkpoint

TIMES = ("_time", "time")  # statistics of the clock
KILLS = 20


def differences(one, other, place=""):
    """Where nested containers of tensors and values differ, bit for bit."""
    if isinstance(one, dict):
        one, other = ({str(k): v for k, v in side.items()} for side in (one, other))
        if one.keys() != other.keys():
            return [f"{place}: {one.keys() ^ other.keys()}"]
        return [d for k in one for d in differences(one[k], other[k], f"{place}/{k}")]
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return [d for i, pair in enumerate(pairs) for d in differences(*pair, f"{place}/{i}")]
    equal = torch.equal(one, other) if torch.is_tensor(one) else one == other or one != one
    return [] if equal else [f"{place}: {one}, {other}"]


def without_times(checkpoint):
    stats = checkpoint["reporter"]["stats"]
    for parts in stats.values():
        for values in parts.values():
            for name in [name for name in values if name.endswith(TIMES)]:
                del values[name]
    return checkpoint


def assert_same_training(one, other):
    for phase in ("warmup", "train"):
        for name in ("checkpoint.pth", "last.pth"):
            files = (exp / phase / name for exp in (one, other))
            first, second = (load_checkpoint(file) for file in files)
            if name == "checkpoint.pth":
                first, second = without_times(first), without_times(second)
            assert differences(first, second, phase) == []
        assert not (other / phase / midpoint.FILE).exists()


def train_in_child(options, calls=0):
    """Train in a process that kills itself at the `calls`-th call of a Python function since it
    began an epoch (0: never). Whether it trained to the end."""
    child = os.fork()
    if child == 0:
        count = itertools.count(1)

        def kill(_frame, event, _arg):
            if event == "call" and next(count) == calls:
                os.kill(os.getpid(), signal.SIGKILL)

        resume, status = midpoint.Midpoint.resume, 1

        def begin(self, state):
            sys.setprofile(kill if calls else None)
            return resume(self, state)

        midpoint.Midpoint.resume = begin
        try:
            status = train_main(options)
            sys.setprofile(None)
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


@pytest.fixture
def long(setup, tmp_path):
    """Options of a training with accumulation and dropout, and its uninterrupted twin."""
    torch.set_num_threads(1)  # else a forked process may wait for threads that it does not have
    exp, options = setup
    options += ["--set", "accum_grad=2", "--set", "model_conf.word_dropout=0.3"]
    options += ["--set", "llm_conf.lora_dropout=0.1", "--set", "budgets.short.steps_per_epoch=6"]
    options += ["--set", "budgets.short.steps=24"]
    twin = tmp_path / "twin"
    train_main([str(twin) if option == str(exp) else option for option in options])
    return exp, options, twin


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("update", [1, 2, 3])
def test_a_signal_stops_after_an_update(long, monkeypatch, stop, update):
    exp, options, twin = long
    agreed, calls = midpoint.Midpoint.agreed, []

    def agree(self):
        calls.append(self)
        if len(calls) == update + 1:  # the first call is before the first batch
            os.kill(os.getpid(), stop)
        return agreed(self)

    monkeypatch.setattr(midpoint.Midpoint, "agreed", agree)
    with pytest.raises(SystemExit) as ended:
        train_main(options)
    assert ended.value.code == 128 + stop and ended.value.code in midpoint.STOPPED
    assert torch.load(exp / "warmup" / midpoint.FILE, weights_only=True)["batches"] == 2 * update
    train_main(options)
    assert_same_training(twin, exp)


def test_twenty_kills_anywhere_change_nothing(long):
    """In a step, in a save, between epochs, between the batches of an update, while loading."""
    exp, options, twin = long
    options = [*options, "--set", "checkpoint_minutes=1e-9"]  # a midpoint after every update
    moments, resumed = random.Random(0), set()
    for _ in range(KILLS):
        calls = 1 + int(moments.random() * moments.choice([20_000, 60_000, 300_000]))
        assert not train_in_child(options, calls)  # else it ended, after fewer kills
        for file in exp.glob(f"*/{midpoint.FILE}"):
            found = torch.load(file, weights_only=True)
            resumed.add((file.parent.name, found["epoch"], found["batches"]))
    assert train_in_child(options)
    assert_same_training(twin, exp)
    assert len(resumed) > 5
