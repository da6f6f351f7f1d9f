"""Tasks: the order of the experts and the lookup."""

import pytest

from pam.config.documents import metric_names
from pam.data.tasks import TASKS, all_tasks, get_task, prompt_files, task_names
from pam.errors import PamError


def test_order_is_the_experts():
    assert list(TASKS) == task_names()[:4] == ["asr_clean", "asr_noisy", "snv", "ac"]
    assert [get_task(name).expert for name in TASKS] == [0, 1, 2, 3]
    assert all(name == task.name and task.metric in metric_names() for name, task in TASKS.items())


def test_metrics():
    assert [get_task(name).metric for name in TASKS] == ["wer", "wer", "accuracy", "caption"]


def test_unknown_task_suggests():
    with pytest.raises(PamError, match=r"unknown task 'asr_clena': did you mean 'asr_clean'\?"):
        get_task("asr_clena")


HEAD = (
    "task: {name}\nmetric: caption\ndescription: birds\ntrain: [Name it.]\nunseen: [Whose is it.]\n"
)


def add_task(root, recipe, name, text=HEAD):
    folder = root / "egs" / recipe / "conf/prompts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(text.format(name=name))


def test_a_recipe_brings_a_task(tmp_path):
    add_task(tmp_path, "birds", "song")
    add_task(tmp_path, "cars", "horn")
    tasks = all_tasks(tmp_path)
    assert list(tasks) == [*TASKS, "horn", "song"]  # the paper's first, whatever comes later
    assert (tasks["song"].expert, tasks["song"].metric) == (5, "caption")
    assert prompt_files(tmp_path)["song"].parent == tmp_path / "egs/birds/conf/prompts"


def test_a_new_task_says_its_metric(tmp_path):
    add_task(tmp_path, "birds", "song", "task: song\ntrain: [a]\nunseen: [b]\n")
    with pytest.raises(PamError, match="song.yaml: metric None of a new task: write one of wer"):
        all_tasks(tmp_path)


def test_two_recipes_cannot_bring_the_same_task(tmp_path):
    for recipe in ("birds", "cars"):
        add_task(tmp_path, recipe, "song")
    with pytest.raises(PamError, match="cars/.*'song' is in .*birds"):
        all_tasks(tmp_path)
