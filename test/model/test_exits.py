"""Joint optimisation and the exit gate against plain formulas; off, nothing changes."""

import pytest
import torch
import torch.nn.functional as F
from toys import build_with_lora, plain_row

from pam.errors import PamError
from pam.model.build import build_model
from pam.model.exits import draw_layers, exit_layers

DEEP = 5  # layers of the LLM here


@pytest.fixture(scope="module")
def deep_llm(tiny_llm, tmp_path_factory):
    """The tiny LLM with more layers."""
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "deep-llm"
    AutoTokenizer.from_pretrained(tiny_llm).save_pretrained(folder)
    config = AutoConfig.from_pretrained(tiny_llm)
    config.num_hidden_layers = DEEP
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def config_of(tiny_config, deep_llm):
    """A configuration with these options of `exits`."""

    def made(**exits):
        model_conf = {"bf16": False} | ({"exits": exits} if exits else {})
        llm_conf = tiny_config["llm_conf"] | {"path": deep_llm}
        return tiny_config | {"llm_conf": llm_conf, "model_conf": model_conf}

    return made


def draw_of(number):
    return torch.tensor(number)


def layers_of(model, batch):
    """The states after each layer at the positions that predict answers, row by row, and labels."""
    states, labels = [[] for _ in range(DEEP)], []
    for row in range(len(batch["task"])):
        outputs = []
        hooks = [
            layer.register_forward_hook(lambda _, __, out, to=outputs: to.append(out))
            for layer in model.llm.backbone.layers
        ]
        _, text, _ = plain_row(model, batch, row)
        for hook in hooks:
            hook.remove()
        for own, out in zip(states, outputs[-DEEP:], strict=True):  # the first pass: the prompt
            own.append(out[0, -len(text) :])
        labels.append(text)
    return [torch.cat(own) for own in states], torch.cat(labels)


def plain_loss(model, batch, weights):
    """Equation 10 plus Σ w_l CE_l for {l: w_l}."""
    states, labels = layers_of(model, batch)
    head = model.llm.llm.lm_head.weight
    norm = model.llm.backbone.norm
    rows = [plain_row(model, batch, row) for row in range(len(batch["task"]))]
    loss = F.cross_entropy(torch.cat([row[0] for row in rows]), labels)
    loss = loss + F.cross_entropy(torch.cat([row[2] for row in rows]), batch["task"])
    for layer, weight in weights.items():
        loss = loss + weight * F.cross_entropy(norm(states[layer - 1]) @ head.T, labels)
    return loss


@pytest.mark.parametrize(
    "exits, weights",
    [
        ({"share": 0.5}, {layer: 0.5 * layer / 10 for layer in (1, 2, 3, 4)}),
        ({"share": 2.0, "weights": "equal"}, dict.fromkeys((1, 2, 3, 4), 0.5)),
        ({"share": 0.3, "stride": 2}, {2: 0.1, 4: 0.2}),
    ],
)
def test_the_loss_and_its_gradients_are_those_of_the_formula(config_of, batch, exits, weights):
    model = build_with_lora(config_of(**exits)).double().train()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    plain = plain_loss(model, batch, weights)
    loss, stats, _ = model(**batch, draw=draw_of(7))
    # the head's logits are float32; worst difference seen 2e-7
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(stats["loss"] + stats["exit_loss"], loss, check_dtype=False)
    got = torch.autograd.grad(loss, parameters, allow_unused=True)
    expected = torch.autograd.grad(plain, parameters, allow_unused=True)
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_without_the_options_nothing_changes(config_of, batch):
    plain = build_with_lora(config_of()).train()
    expected, stats, _ = plain(**batch)
    for exits in ({"share": 0.0}, {"weights": "equal", "stride": 2}):
        model = build_with_lora(config_of(**exits)).train()
        assert model.state_dict().keys() == plain.state_dict().keys()
        assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())
        loss, found, _ = model(**batch, draw=draw_of(7))
        assert torch.equal(loss, expected) and found.keys() == stats.keys()


def test_new_options_leave_the_other_weights_as_they_were(config_of):
    """So a warm-up of a system without them fits."""
    torch.manual_seed(1)
    plain = build_model(config_of()).state_dict()
    torch.manual_seed(1)
    new = build_model(config_of(share=0.5, gate=True)).state_dict()
    assert new.keys() - plain.keys() == {"exit_gate.weight", "exit_gate.bias"}
    assert all(torch.equal(new[name], value) for name, value in plain.items())


def test_validation_has_the_loss_of_equation_10_alone(config_of, batch):
    with torch.no_grad():
        found = build_with_lora(config_of(share=0.5, gate=True)).eval()(**batch)
        expected = build_with_lora(config_of()).eval()(**batch)
    assert torch.equal(found[0], expected[0]) and found[1].keys() == expected[1].keys()


def test_the_gate_learns_which_layers_agree_and_moves_nothing_else(config_of, batch):
    model = build_with_lora(config_of(gate=True)).double().train()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    with torch.no_grad():
        torch.nn.init.normal_(model.exit_gate.weight)
        torch.nn.init.normal_(model.exit_gate.bias)
    states, _ = layers_of(model, batch)
    norm, head = model.llm.backbone.norm, model.llm.llm.lm_head.weight
    with torch.no_grad():
        normed = [norm(state) for state in states]
        tokens = [(state @ head.T).argmax(-1) for state in normed]
    agrees = [tokens[layer] == tokens[-1] for layer in range(DEEP - 1)]
    assert 0 < sum(int(a.sum()) for a in agrees) < sum(map(len, agrees))  # both kinds occur
    gate = model.exit_gate
    expected = torch.zeros((), dtype=torch.float64)
    for layer, right in enumerate(agrees):
        p = torch.sigmoid(normed[layer] @ gate.weight[layer] + gate.bias[layer])
        expected = expected - torch.where(right, p.log(), (1 - p).log()).mean() / (DEEP - 1)
    loss, stats, _ = model(**batch, draw=draw_of(7))
    torch.testing.assert_close(stats["exit_gate_loss"], expected)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, parameters.values(), allow_unused=True)
    got = dict(zip(parameters, found, strict=True))
    own = torch.autograd.grad(expected, [gate.weight, gate.bias])
    torch.testing.assert_close([got["exit_gate.weight"], got["exit_gate.bias"]], [*own])
    without = build_with_lora(config_of()).double().train()
    rest = {n: p for n, p in without.named_parameters() if p.requires_grad}
    plain = torch.autograd.grad(without(**batch)[0], rest.values(), allow_unused=True)
    for name, gradient in zip(rest, plain, strict=True):
        unused = got[name] is None and gradient is None  # experts of absent tasks
        assert unused or torch.equal(got[name], gradient), name


def test_drawn_layers_depend_on_the_number_alone_and_are_equally_frequent():
    layers = exit_layers(30, 1)
    drawn = [draw_layers(layers, 4, number) for number in range(2000)]
    assert drawn == [draw_layers(layers, 4, number) for number in range(2000)]
    assert all(len(set(some)) == 4 for some in drawn)
    counts = torch.bincount(torch.tensor(drawn).flatten(), minlength=30)
    assert counts[0] == 0
    # 2000 · 4 / 29 = 276 expected of each layer, standard deviation 15
    assert (counts[1:] - 276).abs().max() < 75


def test_the_mean_over_drawn_layers_is_the_loss_of_all(config_of, batch):
    every = build_with_lora(config_of(share=0.5)).train()
    some = build_with_lora(config_of(share=0.5, per_batch=1)).train()
    with torch.no_grad():
        expected = every(**batch, draw=draw_of(0))[1]["exit_loss"]
        by_layer = {}
        for number in range(40):
            [layer] = draw_layers([1, 2, 3, 4], 1, number)
            by_layer[layer] = some(**batch, draw=draw_of(number))[1]["exit_loss"]
    assert sorted(by_layer) == [1, 2, 3, 4]
    torch.testing.assert_close(sum(by_layer.values()) / 4, expected)


def test_a_training_batch_needs_a_draw(config_of, batch):
    with pytest.raises(ValueError, match="needs `draw`"):
        build_with_lora(config_of(share=0.5)).train()(**batch)


@pytest.mark.parametrize(
    "exits, message",
    [
        ({"share": 0.5, "stride": 5}, "exits.stride: 5: the LLM has 5 layers: choose 1 to 4"),
        ({"share": 0.5, "per_batch": 5}, "exits.per_batch: 5: with stride 1 there are 4 layers"),
        ({"shar": 0.5}, "model_conf.exits: unknown option 'shar': did you mean 'share'"),
    ],
)
def test_wrong_options_are_one_line(config_of, exits, message):
    with pytest.raises(PamError, match=message) as error:
        build_model(config_of(**exits))
    assert "\n" not in str(error.value)


def test_a_gate_may_be_at_some_layers_only(config_of):
    gate = build_model(config_of(gate=True, stride=2)).exit_gate
    assert gate.layers == [2, 4]
    assert sum(p.numel() for p in gate.parameters()) == 2 * (16 + 1)
