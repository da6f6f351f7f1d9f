"""Every file of conf/systems on a tiny LLM and tiny encoders: what must hold in any system."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from toys import make_batch

from pam.config import load_yaml
from pam.decode.decoder import Decoder
from pam.decode.drafters import DRAFTERS
from pam.decode.greedy import greedy
from pam.decode.request import Request
from pam.decode.settings import Settings
from pam.errors import PamError
from pam.model.build import build_model, load_experiment
from pam.model.ctc import TokenEmbeddingCTC
from pam.model.experts import experts_have_tasks
from pam.model.warmup import CTCWarmupModel
from pam.paths import conf_file
from pam.train.systems import combine

SYSTEMS = sorted((Path(__file__).resolve().parents[2] / "conf/systems").glob("*.yaml"))
BF16_ERROR = 0.04  # of the norm of all logits; the worst measured is 0.018 (8 bits are 0.004)
PROMPTS = ["Write it down.", "Noisy.", "How many speakers?", "What is it?"]


CASES = [(file, name) for name in ("paper", "mini") for file in SYSTEMS]


def toy_scale(name: str, tiny_config: dict) -> dict:
    """A scale of conf/scale with its own options, and toys for its models."""
    real = load_yaml(conf_file("scale", name))
    return {
        **{key: tiny_config[key] for key in ("encoders", "feats")},
        "llm_conf": real["llm_conf"] | tiny_config["llm_conf"],
        "model_conf": real.get("model_conf", {}) | {"bf16": False},
        "router_conf": real.get("router_conf", {}),
        "fusion_conf": real.get("fusion_conf", {}),
        "fusions": {
            "wavllm": {"conv_channels": 4, "channels": 8, "bottleneck": 4},
            "salmonn": {"window": 3, "queries": 2, "hidden": 8, "heads": 2, "ffn": 16},
            "concat_norm_layers": {"stack": 3 if name == "mini" else 1},
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
        if config["fusion"] == "moe_audio":
            spread_experts(model)
    return model


def spread_experts(model):
    """Weights of a router that hears, with which every expert gets some of the frames."""
    states = [torch.randn(1, shape.num_states, 60, shape.dim) for shape in model.shapes]
    heard = torch.cat(model.fusion.last_features(states), dim=-1)[0]  # as if at 25 Hz
    linear = model.fusion.router.ffn
    linear.weight.normal_(0, 3)
    linear.bias.copy_(-(heard @ linear.weight.T).mean(0))


@pytest.fixture(params=["paper", "mini"])
def scale(request, tiny_config) -> dict:
    return toy_scale(request.param, tiny_config)


@pytest.fixture(params=SYSTEMS, ids=lambda file: file.stem)
def system_file(request) -> Path:
    return request.param


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].stem}-{case[1]}")
def config(request, tiny_config) -> dict:
    """A system at a scale."""
    file, name = request.param
    return combine(toy_scale(name, tiny_config), load_yaml(file))


@pytest.fixture
def system(config):
    return build(config)


@pytest.fixture
def batch(system) -> dict:
    texts = ["hello there", "two", "a", "b c"]
    return make_batch(system, PROMPTS, texts, [0, 1, 2, 3], [9, 4, 1, 7])


def audio_of(model, batch, row=None):
    """Features and lengths of all rows, or of one without its padding."""
    names = [shape.name for shape in model.shapes]
    rows = slice(None) if row is None else slice(row, row + 1)
    lengths = {name: batch[f"{name}_lengths"][rows] for name in names}
    features = {name: batch[name][rows, : int(lengths[name].max())] for name in names}
    return features, lengths


def alone(model, batch, row) -> dict:
    """One row of a batch without any padding."""
    features, lengths = audio_of(model, batch, row)
    prompt, answer = int(batch["prompt_index"][row, 0]), int(batch["text_lengths"][row])
    one = slice(row, row + 1)
    return {
        "prompt": batch["prompt"][prompt : prompt + 1, : batch["prompt_lengths"][prompt]],
        "prompt_lengths": batch["prompt_lengths"][prompt : prompt + 1],
        "prompt_index": torch.tensor([[0]]),
        "text": batch["text"][one, :answer],
        "text_lengths": batch["text_lengths"][one],
        "task": batch["task"][one],
        **features,
        **{f"{name}_lengths": value for name, value in lengths.items()},
    }


def logits_of(model, batch):
    """Logits of every answer's tokens, row after row, and the prompt router's or None."""
    with model.autocast():
        prompt = model.llm.read_prompts(batch["prompt"], batch["prompt_lengths"])
        prompt = prompt.select(batch["prompt_index"][:, 0])
        routed, gate = model.route(prompt, batch["task"] if model.routing == "label" else None)
        features, frames = model.fuse(*model.states(model.audio_of(batch)), gate)
        text = batch["text"], batch["text_lengths"]
        hidden, _ = model.answer(prompt, features, frames, *text)
        return model.llm.logits(hidden), routed


def routing_loss(model, batch):
    return F.cross_entropy(logits_of(model, batch)[1], batch["task"])


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def test_padding_full_of_nan_changes_nothing(system, batch):
    """Of audio; that of prompts and answers, which have no NaN, is full of another token."""
    dirty = {key: value.clone() for key, value in batch.items()}
    for shape in system.shapes:
        for row, frames in enumerate(batch[f"{shape.name}_lengths"]):
            dirty[shape.name][row, frames:] = torch.nan
    for name in ("prompt", "text"):
        for row, tokens in enumerate(batch[f"{name}_lengths"]):
            dirty[name][row, tokens:] = 9
        assert not torch.equal(dirty[name], batch[name])
    clean_loss, dirty_loss = system(**batch)[0], system(**dirty)[0]
    assert torch.equal(clean_loss, dirty_loss)
    dirty_loss.backward()
    assert all(p.grad.isfinite().all() for p in trainable(system) if p.grad is not None)


@torch.no_grad()
def test_neighbours_change_no_logits(system, batch):
    together, routed = logits_of(system, batch)
    parts = together.split(batch["text_lengths"].tolist())
    for row, part in enumerate(parts):
        mine, my_routed = logits_of(system, alone(system, batch, row))
        torch.testing.assert_close(mine, part, rtol=1e-4, atol=1e-4)
        if routed is not None:
            torch.testing.assert_close(my_routed[0], routed[row], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_decoding_runs_and_neighbours_change_nothing(system, batch):
    together = greedy(system, *audio_of(system, batch), PROMPTS, 8)
    for row, prompt in enumerate(PROMPTS):
        one = greedy(system, *audio_of(system, batch, row), [prompt], 8)
        assert one.tokens[0] == together.tokens[row]
        if system.router is not None:
            assert one.experts[0] == together.experts[row]
            torch.testing.assert_close(one.posteriors[0], together.posteriors[row])
    if system.router is None:
        assert (together.experts, together.posteriors) == (None, None)
    else:
        assert together.posteriors.shape == (4, len(system.experts))


def test_drafts_change_no_answer(system, batch):
    """In float64 all drafters give the tokens of greedy search."""
    system.double()
    features, lengths = audio_of(system, batch)
    features = {name: value.double() for name, value in features.items()}
    expected = greedy(system, features, lengths, PROMPTS, 8)
    clips = [
        {name: value[row, : int(lengths[name][row])] for name, value in features.items()}
        for row in range(len(PROMPTS))
    ]
    for drafter in DRAFTERS.names():
        requests = [
            Request(row, prompt, lambda clip=clip: clip, 8, 0.0)
            for row, (prompt, clip) in enumerate(zip(PROMPTS, clips, strict=True))
        ]
        answers = Decoder(system, Settings(drafter=drafter)).answers(requests)
        found = {answer.key: answer.tokens for answer in answers}
        assert [found[row] for row in range(len(PROMPTS))] == expected.tokens


def test_every_trainable_weight_gets_a_gradient_and_nothing_else_does(system, batch):
    longer = make_batch(system, PROMPTS, ["x y", "z", "u", "v"], [0, 1, 2, 3], [30] * 4)
    system(**longer)[0].backward()
    for name, parameter in system.named_parameters():
        if name.endswith("attention.key.bias"):  # softmax does not see what is the same everywhere
            continue
        moved = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert moved == parameter.requires_grad, name


@torch.no_grad()
def test_saved_and_loaded_it_says_the_same(system, config, batch, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(system.state_dict(), tmp_path / "model.pth")
    again = load_experiment(tmp_path)
    for mine, theirs in zip(logits_of(again, batch), logits_of(system, batch), strict=True):
        assert (mine is theirs is None) or torch.equal(mine, theirs)
    assert torch.equal(again(**batch)[0], system(**batch)[0])
    features, lengths = audio_of(system, batch)
    said = greedy(system, features, lengths, PROMPTS, 8).tokens
    assert greedy(again, features, lengths, PROMPTS, 8).tokens == said


def test_a_checkpoint_of_another_system_is_one_clear_line(system_file, tiny_config, tmp_path):
    scale = toy_scale("mini", tiny_config)
    config = combine(scale, load_yaml(system_file))
    other = "concat" if config["fusion"] != "concat" else "salmonn"
    theirs = build_model(combine(scale, load_yaml(SYSTEMS[0].with_stem(other))))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(theirs.state_dict(), tmp_path / "model.pth")
    with pytest.raises(PamError, match="does not fit .*is of another system: ") as error:
        load_experiment(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize(
    "change, message",
    [
        ("use_encoders=[wisper]", "unknown encoder 'wisper': did you mean 'whisper'"),
        ("llm_conf.path=/nowhere/at/all", "'/nowhere/at/all' cannot be loaded as an LLM"),
        ("llm_conf.lora_targets=[q_proj, query]", "lora_targets: 'query': "),
        ("fusion=pma", "unknown fusion 'pma': did you mean 'pam'"),
    ],
)
def test_wrong_options_are_one_clear_line(tiny_config, system_file, change, message):
    scale = toy_scale("mini", tiny_config)
    with pytest.raises(PamError, match=message) as error:
        build_model(combine(scale, load_yaml(system_file), [change]))
    assert "\n" not in str(error.value)


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bf16_is_close_to_float32(system, config, batch, dtype):
    """Autocast to bfloat16, on a frozen LLM in float32 and, as in the scales, in bfloat16."""
    llm_conf = config["llm_conf"] | {"dtype": dtype}
    fast = build_model(config | {"llm_conf": llm_conf}).eval()
    fast.load_state_dict(system.state_dict())
    exact, routed = logits_of(system, batch)
    fast.bf16 = True
    rounded, fast_routed = logits_of(fast, batch)
    assert not torch.equal(rounded, exact)
    assert relative_error(rounded, exact) < BF16_ERROR
    if system.labelled:
        assert relative_error(fast_routed, routed) < BF16_ERROR
    torch.testing.assert_close(fast(**batch)[0], system(**batch)[0], rtol=1e-2, atol=0)


def relative_error(found, exact):
    return float((found - exact).norm() / exact.norm())


def test_one_step_lowers_the_loss(system, batch):
    optimizer = torch.optim.AdamW(trainable(system), lr=3e-3)
    before = system(**batch)[0]
    routing = routing_loss(system, batch).item() if system.labelled else None
    before.backward()
    optimizer.step()
    assert system(**batch)[0] < before
    if routing is not None:
        assert routing_loss(system, batch) < routing


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
    with pytest.raises(PamError, match="no gradient reach the router.*'probability'"):
        build_model(combine(scale, system))
