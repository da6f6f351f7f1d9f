"""The mini scale with its real pretrained models and random learned weights, in float32."""

import pytest
from greedys import PROMPTS, clips, exported, generated, greedy_tokens

from pam.config import load_yaml
from pam.hf.folder import write_hf
from pam.paths import conf_file


@pytest.mark.models
def test_the_mini_model_gives_greedys_tokens(experiment, tmp_path):
    """LoRA leaves the prompt alone there, and h_prompt is a mean."""
    scale = load_yaml(conf_file("scale", "mini"))
    exp = experiment(
        "llama",
        encoders=scale["encoders"],
        llm_conf=scale["llm_conf"] | {"dtype": "float32"},
        fusion_conf=scale["fusion_conf"],
        router_conf=scale["router_conf"],
    )
    write_hf(exp, tmp_path / "out", bundle=True, licence="other")
    model, processor = exported(tmp_path / "out")
    assert model.config.lora and model.config.h_prompt == "mean"
    expected = greedy_tokens(exp, clips(), PROMPTS)[0]
    assert len({tuple(row) for row in expected}) > 1
    assert generated(model, processor(text=PROMPTS, audio=clips())) == expected
    for clip, prompt, tokens in zip(clips(), PROMPTS, expected, strict=True):
        assert generated(model, processor(text=prompt, audio=clip)) == [tokens]
