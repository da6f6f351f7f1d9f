"""Every file of conf/systems on a tiny LLM and tiny encoders: what must hold in any system."""

from pathlib import Path

import pytest
import torch
import yaml
from toys import make_batch

from pam.config import load_yaml
from pam.decode.greedy import greedy
from pam.errors import UserError
from pam.model.build import build_model, load_experiment
from pam.model.ctc import TokenEmbeddingCTC
from pam.model.experts import experts_have_tasks
from pam.model.warmup import CTCWarmupModel
from pam.train.systems import combine

SYSTEMS = sorted((Path(__file__).resolve().parents[2] / "conf/systems").glob("*.yaml"))
PROMPTS = ["Write it down.", "Noisy.", "How many speakers?", "What is it?"]


@pytest.fixture
def scale(tiny_config) -> dict:
    """A scale as conf/scale has them, with toys."""
    return {
        **{key: tiny_config[key] for key in ("encoders", "llm_conf", "model_conf", "feats")},
        "fusion_conf": {"adapter": {"kind": "linear", "norm": True, "stack": 2}},
        "fusions": {
            "wavllm": {"conv_channels": 4, "channels": 8, "bottleneck": 4},
            "salmonn": {"window": 3, "queries": 2, "hidden": 8, "heads": 2, "ffn": 16},
        },
        "stand_ins": {"wav2vec2": "second"},
    }


def build(config: dict):
    """The model in eval mode, every part of it doing something, and its prompts one expert each."""
    torch.manual_seed(1)
    model = build_model(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # starts as zero
                parameter.normal_(0, 0.3)
        if model.router is not None and not model.labelled:
            pooled = model.read_prompts(PROMPTS).pooled
            model.router.ffn.weight.copy_(torch.linalg.lstsq(pooled, 2 * torch.eye(4)).solution.T)
            model.router.ffn.bias.zero_()
    return model


@pytest.fixture(params=SYSTEMS, ids=lambda file: file.stem)
def config(request, scale) -> dict:
    return combine(scale, load_yaml(request.param))


@pytest.fixture
def system(config):
    return build(config)


@pytest.fixture
def batch(system) -> dict:
    texts = ["hello there", "two", "a", "b c"]
    return make_batch(system, PROMPTS, texts, [0, 1, 2, 3], [9, 4, 1, 7])


def audio_of(model, batch, row=None):
    """Features and lengths of all rows, or of one without its padding."""
    features = {shape.name: batch[shape.name] for shape in model.shapes}
    lengths = {name: batch[f"{name}_lengths"] for name in features}
    if row is None:
        return features, lengths
    one = slice(row, row + 1)
    frames = {name: int(value[row]) for name, value in lengths.items()}
    return (
        {name: value[one, : frames[name]] for name, value in features.items()},
        {name: value[one] for name, value in lengths.items()},
    )


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def test_padding_full_of_nan_changes_nothing(system, batch):
    dirty = {key: value.clone() for key, value in batch.items()}
    for shape in system.shapes:
        for row, frames in enumerate(batch[f"{shape.name}_lengths"]):
            dirty[shape.name][row, frames:] = torch.nan
    clean_loss, dirty_loss = system(**batch)[0], system(**dirty)[0]
    assert torch.equal(clean_loss, dirty_loss)
    dirty_loss.backward()
    assert all(p.grad.isfinite().all() for p in trainable(system) if p.grad is not None)


@torch.no_grad()
def test_decoding_runs_and_neighbours_change_nothing(system, batch):
    together = greedy(system, *audio_of(system, batch), PROMPTS, 8)
    for row, prompt in enumerate(PROMPTS):
        alone = greedy(system, *audio_of(system, batch, row), [prompt], 8)
        assert alone.tokens[0] == together.tokens[row]
    if system.router is None:
        assert (together.experts, together.posteriors) == (None, None)
    else:
        assert together.posteriors.shape == (4, len(system.experts))


def test_every_trainable_weight_gets_a_gradient_and_nothing_else_does(system, batch):
    longer = make_batch(system, PROMPTS, ["x y", "z", "u", "v"], [0, 1, 2, 3], [30] * 4)
    system(**longer)[0].backward()
    for name, parameter in system.named_parameters():
        if name.endswith("attention.key.bias"):  # softmax does not see what is the same everywhere
            continue
        moved = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert moved == parameter.requires_grad, name


def test_saved_and_loaded_it_says_the_same(system, config, batch, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(system.state_dict(), tmp_path / "model.pth")
    again = load_experiment(tmp_path)
    assert torch.equal(again(**batch)[0], system(**batch)[0])
    features, lengths = audio_of(system, batch)
    said = greedy(system, features, lengths, PROMPTS, 8).tokens
    assert greedy(again, features, lengths, PROMPTS, 8).tokens == said


def test_bf16_is_close_to_float32(system, batch):
    exact = system(**batch)[0]
    system.bf16 = True
    # bfloat16 has 8 bits: the greatest relative difference seen is 8e-4 (pam_no_shared)
    torch.testing.assert_close(system(**batch)[0], exact, rtol=5e-3, atol=0)


def test_one_step_lowers_the_loss(system, batch):
    optimizer = torch.optim.AdamW(trainable(system), lr=3e-3)
    before = system(**batch)[0]
    before.backward()
    optimizer.step()
    assert system(**batch)[0] < before


def test_the_warm_up_trains_the_whole_fusion(system, batch):
    tokens = system.llm.answer_ids("hello there two a b c")
    ctc = TokenEmbeddingCTC(system.llm.embeddings, tokens, system.llm.space)
    warm = CTCWarmupModel(system, ctc)
    longer = make_batch(system, PROMPTS, ["a", "b", "c", "a"], [0, 1, 2, 3], [40] * 4)
    loss, _, _ = warm(**longer)
    loss.backward()
    assert 0 < loss < torch.inf
    assert all(p.grad is not None for p in system.fusion.parameters())


def test_names_of_the_experts(system, config, batch):
    """A task each where labels teach the routing, and accuracy of routing only there."""
    if system.router is None:
        assert not system.labelled
    else:
        assert system.labelled == experts_have_tasks(config)
        assert len(system.experts) == len(set(system.experts)) == 4
        assert (system.experts == system.tasks) == system.labelled
    stats = system(**batch)[1]
    assert ("router_acc_snv" in stats) == system.labelled


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("name", ["pam", "pam_no_shared", "pam_no_label", "moe_audio", "concat"])
def test_any_number_of_tasks(scale, name, count):
    system = load_yaml(SYSTEMS[0].with_stem(name)) | {"tasks": [f"task{n}" for n in range(count)]}
    torch.manual_seed(1)
    model = build_model(combine(scale, system)).eval()
    batch = make_batch(model, ["Write.", "Count."], ["a", "b"], [0, count - 1], [5, 4])
    assert model(**batch)[0].isfinite()
    features, lengths = audio_of(model, batch)
    assert len(greedy(model, features, lengths, ["Write.", "Count."], 4).texts) == 2


def test_a_router_that_nothing_teaches_is_an_error(scale):
    system = {"fusion": "pam", "model_conf": {"routing_loss": False}}
    with pytest.raises(UserError, match="no gradient reach the router.*'probability'"):
        build_model(combine(scale, system))
