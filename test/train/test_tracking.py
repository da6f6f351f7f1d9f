"""Weights & Biases, here a module that takes its place: no result depends on it."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from espnet2.tasks import abs_task

from pam.bin.train import main as train_main
from pam.errors import PamError
from pam.train.tracking import wandb_options

PROJECT = {"project": "speech"}


@pytest.fixture
def wandb(monkeypatch):
    module = ModuleType("wandb")
    module.begun, module.logged = [], []
    module.errors = SimpleNamespace(UsageError=type("UsageError", (Exception,), {}))
    module.login = lambda: True
    module.init = lambda **options: module.begun.append(options)
    module.config = SimpleNamespace(update=lambda args: None)
    module.log = module.logged.append
    module.run = None
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(abs_task, "wandb", module)
    return module


def test_a_project_gets_speed_and_statistics_of_every_phase(setup, wandb):
    exp, options = setup
    mine = ["--set", "wandb.project=speech", "--set", "wandb.entity=us", "--set", "log_interval=4"]
    train_main([*options, *mine])
    assert [(run["project"], run["entity"], run["name"]) for run in wandb.begun] == [
        ("speech", "us", "exp-warmup"),
        ("speech", "us", "exp-train"),
    ]
    logged = {name for entry in wandb.logged for name in entry}
    assert {"speed/audio_per_second", "metrics/loss"} <= logged
    assert "wandb" not in yaml.safe_load((exp / "config.yaml").read_text())
    before = (exp / "train" / "last.pth").stat().st_mtime_ns
    train_main(options)  # complete: without it, this is the same experiment
    assert (exp / "train" / "last.pth").stat().st_mtime_ns == before


def test_it_is_off_unless_a_project_is_named(setup, wandb):
    _, options = setup
    assert wandb_options(None, "x") == {}
    train_main([*options, "--warmup", "none"])
    assert not wandb.begun and not wandb.logged


def test_what_is_missing_is_one_line(monkeypatch, wandb):
    with pytest.raises(PamError, match="wandb: it has no project: give wandb.project too"):
        wandb_options({"entity": "us"}, "x")

    def login():
        raise wandb.errors.UsageError("api_key not configured (no-tty)")

    wandb.login = login
    with pytest.raises(PamError, match=r"speech: api_key not .*WANDB_MODE=offline") as error:
        wandb_options(PROJECT, "x")
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(PamError, match=r"not installed: pip install .\[wandb\]"):
        wandb_options(PROJECT, "x")


def test_a_resumed_run_takes_the_options_of_its_command(setup, monkeypatch):
    """The configuration of an experiment with weights is kept, but for what changes no result."""
    exp, options = setup
    asked = []

    def crash(given):
        asked.append(given)
        (exp / "warmup" / "1epoch.pth").parent.mkdir(exist_ok=True)
        (exp / "warmup" / "1epoch.pth").touch()  # there are weights from here on
        raise RuntimeError("killed")

    monkeypatch.setattr("pam.train.phases.run_task", crash)
    for more in ([], ["--set", "log_interval=7", "--set", "num_workers=2"]):
        with pytest.raises(RuntimeError, match="killed"):
            train_main([*options, *more])
    assert [(one["log_interval"], one["num_workers"]) for one in asked] == [(50, 0), (7, 2)]
    assert yaml.safe_load((exp / "config.yaml").read_text())["log_interval"] == 50


def test_a_training_without_memory_resumes_with_less(setup, monkeypatch):
    """The model is built from config.yaml, so that has what the last command says."""
    exp, options = setup
    weights = exp / "warmup" / "1epoch.pth"
    found = []

    def crash(given):
        found.append(yaml.safe_load(Path(given["pam_config"]).read_text()))
        weights.parent.mkdir(exist_ok=True)
        weights.touch()
        raise RuntimeError("out of memory")

    monkeypatch.setattr("pam.train.phases.run_task", crash)
    less = {"gradient_checkpointing": True, "shard": True}
    sets = [word for key in less for word in ("--set", f"llm_conf.{key}=true")]
    for more in ([], sets, []):
        with pytest.raises(RuntimeError, match="out of memory"):
            train_main([*options, *more])
        assert weights.is_file()
    first, second, third = found
    assert first == third and second == first | {"llm_conf": first["llm_conf"] | less}
    with pytest.raises(PamError, match="made with other settings"):
        train_main([*options, "--set", "llm_conf.lora_rank=3"])
