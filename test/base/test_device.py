"""--ngpu against what torch sees, in every program that has it."""

import importlib

import pytest
import torch

from pam.device import allow_tf32, device_called, device_for, why_none, without_tf32
from pam.errors import PamError


def see(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    "seen, ngpu, device", [(0, 0, "cpu"), (2, 0, "cpu"), (1, 1, "cuda"), (2, 2, "cuda")]
)
def test_the_device(monkeypatch, seen, ngpu, device):
    """On GPUs float32 matrices are multiplied as TF32, on a CPU as they are."""
    see(monkeypatch, seen)
    assert torch.get_float32_matmul_precision() == "highest"
    assert device_for(ngpu) == device
    assert torch.get_float32_matmul_precision() == ("high" if device == "cuda" else "highest")


def test_float32_may_be_asked_for():
    """Of products of matrices, and of convolutions."""
    allow_tf32()
    with without_tf32():
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    "seen, ngpu, message",
    [
        (0, 1, r"--ngpu 1: torch sees no GPU \(it is built .*\): use --ngpu 0"),
        (1, 2, "--ngpu 2: torch sees 1 GPU: use --ngpu 1 or less"),
        (2, 4, "--ngpu 4: torch sees 2 GPUs: use --ngpu 2 or less"),
        (2, -1, "--ngpu -1: expected 0"),
    ],
)
def test_gpus_that_are_not_there_are_one_clear_line(monkeypatch, seen, ngpu, message):
    see(monkeypatch, seen)
    with pytest.raises(PamError, match=message):
        device_for(ngpu)


@pytest.mark.parametrize(
    ("built", "failure", "reason"),
    [
        (None, None, "it is built without CUDA"),
        (
            "13.0",
            "The NVIDIA driver on your system is too old (found version 12020). Please update your",
            "it is built for CUDA 13.0; The NVIDIA driver on your system is too old "
            "(found version 12020)",
        ),
        ("13.0", None, "it is built for CUDA 13.0"),
    ],
)
def test_why_no_gpu_is_seen(monkeypatch, built, failure, reason):
    def init():
        if failure:
            raise RuntimeError(f"{failure}\n GPU driver")

    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "init", init)
    assert why_none() == f"torch sees no GPU ({reason})"


@pytest.mark.parametrize(
    "seen, name, message",
    [
        (0, "cpu", None),
        (1, "cuda", None),
        (2, "cuda:1", None),
        (0, "cuda", r"--device cuda: torch sees no GPU \(it is .*\): use --device cpu"),
        (2, "cuda:2", "--device cuda:2: torch sees 2 GPUs: use cuda:1 or less"),
        (2, "cuda:x", "--device cuda:x: expected cpu, cuda or cuda:N"),
        (2, "mps", "--device mps: expected cpu, cuda or cuda:N"),
    ],
)
def test_a_device_by_its_name(monkeypatch, seen, name, message):
    see(monkeypatch, seen)
    if message is None:
        assert device_called(name) == name
    else:
        with pytest.raises(PamError, match=message):
            device_called(name)


@pytest.mark.parametrize(
    "verb, paths",
    [
        ("train", ["--scale_config", "--system_config", "--train", "--dev", "--expdir"]),
        ("average", ["--exp", "--dev"]),
        ("analyse", ["--exp", "--data"]),
        ("decode", ["--exp", "--data", "--out"]),
        ("dump", ["--data", "--out", "--scale_config"]),
        ("score", ["--decode_dir"]),
    ],
)
def test_programs_say_it_before_they_read_anything(monkeypatch, tmp_path, verb, paths):
    see(monkeypatch, 0)
    options = [part for option in paths for part in (option, str(tmp_path / "nowhere"))]
    main = importlib.import_module(f"pam.bin.{verb}").main
    with pytest.raises(PamError, match="--ngpu 1: torch sees no GPU"):
        main([*options, "--ngpu", "1"])
