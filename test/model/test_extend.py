"""Extending a trained model: bit for bit the same at first, and only what is new trains."""

import copy
import json

import pytest
import torch
import yaml
from toys import make_batch

from pam.bin import extend
from pam.config import load_yaml
from pam.errors import PamError
from pam.fusion import FUSIONS, build_fusion
from pam.fusion.probe import run_once
from pam.model.build import build_model, load_experiment

THIRD = {"family": "wavlm", "path": "nowhere", "dim": 10, "num_states": 4}
PROMPTS = ["Write it down.", "How many speakers?", "Write it down.", "What sounds?"]
TEXTS = ["hello there", "two", "a", "a bell"]


def save(exp, config):
    """A trained experiment: every learned weight is away from where it started."""
    torch.manual_seed(3)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.4)
    exp.mkdir()
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), exp / "model.pth")
    return model


@pytest.fixture
def exp(tmp_path):
    return tmp_path / "old"


@pytest.fixture
def scale(tmp_path):
    file = tmp_path / "scale.yaml"
    file.write_text(yaml.safe_dump({"encoders": {"third": THIRD, "fourth": THIRD | {"dim": 5}}}))
    return str(file)


def add_encoder(exp, out, scale, name="third"):
    extend.main(
        ["--exp", str(exp), "--out", str(out), "--add_encoder", name, "--scale_config", scale]
    )
    return load_experiment(out)


def batch_of(model, frames=(7, 4, 5, 9)):
    return make_batch(model, PROMPTS, TEXTS, [0, 2, 0, 3], list(frames))


SYSTEMS = [
    {"fusion": "pam", "fusion_conf": {"num_fused": 2}},
    {"fusion": "pam", "fusion_conf": {"rank": 3}},
    {"fusion": "pam", "fusion_conf": {"adapter": {"kind": "linear", "norm": True, "stack": 2}}},
    {"fusion": "pam", "fusion_conf": {"shared": False}},
    {"fusion": "pam", "fusion_conf": {"routed": False}},
    {
        "router_conf": {"gate": "probability"},
        "model_conf": {"routing": "predicted", "routing_loss": False, "bf16": False},
    },
    {"fusion": "concat", "fusion_conf": {}},
]


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_a_new_encoder_changes_nothing_at_first(tiny_config, exp, scale, tmp_path, system):
    config = tiny_config | system
    old = save(exp, config).eval()
    new = add_encoder(exp, tmp_path / "new", scale)
    assert [s.name for s in new.shapes] == ["first", "second", "third"]
    more = add_encoder(tmp_path / "new", tmp_path / "newer", scale, "fourth")
    for model in (new, more):
        batch = batch_of(model)
        loss, stats, _ = old(**{k: v for k, v in batch.items() if not k.startswith(("thi", "fou"))})
        again, new_stats, _ = model(**batch)
        assert torch.equal(loss, again)
        # Features of real size too: there one wider product would round in another way.
        assert all(torch.equal(stats[k], new_stats[k]) or stats[k].isnan() for k in stats)
    again.backward()
    for key in ("adapters.3.last.weight", "adapters.2.last.weight"):
        assert not more.fusion.get_parameter(key).grad.any()  # behind columns of zeros
    joins = [m for m in more.fusion.modules() if hasattr(m, "new")]
    assert joins and any(
        m.new[1].weight.grad.abs().sum() > 0 for m in joins if m.new[1].weight.grad is not None
    )


@pytest.mark.parametrize("width", [64, 192])
def test_a_wide_mixture_is_the_same_bit_for_bit(width):
    """One product over more columns is not: see `pam.fusion.extend`."""
    from pam.model.extend import fill, widen

    torch.manual_seed(0)
    old = build_fusion("pam", [24, 40], [3, 2], width, 2, {})
    new = build_fusion("pam", [24, 40, 16], [3, 2, 4], width, 2, {"extended": 1})
    fill(new, {f"fusion.{k}": v for k, v in old.state_dict().items()}, "fusion.", widen)
    states = [torch.randn(2, s, 30, d) for d, s in ((24, 3), (40, 2), (16, 4))]
    assert torch.equal(run_once(old, states[:2], 2), run_once(new, states, 2))


def test_a_new_encoder_is_learned(tiny_config, exp, scale, tmp_path):
    save(exp, tiny_config)
    model = add_encoder(exp, tmp_path / "new", scale)
    batch = batch_of(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(**batch)[0].backward()
        optimizer.step()
    assert model.fusion.adapters[2].last.weight.grad.abs().sum() > 0
    before = model(**batch)[0]
    assert before != model(**batch | {"third": batch["third"] + 1})[0]


EXTENDABLE = ("pam", "moe_audio", "concat", "wavllm", "salmonn")
EXTENDABLE += ("concat_all_layers", "concat_norm_layers")


@pytest.mark.parametrize("name", FUSIONS.names())
def test_every_fusion_is_extended_or_refused(tiny_config, exp, scale, tmp_path, name):
    config = tiny_config | {"fusion": name, "fusion_conf": {}}
    if name.startswith("single"):
        config["encoders"] = {"first": config["encoders"]["first"]}
    save(exp, config)
    try:
        model = add_encoder(exp, tmp_path / "new", scale)
    except PamError as error:
        assert name not in EXTENDABLE, error
        assert "\n" not in str(error)
        assert not (tmp_path / "new").exists()
        return
    assert name in EXTENDABLE
    old = load_experiment(exp)
    batch = batch_of(model)
    mine = {k: v for k, v in batch.items() if not k.startswith("third")}
    torch.testing.assert_close(model(**batch)[0], old(**mine)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("new", ["encoder", "task"])
@pytest.mark.parametrize("lost", ["fusion.adapters.0.last.weight", "fusion.experts.1.weight"])
def test_a_checkpoint_that_lacks_a_weight_is_refused(
    three_tasks, exp, scale, tmp_path, ac_prompts, new, lost
):
    """Nothing may stand in for it as it was initialised."""
    weights = save(exp, three_tasks).state_dict()
    torch.save({key: value for key, value in weights.items() if key != lost}, exp / "model.pth")
    with pytest.raises(PamError, match=f"another system: {lost} is missing"):
        if new == "encoder":
            add_encoder(exp, tmp_path / "new", scale)
        else:
            add_task(exp, tmp_path / "new", ac_prompts)
    assert not (tmp_path / "new").exists()
    (exp / "model.pth").write_bytes(b"half a file")
    with pytest.raises(PamError, match="model.pth cannot be read: ") as error:
        add_encoder(exp, tmp_path / "new", scale)
    assert "\n" not in str(error.value)


def test_softmax_weights_cannot_be_extended(tiny_config, exp, scale, tmp_path):
    save(exp, tiny_config | {"fusion_conf": {"weights": "softmax"}})
    with pytest.raises(PamError, match="'pam' cannot take a further encoder without"):
        add_encoder(exp, tmp_path / "new", scale)


# --- tasks


@pytest.fixture
def three_tasks(tiny_config):
    return tiny_config | {"tasks": ["asr_clean", "asr_noisy", "snv"]}


@pytest.fixture
def ac_prompts(tmp_path, monkeypatch):
    """Prompts of ac, which the copy of conf/prompts lacks."""
    import shutil

    from pam.data import prompts

    home = tmp_path / "prompts"
    shutil.copytree(extend.HOME, home)
    file = tmp_path / "ac.yaml"
    (home / "ac.yaml").rename(file)
    monkeypatch.setattr(extend, "HOME", home)
    for module in (prompts, extend):
        monkeypatch.setattr(
            module, "prompt_files", lambda: {f.stem: f for f in sorted(home.glob("*.yaml"))}
        )
    return file


def add_task(exp, out, prompts, task="ac"):
    extend.main(
        ["--exp", str(exp), "--out", str(out), "--add_task", task, "--prompts", str(prompts)]
    )
    return load_experiment(out)


def test_a_new_task_leaves_the_old_ones_as_they_were(three_tasks, exp, tmp_path, ac_prompts):
    old = save(exp, three_tasks).eval()
    new = add_task(exp, tmp_path / "new", ac_prompts)
    assert new.tasks == ["asr_clean", "asr_noisy", "snv", "ac"]
    assert (ac_prompts.parent / "prompts/ac.yaml").read_text() == ac_prompts.read_text()
    prompts = [f"Prompt number {n}?" for n in range(40)]
    old_choice = old.prompt_posteriors(prompts).argmax(-1)
    assert torch.equal(new.prompt_posteriors(prompts).argmax(-1), old_choice)
    assert len(set(old_choice.tolist())) > 1
    experts = [copy.deepcopy(e.state_dict()) for e in new.fusion.experts]
    for name, value in experts[3].items():
        mean = torch.stack([e[name] for e in experts[:3]]).mean(0)
        torch.testing.assert_close(value, mean)


def test_only_the_new_expert_and_its_row_train(three_tasks, exp, tmp_path, ac_prompts):
    save(exp, three_tasks)
    model = add_task(exp, tmp_path / "new", ac_prompts)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert set(before) == set(build_model(load_yaml(exp / "config.yaml")).state_dict()) | {
        name for name in before if ".experts.3." in name
    }
    from pam.train.task import PaMTask

    class Args:
        optim, optim_conf = "adamw", {"lr": 0.1, "weight_decay": 0.5}

    (optimizer,) = PaMTask.build_optimizers(Args, model)
    batch = batch_of(model)
    for _ in range(3):
        optimizer.zero_grad()
        model(**batch)[0].backward()
        optimizer.step()
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    experts = {name for name in before if name.startswith("fusion.experts.3.")}
    assert moved == experts | {"router.ffn.weight", "router.ffn.bias"}
    for name in ("router.ffn.weight", "router.ffn.bias"):
        assert torch.equal(before[name][:3], after[name][:3])
        assert (before[name][3] != after[name][3]).any()


def test_trainable_patterns_of_a_configuration(tiny_config, tmp_path, batch):
    model = build_model(tiny_config | {"trainable": ["*lora_*", "router.*"]})
    moving = {name for name, p in model.named_parameters() if p.requires_grad}
    assert moving and all("lora_" in name or name.startswith("router.") for name in moving)
    everything = build_model(tiny_config).state_dict()
    assert model.state_dict().keys() == everything.keys()  # checkpoints stay whole
    with pytest.raises(PamError, match="missing .'fusion"):
        model.load_state_dict({k: v for k, v in everything.items() if "fusion" not in k})
    for patterns, message in (
        (["fusion.expert.*"], "trainable: 'fusion.expert.*': "),
        ([{"router.ffn.*": [4]}], "router.ffn.weight has 4 rows, so no row 4"),
    ):
        with pytest.raises(PamError, match=message):
            build_model(tiny_config | {"trainable": patterns})


def test_a_task_that_is_not_described_leaves_no_file(three_tasks, exp, tmp_path, ac_prompts):
    save(exp, three_tasks)
    file = tmp_path / "muzak.yaml"
    file.write_text("task: muzak\ntrain: [Name the tune.]\nunseen: [Which song is it?]\n")
    with pytest.raises(PamError, match="unknown task 'muzak'"):
        add_task(exp, tmp_path / "new", file, task="muzak")
    assert not (ac_prompts.parent / "prompts/muzak.yaml").exists()
    assert not (tmp_path / "new").exists()


def test_fusions_without_experts_take_no_task(three_tasks, exp, tmp_path, ac_prompts):
    save(exp, three_tasks | {"fusion": "concat", "fusion_conf": {}})
    with pytest.raises(PamError, match="fusion 'concat' has no expert for each task"):
        add_task(exp, tmp_path / "new", ac_prompts)
    assert not (ac_prompts.parent / "prompts/ac.yaml").exists()


NO_LABEL = {"routing": "predicted", "routing_loss": False, "bf16": False}


@pytest.mark.parametrize(
    "system, message",
    [
        ({"router_conf": {"gate": "probability"}}, "would lower the gates of the others"),
        ({"router_conf": {"gate": "probability"}, "model_conf": NO_LABEL}, "belong to no task"),
        ({"fusion": "moe_audio", "fusion_conf": {}}, "belong to no task"),
    ],
    ids=["probability", "no_label", "moe_audio"],
)
def test_gates_that_a_further_expert_would_change_are_refused(
    three_tasks, exp, tmp_path, ac_prompts, system, message
):
    """Of R equal logits a softmax makes 1/R, of one more 1/(R + 1)."""
    save(exp, three_tasks | system)
    with pytest.raises(PamError, match=message) as error:
        add_task(exp, tmp_path / "new", ac_prompts)
    assert "\n" not in str(error.value) and not (tmp_path / "new").exists()
    assert not (ac_prompts.parent / "prompts/ac.yaml").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--add_encoder", "third"], "--scale_config is missing"),
        (
            ["--add_encoder", "thrd", "--scale_config", "SCALE"],
            "no encoder 'thrd': did you mean 'third'",
        ),
        (["--add_encoder", "third", "--scale_config", "SCALE", "--out", "EXP"], "already"),
        (["--add_task", "snv", "--prompts", "x.yaml"], "the system has it already"),
        (["--add_task", "ac", "--prompts", "x.yaml"], "--prompts x.yaml: no such file"),
    ],
)
def test_mistakes_are_one_line(three_tasks, exp, scale, tmp_path, options, message):
    save(exp, three_tasks)
    places = {"SCALE": scale, "EXP": str(exp)}
    options = [
        "--exp",
        str(exp),
        "--out",
        str(tmp_path / "new"),
        *(places.get(o, o) for o in options),
    ]
    with pytest.raises(PamError, match=message) as error:
        extend.main(options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_prompts_that_clash_are_not_installed(three_tasks, exp, tmp_path, ac_prompts):
    save(exp, three_tasks)
    first = load_yaml(ac_prompts.parent / "prompts/snv.yaml")["train"][0]
    ac_prompts.write_text(yaml.safe_dump({"task": "ac", "train": [first], "unseen": ["b"]}))
    with pytest.raises(PamError, match="the same as"):
        add_task(exp, tmp_path / "new", ac_prompts)
    assert not (ac_prompts.parent / "prompts/ac.yaml").exists()
    assert not (tmp_path / "new").exists()


def test_comparison_says_what_was_lost(tmp_path, capsys):
    def results(wer, accuracy, routed):
        sets = {
            "a_test": {"task": "asr_clean", "metric": "wer", "value": wer, "ci95": [1.0, 2.0]},
            "s_test": {"task": "snv", "metric": "accuracy", "value": accuracy},
        }
        return {"sets": sets, "router": {"unseen": {"accuracy": routed}}}

    for name, value in (("old", results(10.0, 50.0, 99.0)), ("new", results(12.5, 53.0, 98.0))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(value))
    extend.main(["--compare", str(tmp_path / "old"), str(tmp_path / "new")])
    out = capsys.readouterr().out
    assert (
        "| a_test | asr_clean | WER % | 10.00 (95 % CI 1.0–2.0) | 12.50 (95 % CI 1.0–2.0) | 2.50 |"
        in out
    )
    assert "| s_test | snv | accuracy % | 50.00 | 53.00 | -3.00 |" in out
    assert "| unseen prompts | all | routing accuracy % | 99.00 | 98.00 | 1.00 |" in out
    with pytest.raises(PamError, match="nowhere.*run stage 8"):
        extend.main(["--compare", str(tmp_path / "old"), str(tmp_path / "nowhere")])


def add_gate(exp, out, stride="1"):
    extend.main(["--exp", str(exp), "--out", str(out), "--add_exit_gate", stride])


def test_a_new_exit_gate_is_all_that_is_trained(tiny_config, exp, tmp_path):
    config = tiny_config | {"model_conf": {"bf16": False, "word_dropout": 0.2}}
    old = save(exp, config).eval()
    add_gate(exp, tmp_path / "new")
    new = load_experiment(tmp_path / "new")
    assert torch.equal(new(**batch_of(new))[0], old(**batch_of(old))[0])
    assert new.trainable_names() == {"exit_gate.weight", "exit_gate.bias"}
    assert new.learned_names() == old.learned_names() | new.trainable_names()
    assert new.word_dropout == 0  # decoding drops none
    new.train()(**batch_of(new), draw=torch.tensor(1))[0].backward()
    moved = {name for name, p in new.named_parameters() if p.grad is not None}
    assert moved == new.trainable_names()


def test_an_exit_gate_that_cannot_be_added_is_one_line(tiny_config, exp, tmp_path):
    save(exp, tiny_config)
    add_gate(exp, tmp_path / "new")
    for source, out, stride, message in (
        (tmp_path / "new", "newer", "1", "--add_exit_gate: the system has one already"),
        (exp, "newer", "0", "--add_exit_gate 0: expected 1 or more"),
        (exp, "newer", "2", "exits.stride: 2: the LLM has 2 layers: choose 1 to 1"),
    ):
        with pytest.raises(PamError, match=message) as error:
            add_gate(source, tmp_path / out, stride)
        assert "\n" not in str(error.value) and not (tmp_path / out).exists()
