import numpy as np
import pytest
import torch

from pam.analysis.layers import band_shares, bands, layer_weights, shares
from pam.errors import PamError

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
    weights = layer_weights(checkpoint(tmp_path / "model.pth"), CONFIG)
    assert list(weights) == ["shared", "asr_clean", "ac"]
    np.testing.assert_array_equal(weights["shared"], np.arange(10.0).reshape(2, 5))


def test_experts_without_tasks_are_numbered(tmp_path):
    path = checkpoint(tmp_path / "model.pth")
    unlabelled = {"model_conf": {"routing": "predicted", "routing_loss": False}}
    for config in ({"fusion": "moe_audio"}, unlabelled):
        weights = layer_weights(path, CONFIG | config)
        assert list(weights) == ["shared", "expert 1", "expert 2"]


def test_softmax_weights_are_shown_as_they_are_applied(tmp_path):
    config = CONFIG | {"fusion_conf": {"weights": "softmax"}}
    weights = layer_weights(checkpoint(tmp_path / "model.pth"), config)
    np.testing.assert_allclose(weights["ac"], 0.2)


def test_a_checkpoint_of_other_encoders(tmp_path):
    with pytest.raises(PamError, match="weighs 7 states, the encoders .* have 5"):
        layer_weights(checkpoint(tmp_path / "model.pth", 7), CONFIG)


def test_names_follow_the_fusion(tiny_model, tiny_config, tmp_path):
    torch.save(tiny_model.state_dict(), tmp_path / "model.pth")
    weights = layer_weights(tmp_path / "model.pth", tiny_config)
    assert list(weights) == ["shared", *tiny_config["tasks"]]
    expected = tiny_model.fusion.experts[2].layer_weights().detach().numpy()
    np.testing.assert_array_equal(weights["snv"], expected)


@pytest.mark.parametrize("states", [1, 2, 3, 4, 5, 9, 13, 25, 33])
def test_bands_partition_the_layers(states):
    found = bands(states)
    assert [n for band in found.values() for n in band] == list(range(states))
    assert list(found) == [b for b in ("low", "middle", "high") if b in found]
    if states > 3:
        sizes = [len(band) for band in found.values()]
        assert len(sizes) == 3 and max(sizes) - min(sizes) <= 2


def test_bands_are_those_of_the_paper():
    """Every four of twelve layers; what is before the first layer is low."""
    assert [(b.start, b.stop) for b in bands(13).values()] == [(0, 5), (5, 9), (9, 13)]


def test_shares_sum_to_one_and_weigh_by_the_norm():
    weight_MS = np.array([[1.0, -2.0, 0.0], [0.0, 2.0, 3.0]])
    np.testing.assert_allclose(shares(weight_MS), [1 / 8, 4 / 8, 3 / 8])
    norms_S = np.array([2.0, 1.0, 0.0])
    np.testing.assert_allclose(shares(weight_MS, norms_S), [2 / 6, 4 / 6, 0])
    assert not shares(np.zeros((2, 3))).any()


def test_bands_of_all_encoders_share_the_whole():
    encoders = {"one": {"num_states": 2}, "two": {"num_states": 4}}
    share_S = np.array([0.1, 0.2, 0.05, 0.15, 0.3, 0.2])
    found = band_shares(share_S, encoders)
    assert found["two"] == pytest.approx({"low": 0.2, "middle": 0.3, "high": 0.2})
    assert sum(v for entry in found.values() for v in entry.values()) == pytest.approx(1)
