"""What training prints about its speed: counts, rates, totals, and what it must not touch."""

import json
import logging
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pam.bin.train import main as train_main
from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.train import speed
from pam.train.speed import Meter, Utilization, counts_of, passes, rates_of, sum_of_processes
from pam.train.trainer import load_checkpoint

FRAMES, TOKENS = [30, 20], [4, 2]


def batch_of(frames=FRAMES, tokens=TOKENS, prompts=(5, 3), own=2):
    """The entries of a batch that the meter reads."""
    return {
        "first_lengths": torch.tensor(frames),
        "second_lengths": torch.tensor(frames) + 1,  # the fusion takes the minimum
        "text_lengths": torch.tensor(tokens),
        "prompt_lengths": torch.tensor(prompts),
        "counts": torch.tensor([[sum(tokens) if own else 0, own], [1, 1], [1, 1]]).float(),
    }


def test_counts_by_hand(tiny_model):
    """Two clips, a feature for each frame; the last token of an answer is not read."""
    assert counts_of(batch_of(), tiny_model) == {
        "audio_seconds": (30 + 20) / 25,
        "tokens": 4 + 2,
        "audio_real": 30 + 20,
        "audio_computed": 2 * 30,
        "answer_real": (30 + 3) + (20 + 1),
        "answer_computed": 2 * (30 + 3),
        "prompt_real": 5 + 3,
        "prompt_computed": 2 * 5,
    }


def test_the_warm_up_has_no_positions_of_the_llm():
    counts = counts_of(batch_of(), torch.nn.Linear(1, 1))
    assert counts["audio_real"] == 50 and not {"prompt_real", "answer_real"} & counts.keys()


def test_a_row_without_weight_is_padding(tiny_model):
    counts, whole = counts_of(batch_of(own=0), tiny_model), counts_of(batch_of(), tiny_model)
    assert counts.keys() == whole.keys()  # all processes add up the same names
    computed = {name for name in whole if name.endswith("_computed")}
    assert all(counts[name] == (whole[name] if name in computed else 0) for name in whole)


@pytest.mark.parametrize("apart", [True, False])
def test_prompts_are_counted_as_the_llm_reads_them(tiny_model, monkeypatch, apart):
    monkeypatch.setattr(CausalLM, "reads_prompts_apart", lambda self: apart)
    parts = passes([9, 2, 8, 1], tiny_model)
    assert parts == ([[1, 2], [8, 9]] if apart else [[9, 2, 8, 1]])
    assert passes([4, 4], tiny_model) == [[4, 4]]


def test_prompts_of_a_bank_are_not_counted(tiny_model, monkeypatch):
    monkeypatch.setattr(tiny_model, "bank", object())
    assert passes([9, 2], tiny_model.train()) == []
    counts = counts_of(batch_of(), tiny_model)
    assert (counts["prompt_real"], counts["prompt_computed"]) == (0, 0)
    assert passes([9, 2], tiny_model.eval()) == [[9, 2]]  # validation has its own prompts


def test_rates():
    totals = Counter(batches=10, seconds=5, waited=1, audio_seconds=50, tokens=200)
    totals.update(audio_real=90, audio_computed=100, prompt_real=10, prompt_computed=40)
    totals.update(answer_real=50, answer_computed=60, flops=3e12, peak_flops=1e13)
    assert rates_of(totals) == pytest.approx(
        {
            "batches_per_second": 2,
            "audio_per_second": 10,
            "tokens_per_second": 40,
            "data_wait": 0.2,
            "audio_padding": 0.1,
            "prompt_padding": 0.75,
            "answer_padding": 1 / 6,
            "llm_padding": 0.4,
            "mfu": 0.3,
        }
    )


class Clock:
    """Time that passes only where a test says so."""

    now = 0.0

    def perf_counter(self):
        return self.now

    def batches(self, count, seconds):
        for _ in range(count):
            self.now += seconds
            yield ["a", "b"], batch_of()


def test_waiting_steps_and_time_left(tmp_path, monkeypatch, caplog, tiny_model):
    """A batch takes 1 s to load and 3 s to train: 6 of 10 batches are done, 4 take 16 s."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    options = SimpleNamespace(ngpu=0, log_interval=2, use_wandb=False)
    meter = Meter("llm", 10, tmp_path, Utilization("llm", "", None))
    for before, count in ((0, 3), (3, 3)):  # two epochs
        reporter = SimpleNamespace(get_total_count=lambda before=before: before)
        for _ in meter.watch(clock.batches(count, 1), tiny_model, options, reporter, None):
            clock.now += 3
    lines = [r.getMessage() for r in caplog.records if "ETA" in r.getMessage()]
    assert [line.split(":")[1] for line in lines] == [
        f" batch {n} of 10, ETA 0" for n in (2, 3, 5, 6)
    ]
    assert "ETA 0:00:16: batches_per_second=0.25, audio_per_second=0.5" in lines[-1]
    assert "data_wait=0.25" in lines[-1]
    totals = json.loads((tmp_path / "speed.json").read_text())
    assert totals["totals"]["batches"] == 6 and totals["totals"]["seconds"] == 24
    assert totals["data_wait"] == 0.25 and totals["tokens_per_second"] == 6 / 4


def test_a_resumed_run_adds_to_the_totals(tmp_path):
    for _ in range(2):
        meter = Meter("llm", 10, tmp_path, Utilization("llm", "", None))
        meter.add(Counter(batches=4, seconds=2, waited=0, audio_seconds=8, tokens=6))
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["totals"]["batches"] == 8 and found["batches_per_second"] == 2


def test_processes_are_added_and_their_times_averaged(monkeypatch):
    """The other process has the same counts here, but not the FLOPs: it does not know its GPU."""
    own = Counter(batches=4, seconds=8, waited=2, tokens=3)
    assert sum_of_processes(own) == (own, True)
    monkeypatch.setattr(speed, "world", lambda: 2)
    monkeypatch.setattr(speed, "is_first", lambda: False)
    monkeypatch.setattr(speed, "gathered", lambda mine: [*mine, dict(own)])
    found, first = sum_of_processes(own + Counter(flops=5, peak_flops=7))
    assert found == {"batches": 4, "seconds": 8, "waited": 2, "tokens": 6} and not first


def test_mfu_is_counted_where_the_peak_is_known(monkeypatch):
    asked = []

    def training_flops(path):
        asked.append(path)
        return SimpleNamespace(of_batch=lambda batch: 2e12)

    monkeypatch.setattr(speed, "load_yaml", lambda path: path)
    monkeypatch.setattr(speed, "training_flops", training_flops)
    for phase, gpu in (("llm", None), ("llm", "Quantum 1"), ("ctc", "NVIDIA H200")):
        assert Utilization(phase, "c", gpu).of(batch_of(), 1.0) == {}
    assert not asked
    known = Utilization("llm", "c", "NVIDIA H200")
    assert known.of(batch_of(), 2.0) == {"flops": 2e12, "peak_flops": 2 * 989e12}
    assert known.of(batch_of(own=0), 2.0) == {"flops": 0, "peak_flops": 2 * 989e12}


def test_an_architecture_that_cannot_be_counted_has_no_mfu(monkeypatch, caplog):
    def unknown(config):
        raise PamError("llm_conf.path: unknown architecture")

    monkeypatch.setattr(speed, "load_yaml", lambda path: path)
    monkeypatch.setattr(speed, "training_flops", unknown)
    assert Utilization("llm", "c", "NVIDIA H200").of(batch_of(), 1.0) == {}
    assert "MFU is not measured: llm_conf.path: unknown architecture" in caplog.text


def test_training_logs_speed_and_keeps_it_out_of_the_statistics(setup, caplog):
    """Three epochs of four batches; a line every three batches and at the end of an epoch."""
    exp, options = setup
    caplog.set_level(logging.INFO)
    train_main([*options, "--set", "log_interval=3"])
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("llm: batch")]
    assert [line.split()[2] for line in lines] == ["3", "4", "7", "8", "11", "12"]
    assert "of 12, ETA 0:00:00: batches_per_second=" in lines[-1]
    found = json.loads((exp / "train" / "speed.json").read_text())
    warmup = json.loads((exp / "warmup" / "speed.json").read_text())
    assert found["totals"]["batches"] == 12 and warmup["totals"]["batches"] == 8
    assert 0 < found["llm_padding"] < 1 and "llm_padding" not in warmup
    events = EventAccumulator(str(exp / "train" / "tensorboard" / "train"))
    events.Reload()
    assert [e.step for e in events.Scalars("speed/audio_per_second")] == [3, 4, 7, 8, 11, 12]
    stats = load_checkpoint(exp / "train" / "checkpoint.pth")["reporter"]["stats"]
    names = {*found, *found["totals"]} - {"totals"}
    assert not names & {
        name for epoch in stats.values() for part in epoch.values() for name in part
    }


def test_the_padding_of_batches_is_measured_without_training(setup, combined, monkeypatch, capsys):
    exp, options = setup
    train_main([*options, "--warmup", "none"])
    trained = json.loads((exp / "train" / "speed.json").read_text())
    tool = Path(__file__).parents[2] / "tools" / "bench_padding.py"
    monkeypatch.syspath_prepend(tool.parent)  # as where a program is started
    from bench_padding import main

    words = [tool, "--exp", exp, "--train", combined, "--steps", "12"]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    capsys.readouterr()
    main()
    shares = [f"{100 * trained[f'{name}_padding']:.1f} %" for name in speed.PADDED]
    assert capsys.readouterr().out.splitlines()[-1] == f"| as trained | {' | '.join(shares)} |"
