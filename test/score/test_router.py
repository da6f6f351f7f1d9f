import json

import pytest
import torch

from pam.bin import score as score_verb
from pam.data.prompts import Prompts, load_all_prompts
from pam.score.items import Item
from pam.score.router import router_accuracy
from pam.score.score_set import prompt_counts

TASKS = ["asr_clean", "ac"]
PROMPTS = {
    "ac": Prompts(("what is heard", "describe"), ("caption", "sounds", "write, or describe")),
    "asr_clean": Prompts(("write it down",), ("write", "words")),
    "snv": Prompts(("how many",), ("count",)),  # a task without an expert
}


def by_word(prompts):
    """Routes what begins with "w" to expert 0, all else to expert 1."""
    first = torch.tensor([0.9 if prompt.startswith("w") else 0.2 for prompt in prompts])
    return torch.stack([first, 1 - first], 1)


def test_counts_by_hand():
    result = router_accuracy(by_word, PROMPTS, TASKS)
    seen, unseen = result["seen"], result["unseen"]
    assert (seen["correct"], seen["count"]) == (2, 3)
    assert seen["accuracy"] == pytest.approx(66.6667)
    assert seen["tasks"] == {
        "ac": {"correct": 1, "count": 2},
        "asr_clean": {"correct": 1, "count": 1},
    }
    assert seen["misrouted"] == [
        {"task": "ac", "prompt": "what is heard", "chosen": "asr_clean", "probability": 0.9}
    ]
    assert (unseen["correct"], unseen["count"]) == (4, 5)
    assert unseen["misrouted"][0]["prompt"] == "write, or describe"
    assert unseen["ci95"][0] < 80 < unseen["ci95"][1]


def test_a_request_for_which_two_experts_are_right_is_counted_once():
    both = {"type": frozenset({"ac", "asr_clean"})}
    prompts = {
        "ac": Prompts((), (), (), ("type", "wind"), both),
        "asr_clean": Prompts((), (), (), ("type",), both),
        "snv": Prompts((), (), (), ("number",)),
    }
    plain = router_accuracy(by_word, prompts, TASKS)["plain"]
    assert plain["tasks"] == {
        "asr_clean or ac": {"correct": 1, "count": 1},
        "ac": {"correct": 0, "count": 1},
    }
    assert (plain["correct"], plain["count"]) == (1, 2)
    assert [m["prompt"] for m in plain["misrouted"]] == ["wind"]


def test_an_utterance_is_routed_right_by_every_right_expert():
    either = {"experts": ("asr_clean", "asr_noisy")}
    items = [
        Item("u1", "asr_noisy", "a", "a", expert="asr_clean", **either),
        Item("u2", "asr_noisy", "a", "a", expert="ac", **either),
        Item("u3", "asr_noisy", "a", "a", expert="asr_clean"),
    ]
    assert [item.routed_right for item in items] == [True, False, False]
    assert prompt_counts(items)["routed_right"] == 1


def test_the_verb_counts_all_prompts_of_the_project(tiny_model, tmp_path, monkeypatch):
    exp = experiment(tmp_path, tiny_model, monkeypatch)
    score_verb.score_router(exp)
    written = json.loads((exp / "router.json").read_text())
    prompts = load_all_prompts(tiny_model.tasks)
    for name, split in (("seen", "train"), ("unseen", "unseen")):
        entry = written[name]
        assert entry["count"] == sum(len(getattr(p, split)) for p in prompts.values())
        assert entry["correct"] + len(entry["misrouted"]) == entry["count"]
    assert (written["seen"]["count"], written["unseen"]["count"]) == (200, 600)
    requests = {text for p in prompts.values() for text in p.plain}
    assert written["plain"]["count"] == len(requests)


def test_routed_once_per_checkpoint(tiny_model, tmp_path, monkeypatch):
    exp = experiment(tmp_path, tiny_model, monkeypatch)
    score_verb.score_router(exp)
    monkeypatch.setattr("pam.model.build.load_experiment", None)  # would fail if called
    score_verb.score_router(exp)
    (exp / "model.pth").write_bytes(b"another checkpoint")
    with pytest.raises(TypeError):
        score_verb.score_router(exp)


def test_a_system_without_a_router_leaves_no_file(tiny_model, tmp_path, monkeypatch):
    exp = experiment(tmp_path, tiny_model, monkeypatch)
    tiny_model.router = None
    score_verb.score_router(exp)
    assert not (exp / "router.json").exists()


def test_experts_without_tasks_have_no_accuracy(tiny_model, tmp_path, monkeypatch):
    exp = experiment(tmp_path, tiny_model, monkeypatch)
    tiny_model.routing, tiny_model.routing_loss = "predicted", False
    score_verb.score_router(exp)
    assert not (exp / "router.json").exists()
    items = [Item("u", "ac", "a", "a", expert=name) for name in ("expert 1", None)]
    assert prompt_counts(items)["routed_right"] is None
    routed = [Item("u", "ac", "a", "a", expert=name) for name in ("ac", "snv")]
    assert prompt_counts(routed)["routed_right"] == 1


def experiment(tmp_path, model, monkeypatch):
    (tmp_path / "config.yaml").write_text(f"tasks: [{', '.join(model.tasks)}]\n")
    (tmp_path / "model.pth").write_bytes(b"weights")
    monkeypatch.setattr("pam.model.build.load_experiment", lambda exp: model.eval())
    return tmp_path
