"""A training that is ended inside an epoch goes on there, to the same bits."""

import errno
import itertools
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
import readers
import torch
from processes import locked_by_another
from toydata import make_combined

from pam.bin.train import main as train_main
from pam.data.scp import read_text_file, write_text_file
from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.train import belonging, endings, midpoint, signals, task
from pam.train.endings import readers_explained
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


def stop_after(monkeypatch, file, batches, number=signal.SIGTERM):
    """Send a signal to this process once the phase of `file` has made so many batches."""
    agreed, calls = midpoint.Midpoint.agreed, itertools.count()

    def agree(self):
        if self.file == file and next(calls) == batches:  # the first call is before any batch
            os.kill(os.getpid(), number)
        return agreed(self)

    monkeypatch.setattr(midpoint.Midpoint, "agreed", agree)


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


@pytest.mark.parametrize(("number", "updates"), [*zip(signals.SIGNALS, (1, 3), strict=True)])
def test_a_signal_stops_after_an_update(long, monkeypatch, number, updates):
    exp, options, twin = long
    file = exp / "warmup" / midpoint.FILE
    with monkeypatch.context() as once, pytest.raises(SystemExit) as ended:
        stop_after(once, file, updates, number)
        train_main(options)
    assert ended.value.code == 128 + number and ended.value.code in signals.STOPPED
    assert torch.load(file, weights_only=True)["batches"] == 2 * updates
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


@pytest.mark.parametrize(
    ("name", "phase"),
    [("order of experts", "train"), ("vocabulary", "warmup"), ("encoders", "train")],
)
def test_a_checkpoint_of_something_else_is_refused(setup, monkeypatch, name, phase):
    """In the first epoch of the phase, which has a midpoint only, and after it."""
    exp, options = setup
    file, belonging = exp / phase / midpoint.FILE, task.belonging
    monkeypatch.setattr(task, "belonging", lambda *of: belonging(*of) | {name: "another"})
    for after in (1, 5):
        with monkeypatch.context() as own:
            own.setattr(task, "belonging", belonging)
            stop_after(own, file, after)
            with pytest.raises(SystemExit):
                train_main(options)
        with pytest.raises(PamError, match=f"{phase}/.*pth: was trained with other {name}: "):
            train_main(options)


def test_what_a_checkpoint_belongs_to(tiny_model, tmp_path):
    """Other tokens, experts in another order, other weights of an encoder, other texts."""
    train = make_combined(tmp_path / "train")
    found = belonging.belonging(tiny_model, train)
    assert found["order of experts"] == list(tiny_model.tasks)
    write_text_file(train / "text", dict.fromkeys(read_text_file(train / "text"), "other"))
    again = belonging.belonging(tiny_model, train)
    assert [name for name in found if found[name] != again[name]] == ["training data"]
    tiny_model.tokenizer.add_tokens(["zzz"])
    again = belonging.belonging(tiny_model, train)
    assert found["vocabulary"] != again["vocabulary"]


def test_a_second_training_in_a_folder_is_refused(setup):
    exp, options = setup
    with (
        locked_by_another(exp, "training"),
        pytest.raises(PamError, match=r"another training is running \(proc"),
    ):
        train_main(options)
    train_main(options)


def test_a_full_disk_loses_nothing(setup, monkeypatch):
    """The kernel refuses to write more than a limit, in the middle of the second midpoint."""
    exp, options = setup
    save, calls = midpoint.Midpoint.save, []

    def save_on_a_full_disk(self, *of):
        calls.append(self)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            save(self, *of)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    options += ["--set", "checkpoint_minutes=1e-9"]
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with monkeypatch.context() as full:
        full.setattr(midpoint.Midpoint, "save", save_on_a_full_disk)
        with pytest.raises(PamError, match="midpoint.pth: cannot be written: "):
            train_main(options)
    signal.signal(signal.SIGXFSZ, before)
    assert torch.load(exp / "warmup" / midpoint.FILE, weights_only=True)["batches"] == 1
    assert [file.name for file in (exp / "warmup").glob("*.part")] == []
    train_main(options)


def test_a_clock_that_jumps_changes_nothing(setup, monkeypatch):
    """Midpoints are due by a clock that nobody sets: here after every update."""
    _, options = setup
    save, saved = midpoint.Midpoint.save, []

    def count(self, state, batches):
        saved.append(self.file.parent.name)
        save(self, state, batches)

    monkeypatch.setattr(midpoint.Midpoint, "save", count)
    monkeypatch.setattr(time, "time", itertools.count(2e9, -1e6).__next__)
    train_main([*options, "--set", "checkpoint_minutes=1e-9"])
    assert saved == ["warmup"] * 8 + ["train"] * 12


def test_a_skipped_update_is_in_the_midpoint_after_it(setup, monkeypatch, tmp_path):
    """Its gradient is not finite, so the schedule has one update fewer."""
    exp, options = setup
    plain, calls = CausalLM.logits, []

    def logits(self, hidden):
        calls.extend([1] if torch.is_grad_enabled() else [])
        return plain(self, hidden) * (torch.nan if len(calls) == 2 else 1)

    options = [*options, "--warmup", "none"]
    twin = tmp_path / "twin"
    with monkeypatch.context() as once:
        once.setattr(CausalLM, "logits", logits)
        train_main([str(twin) if option == str(exp) else option for option in options])
        calls.clear()
        stop_after(once, exp / "train" / midpoint.FILE, 2)
        with pytest.raises(SystemExit):
            train_main(options)
    train_main(options)
    one, other = (load_checkpoint(e / "train" / "checkpoint.pth") for e in (twin, exp))
    assert differences(without_times(one), without_times(other)) == []
    assert one["schedulers"][0]["total_steps"] == 11


def test_a_signal_for_the_processes_that_read_is_no_error(setup, monkeypatch, tmp_path):
    """Slurm sends it to them too; the training needs their batches for its last update."""
    exp, options = setup
    twin = tmp_path / "twin"
    train_main([str(twin) if option == str(exp) else option for option in options])
    with monkeypatch.context() as once:
        once.setattr(midpoint.Midpoint, "agreed", readers.signalling(signal.SIGTERM))
        train_main([*options, "--set", "num_workers=2"])
    assert_same_training(twin, exp)


def test_a_reader_that_was_killed_is_one_line(setup):
    exp, options = setup
    command = [sys.executable, readers.__file__, *map(str, options), "--set", "num_workers=1"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.match("error: a process that reads data .* lower", last), done.stderr[-3000:]
    train_main(options)


@pytest.fixture
def handler():
    """PyTorch's handler of SIGCHLD after a reader was killed: it raises once, wherever it is."""
    errors = [RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")]

    def raises(number, frame):
        if errors:
            raise errors.pop()

    before = signal.signal(signal.SIGCHLD, raises)
    yield raises
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback …"),
        FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.\nOriginal …"),
        RuntimeError("Too many open files. Communication with the workers is no longer possible."),
        OSError(errno.EMFILE, "Too many open files"),
    ],
)
def test_other_errors_of_readers_do_not_say_that_one_was_killed(handler, error):
    def _try_get_data():
        raise error

    with pytest.raises(type(error), match=re.escape(str(error))), readers_explained():
        _try_get_data()
    assert signal.getsignal(signal.SIGCHLD) is handler  # the next killed reader is still noticed


def test_a_connection_that_breaks_while_a_batch_is_taken(handler):
    def _try_get_data():
        raise EOFError

    with pytest.raises(PamError, match="lower num_workers"), readers_explained():
        _try_get_data()
    with pytest.raises(EOFError), readers_explained():  # of something else
        raise EOFError


@pytest.mark.parametrize("place", ["_ignore_readers", "_is_of_killed_reader"])
def test_pytorchs_handler_raises_while_an_error_is_explained(handler, monkeypatch, place):
    def _try_get_data():
        raise ConnectionResetError

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGCHLD)
        return work(*arguments)

    work = getattr(endings, place)
    monkeypatch.setattr(endings, place, interrupted)
    with pytest.raises(PamError, match="lower num_workers"), readers_explained():
        _try_get_data()


def test_an_error_of_a_reader_is_one_line(setup, tmp_path):
    """An archive that has vanished: the DataLoader adds the traceback of its process."""
    exp, options = setup
    own = make_combined(tmp_path / "own")
    options = [*options, "--train", str(own), "--set", "num_workers=1"]
    for archive in own.rglob("*.ark"):
        archive.unlink()
    with pytest.raises(PamError) as ended:
        train_main(options)
    assert "\n" not in str(ended.value) and ".ark" in str(ended.value)


def test_a_signal_after_the_last_batch_of_a_phase_stops_before_the_next(long, monkeypatch):
    exp, options, twin = long
    remove = midpoint.Midpoint.remove

    def remove_late(self):
        if self.file.parent.name == phase:
            os.kill(os.getpid(), signal.SIGTERM)
        remove(self)

    for phase in ("warmup", "train"):
        with monkeypatch.context() as once, pytest.raises(SystemExit) as ended:
            once.setattr(midpoint.Midpoint, "remove", remove_late)
            train_main(options)
        assert ended.value.code == 143
        assert (exp / phase / "checkpoint.pth").exists()
        assert not (exp / phase / "last.pth").exists()
    train_main(options)
    assert_same_training(twin, exp)


def test_a_kill_between_a_checkpoint_and_its_model_loses_no_model(setup, monkeypatch):
    """ESPnet writes checkpoint.pth, then the model of the epoch, which averaging reads."""
    exp, options = setup
    options = [*options, "--warmup", "none", "--set", "keep_nbest_models=3"]
    resume = midpoint.Midpoint.resume

    def begin(self, state):
        if state.reporter.get_epoch() == 2:
            raise KeyboardInterrupt
        return resume(self, state)

    with monkeypatch.context() as once, pytest.raises(KeyboardInterrupt):
        once.setattr(midpoint.Midpoint, "resume", begin)
        train_main(options)
    first = exp / "train" / "1epoch.pth"
    before = torch.load(first, weights_only=True)
    first.unlink()
    train_main(options)
    assert differences(torch.load(first, weights_only=True), before) == []
