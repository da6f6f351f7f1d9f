"""Trainings of seconds."""

import pytest
import yaml
from toydata import make_combined


@pytest.fixture(scope="module")
def combined(tmp_path_factory):
    return make_combined(tmp_path_factory.mktemp("combined"))


@pytest.fixture
def setup(tmp_path, tiny_config, combined):
    """Options of pam.bin.train for a run of seconds, and its experiment folder."""
    scale = {k: v for k, v in tiny_config.items() if k not in ("fusion", "tasks")} | {
        "warmup": "ctc",
        "fusions": {"single": {}, "salmonn": {"window": 4, "hidden": 8, "heads": 2, "ffn": 8}},
        "batch": {"max_utts": 3, "max_frames": 200},
        "phases": {
            "ctc": {"optim_conf": {"lr": 1e-2}, "warmup_steps": 2},
            "llm": {"optim_conf": {"lr": 1e-2, "lora_lr": 5e-3}, "warmup_steps": 2},
        },
        "budgets": {"short": {"ctc_steps": 8, "steps": 12, "steps_per_epoch": 4}},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(scale))
    (tmp_path / "pam.yaml").write_text("fusion: pam\n")
    exp = tmp_path / "exp"
    return exp, [
        *("--scale_config", str(tmp_path / "toy.yaml")),
        *("--system_config", str(tmp_path / "pam.yaml")),
        *("--train", str(combined), "--dev", str(combined), "--expdir", str(exp)),
    ]


@pytest.fixture(autouse=True)
def processes_for_gpus(monkeypatch):
    """`--ngpu 2` is asked for here where processes on the CPU stand for GPUs."""
    monkeypatch.setattr("pam.bin.train.device_for", lambda ngpu: "cpu")
