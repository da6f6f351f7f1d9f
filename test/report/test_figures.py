import numpy as np
import pytest
import torch

from pam.errors import UserError
from pam.report import figures

PNG = b"\x89PNG\r\n\x1a\n"
CONFIG = {
    "encoders": {"one": {"num_states": 2}, "two": {"num_states": 3}},
    "tasks": ["asr_clean", "ac"],
    "fusion_conf": {},
}


def checkpoint(path, width=5):
    torch.save(
        {
            "fusion.shared.weight": torch.arange(2.0 * width).view(2, width),
            "fusion.experts.0.weight": torch.zeros(2, width),
            "fusion.experts.1.weight": torch.ones(2, width),
            "fusion.experts.1.ffn_o.weight": torch.ones(3, 3),
        },
        path,
    )
    return path


def test_weights_are_named_after_the_tasks(tmp_path):
    weights = figures.layer_weights(checkpoint(tmp_path / "model.pth"), CONFIG)
    assert list(weights) == ["shared", "asr_clean", "ac"]
    np.testing.assert_array_equal(weights["shared"], np.arange(10.0).reshape(2, 5))


def test_experts_without_tasks_are_numbered(tmp_path):
    path = checkpoint(tmp_path / "model.pth")
    unlabelled = {"model_conf": {"routing": "predicted", "routing_loss": False}}
    for config in ({"fusion": "moe_audio"}, unlabelled):
        weights = figures.layer_weights(path, CONFIG | config)
        assert list(weights) == ["shared", "expert 1", "expert 2"]


def test_softmax_weights_are_shown_as_they_are_applied(tmp_path):
    config = CONFIG | {"fusion_conf": {"weights": "softmax"}}
    weights = figures.layer_weights(checkpoint(tmp_path / "model.pth"), config)
    np.testing.assert_allclose(weights["ac"], 0.2)


def test_a_checkpoint_of_other_encoders(tmp_path):
    with pytest.raises(UserError, match="weighs 7 states, the encoders .* have 5"):
        figures.layer_weights(checkpoint(tmp_path / "model.pth", 7), CONFIG)


def test_names_follow_the_fusion(tiny_model, tiny_config, tmp_path):
    torch.save(tiny_model.state_dict(), tmp_path / "model.pth")
    weights = figures.layer_weights(tmp_path / "model.pth", tiny_config)
    assert list(weights) == ["shared", *tiny_config["tasks"]]
    expected = tiny_model.fusion.experts[2].layer_weights().detach().numpy()
    np.testing.assert_array_equal(weights["snv"], expected)


def test_statistics_are_sorted_into_panels():
    assert figures._is("loss_asr_clean", "loss")
    assert figures._is("router_acc_snv", "router_acc")
    assert not figures._is("router_acc_snv", "acc")
    assert not figures._is("iter_time", "loss")


def test_figures_are_written(tmp_path):
    checkpoint(tmp_path / "model.pth")
    curves = [
        {
            "phase": phase,
            "epoch": epoch,
            "step": 10 * epoch,
            "train": {"loss": 2.0 / epoch, "time": 1.0},
            "dev": {"loss": 3.0 / epoch, "acc_ac": 0.5} if epoch > 1 else {},
        }
        for phase in ("ctc", "llm")
        for epoch in (1, 2)
    ]
    files = figures.draw(tmp_path, curves, CONFIG)
    assert [path.name for path in files] == ["curves.png", "weights.png"]
    for path in files:
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size > 5000


def test_nothing_to_draw(tmp_path):
    assert figures.draw(tmp_path, [], CONFIG) == []
    torch.save({"fusion.linear.weight": torch.ones(2)}, tmp_path / "model.pth")
    assert figures.draw(tmp_path, [], CONFIG) == []
