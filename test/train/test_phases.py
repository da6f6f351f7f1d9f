"""How many steps a phase makes of its budget."""

import pytest

from pam.config import load_yaml
from pam.paths import conf_file
from pam.train.phases import equal_epochs, steps_of, whole_epochs


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
    epochs, each = equal_epochs(steps, {"steps_per_epoch": per_epoch})
    assert (epochs, each) == expected
    assert each <= per_epoch and steps <= epochs * each < steps + epochs


@pytest.mark.parametrize("scale", ["mini", "paper"])
def test_the_budgets_of_the_scales_are_exact(scale):
    """Their trainings, whose results are stored, are what the configuration says."""
    for budget in load_yaml(conf_file("scale", scale))["budgets"].values():
        if "steps" in budget:
            steps = steps_of(budget, {}, 0)
            assert equal_epochs(steps, budget) == (
                steps // budget["steps_per_epoch"],
                budget["steps_per_epoch"],
            )
            assert steps % budget["steps_per_epoch"] == 0


def test_the_warm_up_is_of_whole_epochs():
    assert whole_epochs(1600, {"steps_per_epoch": 130}) == (12, 130)
    assert whole_epochs(20, {"steps_per_epoch": 4}) == (5, 4)
    assert whole_epochs(8, {"steps_per_epoch": 100}) == (1, 8)
