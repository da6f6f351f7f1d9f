"""What a training takes from the experiment that it starts from, and what from its files."""

import json
import re

import pytest
import yaml

from pam.bin import train
from pam.config import compose, load_yaml
from pam.errors import PamError

FUSIONS = {"pam": {"rank": 8}, "concat_all_layers": {"expansion": 2.0}}


def arguments(options, *more):
    return train.get_parser().parse_args([*options, *more])


@pytest.fixture
def old(setup, tmp_path):
    """An experiment of PaM to start from, with another rank of LoRA and checkpointing."""
    _, options = setup
    set_ = ["llm_conf.lora_rank=3", "llm_conf.gradient_checkpointing=true"]
    config = train.effective_config(arguments(options, *(f"--set={one}" for one in set_)))
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    (folder / "model.pth").write_bytes(b"weights")
    return folder


def change(file, **keys):
    file.write_text(yaml.safe_dump((load_yaml(file) or {}) | keys))


def test_only_the_model_is_the_old_one(setup, old, tmp_path):
    """Rates, batches and prompts are those of the files, and made.json records what is trained."""
    _, options = setup
    change(tmp_path / "toy.yaml", fusions=FUSIONS)
    rates = {"lr": 1e-5, "lora_lr": 2e-5}
    own = {"accum_grad": 2, "merge_asr_prompts": True, "phases": {"llm": {"optim_conf": rates}}}
    change(tmp_path / "pam.yaml", **own, router_conf={"gate": "probability"})
    args = arguments(options, "--init", str(old))
    config, made = train.effective_config(args), train.making_of(args).settings
    before = load_yaml(old / "config.yaml")
    assert config["accum_grad"] == 2 and config["merge_asr_prompts"] is True
    assert config["phases"]["llm"]["optim_conf"] == rates
    for part in ("fusion", "fusion_conf", "router_conf", "encoders", "tasks"):
        assert config[part] == before[part], part
    assert config["llm_conf"]["lora_rank"] == 3
    same = config.keys() & made.keys() - {"warmup"}
    assert {key: config[key] for key in same} == {key: made[key] for key in same}
    assert made["accum_grad"] == 2 and made["phases.llm.optim_conf.lr"] == 1e-5
    assert made["llm_conf.lora_rank"] == 3 and "fusion_conf.rank" not in made
    assert config["warmup"] == "none" and config["init"] == str(old)
    change(tmp_path / "pam.yaml", trainable=["router.*"])
    assert train.effective_config(args)["trainable"] == ["router.*"]
    change(old / "config.yaml", trainable=["fusion.*"])  # as pam.bin.extend writes it
    assert train.effective_config(args)["trainable"] == ["fusion.*"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--llm_config", "other.yaml"], "--llm_config: the model of --init has its LLM"),
        (["--system_config", "{}/concat.yaml"], "fusion: concat_all_layers, but the model of"),
    ],
)
def test_another_llm_or_fusion_than_that_of_the_start_is_refused(
    setup, old, tmp_path, more, message
):
    _, options = setup
    (tmp_path / "concat.yaml").write_text("fusion: concat_all_layers\n")
    given = [one.format(tmp_path) for one in more]
    with pytest.raises(PamError, match=re.escape(message)) as error:
        train.main([*options, "--init", str(old), *given])
    assert "\n" not in str(error.value)


def test_factors_of_encoders_that_the_old_model_lacks_have_no_effect(setup, old, tmp_path):
    _, options = setup
    phases = load_yaml(tmp_path / "toy.yaml")["phases"]
    phases["llm"]["optim_conf"]["lr_factors"] = {"second": 0.5}
    change(tmp_path / "toy.yaml", phases=phases)
    before = load_yaml(old / "config.yaml")
    assert "second" in before["encoders"]
    change(old / "config.yaml", encoders={"first": before["encoders"]["first"]})
    config = train.effective_config(arguments(options, "--init", str(old)))
    assert [*config["encoders"]] == ["first"]
    phases["llm"]["optim_conf"]["lr_factors"] = {"secnod": 0.5}
    change(tmp_path / "toy.yaml", phases=phases)
    with pytest.raises(PamError, match="'secnod' is not an encoder: did you mean 'second'"):
        train.effective_config(arguments(options, "--init", str(old)))


def test_what_fits_into_memory_still_does_after_a_kill(setup, old, tmp_path):
    exp, options = setup
    args = arguments(options, "--init", str(old))
    begun = train.configuration(args, train.making_of(args))
    assert begun["llm_conf"]["gradient_checkpointing"] is True
    (exp / "train").mkdir(parents=True)
    (exp / "train" / "checkpoint.pth").write_bytes(b"")
    change_to = exp / "config.yaml"
    change_to.write_text(yaml.safe_dump(json.loads(json.dumps(begun))))
    with pytest.raises(KeyboardInterrupt), train.making_of(args).work():
        raise KeyboardInterrupt
    making = train.making_of(args)
    assert train.is_frozen(making)
    assert train.configuration(args, making) == load_yaml(change_to)


def test_a_finished_experiment_does_not_need_its_start(setup, old, tmp_path):
    exp, options = setup
    exp.mkdir()
    args = arguments(options, "--init", str(old))
    text = json.dumps(train.effective_config(args))
    (exp / "config.yaml").write_text(yaml.safe_dump(json.loads(text)))
    making = train.making_of(args)
    with making.work():
        pass
    old.rename(tmp_path / "moved")
    assert train.pending(args) is None
    (exp / "made.json").unlink()
    with pytest.raises(PamError, match=r"--init \S+old: there is no model.pth"):
        train.pending(args)
    (exp / "config.yaml").unlink()
    with pytest.raises(PamError, match=r"--init \S+old: there is no model.pth"):
        train.pending(args)


def test_anothers_warm_up_is_used_whatever_the_scale_and_the_data_say(setup, tmp_path):
    """A scale without a warm-up, and data without its texts, have none of their own."""
    exp, options = setup
    (tmp_path / "other/warmup").mkdir(parents=True)
    (tmp_path / "other/warmup/last.pth").write_bytes(b"")
    more = ["--warm_from", str(tmp_path / "other")]
    change(tmp_path / "toy.yaml", budgets={"short": {"steps": 12, "steps_per_epoch": 4}})
    for keys in ({"warmup": "none"}, {"warmup": "ctc", "warmup_tasks": []}):
        change(tmp_path / "toy.yaml", **keys)
        config = train.effective_config(arguments(options, *more))
        assert config["warmup"] == "ctc" and config["warm_from"] == str(tmp_path / "other")
        assert train.effective_config(arguments(options, "--warmup", "none"))["warmup"] == "none"


@pytest.mark.parametrize("key", ["batch", "budgets", "llm_conf", "phases", "feats"])
def test_a_scale_without_a_section_is_one_line(setup, tmp_path, key):
    _, options = setup
    scale = load_yaml(tmp_path / "toy.yaml")
    del scale[key]
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(scale))
    with pytest.raises(PamError, match=rf"toy.yaml: {key} is missing"):
        train.pending(arguments(options))


@pytest.mark.parametrize("key", ["max_utts", "max_frames"])
def test_a_batch_without_a_limit_is_one_line(setup, tmp_path, key):
    _, options = setup
    batch = load_yaml(tmp_path / "toy.yaml")["batch"]
    del batch[key]
    change(tmp_path / "toy.yaml", batch=batch)
    with pytest.raises(PamError, match=rf"toy.yaml: batch: {key} is missing"):
        train.pending(arguments(options))


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_a_seed_that_numpy_refuses_is_one_line(setup, seed):
    _, options = setup
    with pytest.raises(PamError, match=rf"--seed {seed}: expected 0 to 4294967295"):
        train.main([*options, f"--seed={seed}"])


def test_sizes_of_fusions_may_stand_in_the_systems_file():
    scale = {"encoders": {"one": {"path": "x"}}, "fusions": {"pam": {"num_fused": 3, "rank": 8}}}
    found = compose(scale, {"fusion": "pam", "fusions": {"pam": {"rank": 4}}})
    assert found.fusion_conf == {"num_fused": 3, "rank": 4}


def test_another_fusion_by_set_has_its_sizes():
    scale = {"encoders": {"one": {"path": "x"}}, "fusions": FUSIONS}
    found = compose(scale, {"fusion": "pam"}, ["fusion=concat_all_layers"])
    assert found.fusion_conf == FUSIONS["concat_all_layers"]
