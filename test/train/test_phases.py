"""How many steps a phase makes of its budget."""

import pytest

from pam.config import load_yaml
from pam.errors import PamError
from pam.paths import conf_file
from pam.train.phases import (
    Length,
    equal_epochs,
    length_of,
    scaled,
    scheduler_conf,
    steps_of,
    whole_epochs,
)


@pytest.mark.parametrize(
    "steps, per_epoch, expected",
    [
        (520, 130, (4, 130)),
        (2500, 1000, (3, 834)),
        (2400, 1000, (3, 800)),
        (3, 4, (1, 3)),
        (1001, 1000, (2, 501)),
    ],
)
def test_no_step_of_a_budget_is_lost(steps, per_epoch, expected):
    length = equal_epochs(steps, {"steps_per_epoch": per_epoch})
    epochs, each = length.epochs, length.per_epoch
    assert (epochs, each) == expected
    assert each <= per_epoch and steps <= epochs * each < steps + epochs
    assert length.total == steps


@pytest.mark.parametrize("scale", ["mini", "paper"])
def test_the_budgets_of_the_scales_are_exact(scale):
    """Their trainings, whose results are stored, are what the configuration says."""
    for budget in load_yaml(conf_file("scale", scale))["budgets"].values():
        if "steps" in budget:
            steps = steps_of(budget, lambda: [])
            assert equal_epochs(steps, budget) == Length(
                steps // budget["steps_per_epoch"], budget["steps_per_epoch"], steps
            )
            assert steps % budget["steps_per_epoch"] == 0


def test_the_warm_up_is_of_whole_epochs():
    assert whole_epochs(1600, {"steps_per_epoch": 130}) == Length(12, 130, 1560)
    assert whole_epochs(20, {"steps_per_epoch": 4}) == Length(5, 4, 20)
    assert whole_epochs(8, {"steps_per_epoch": 100}) == Length(1, 8, 8)


@pytest.mark.parametrize("make", [equal_epochs, whole_epochs])
@pytest.mark.parametrize("accum_grad", [2, 3, 4, 7])
@pytest.mark.parametrize("steps, per_epoch", [(12, 7), (520, 130), (2500, 1000), (7, 7)])
def test_epochs_end_with_an_update(make, accum_grad, steps, per_epoch):
    """No batch is left behind the last update of an epoch, and no epoch is empty."""
    length = make(steps, {"steps_per_epoch": per_epoch}, accum_grad)
    last = length.total - (length.epochs - 1) * length.per_epoch
    assert length.per_epoch % accum_grad == last % accum_grad == 0
    assert 0 < last <= length.per_epoch <= per_epoch
    if make is equal_epochs:
        assert steps <= length.total < steps + accum_grad


@pytest.mark.parametrize("phase", ["ctc", "llm"])
def test_an_update_that_an_epoch_has_no_batches_for_is_refused(phase, tmp_path):
    budget = {"steps": 12, "ctc_steps": 12, "steps_per_epoch": 4}
    config = {"accum_grad": 5, "budget_conf": budget}
    with pytest.raises(
        PamError, match="accum_grad: 5 batches make an update, but an epoch has only 4"
    ):
        length_of(config, phase, tmp_path)
    config["budget_conf"] = budget | {"steps": 3, "ctc_steps": 3, "steps_per_epoch": 100}
    with pytest.raises(PamError, match="an epoch has only 3"):
        length_of(config, phase, tmp_path)


def test_the_floor_of_the_rate_can_be_set():
    assert "floor" not in scheduler_conf({"warmup_steps": 1}, 100)
    assert scheduler_conf({"warmup_steps": 1, "floor": 0.5}, 100)["floor"] == 0.5


def test_a_rise_that_is_cut_is_logged(caplog):
    caplog.set_level("INFO")
    assert scheduler_conf({"warmup_steps": 10}, 100)["warmup_steps"] == 10 and not caplog.text
    assert scheduler_conf({"warmup_steps": 11}, 100)["warmup_steps"] == 10
    assert "the rate rises for 10 of 100 updates, not 11: a tenth" in caplog.text


def test_rates_for_the_batches_of_several_gpus():
    rates = {"lr": 1e-4, "lora_lr": 2e-4, "router_lr": 3e-4, "muon_lr": 4e-4}
    conf = {"optim_conf": rates | {"weight_decay": 0.1}}
    assert scaled(conf, 4) == conf["optim_conf"]
    assert scaled(conf | {"lr_rule": "sqrt"}, 1) == conf["optim_conf"]
    root = {name: 2 * rate for name, rate in rates.items()} | {"weight_decay": 0.1}
    assert scaled(conf | {"lr_rule": "sqrt"}, 4) == pytest.approx(root)
    assert scaled({"optim_conf": {}, "lr_rule": "linear"}, 4) == {"lr": 4e-3}  # PyTorch's is 1e-3
