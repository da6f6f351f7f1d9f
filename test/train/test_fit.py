"""The largest batch, by trial: the search, and real trials of a tiny system on the CPU."""

import json

import pytest
import yaml

from pam.bin import plan as command
from pam.errors import PamError
from pam.train import fit
from pam.train.trial import Trial


@pytest.mark.parametrize("true", [0, 1, 5, 15, 16, 17, 31, 100, 3000, 5000])
def test_the_search_ends_within_a_tenth(true):
    asked = []

    def fits(rows):
        asked.append(rows)
        return rows <= true

    found = fit.largest_rows(16, fits)
    assert found <= true and (true < fit.CLOSE * found + 1 or 2 * found > fit.MOST_ROWS)
    assert len(asked) == len(set(asked)) < 16


@pytest.fixture
def scale(tiny_config, tmp_path):
    """A file of a scale with dumped states."""
    config = {k: v for k, v in tiny_config.items() if k not in ("fusion", "tasks", "fusion_conf")}
    config |= {"batch": {"max_utts": 2, "max_frames": 20}, "warmup": "none"}
    config["fusion_conf"] = {"adapter": {"stack": 1}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    return str(tmp_path / "toy.yaml")


def test_a_trial_measures_real_steps(scale, monkeypatch, capsys):
    monkeypatch.setattr(fit, "MOST_ROWS", 4)
    options = ["--scale", scale, "--system", "concat", "--gpus", "0", "--fit", "--fit_gib", "8"]
    assert command.main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["2", "4"]
    for trial in found.values():
        assert 1e8 < trial["peak"] < 8e9 and 0 < trial["seconds"] < 60


def test_the_largest_batch_is_printed(scale, monkeypatch, capsys):
    def in_process(config, device, limit):
        return Trial(peak=2**30, seconds=1.5) if config["batch"]["max_utts"] < 5 else None

    monkeypatch.setattr(fit, "in_process", in_process)
    assert command.main(["--scale", scale, "--system", "concat", "--gpus", "0", "--fit"]) == 0
    printed = capsys.readouterr().out
    assert "| 4 | 1.00 | 1.50 |\n| 5 | does not fit |  |\n" in printed
    assert "fits: --set batch.max_utts=4 --set batch.max_frames=40." in printed


def test_where_nothing_fits_is_one_line(scale, capsys):
    """The limit is below what the process has when it begins."""
    options = ["--scale", scale, "--system", "concat", "--gpus", "0", "--fit", "--fit_gib", "0.01"]
    options += ["--set", "batch.max_utts=1", "--set", "batch.max_frames=10"]
    with pytest.raises(PamError, match="not even one clip fits"):
        command.main(options)
    assert capsys.readouterr().out.count("does not fit") == 1


def test_what_fit_needs():
    with pytest.raises(PamError, match="--fit_gib 2: give it with --fit"):
        command.main(["--scale", "mini", "--fit_gib", "2"])
