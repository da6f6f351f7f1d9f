"""Tasks: the order of the experts and the lookup."""

import pytest

from pam.data.tasks import METRICS, TASKS, get_task, task_names
from pam.errors import UserError


def test_order_is_the_experts():
    assert task_names() == ["asr_clean", "asr_noisy", "snv", "ac"]
    assert [get_task(name).expert for name in task_names()] == [0, 1, 2, 3]
    assert all(name == task.name and task.metric in METRICS for name, task in TASKS.items())


def test_metrics():
    assert [get_task(name).metric for name in task_names()] == ["wer", "wer", "accuracy", "caption"]


def test_unknown_task_suggests():
    with pytest.raises(UserError, match=r"unknown task 'asr_clena': did you mean 'asr_clean'\?"):
        get_task("asr_clena")
