"""A system at a scale: its encoders, and the sizes of its fusion."""

import inspect

import pytest
import torch

from pam.config import (
    Budget,
    Optim,
    Phases,
    check_budget,
    check_phases,
    keys_of,
    read_layers,
    select_encoders,
    typed,
)
from pam.errors import PamError
from pam.train.systems import combine

ENCODERS = {
    "whisper_a": {"family": "whisper", "dim": 1},
    "moon": {"family": "moonshine", "dim": 2},
    "wake": {"family": "wakehubert", "dim": 3},
}
STAND_INS = {"wav2vec2": "moon", "wavlm": "wake", "lost": "nothing"}


@pytest.mark.parametrize(
    "chosen, expected",
    [
        (None, ["whisper_a", "moon", "wake"]),
        (["whisper"], ["whisper_a"]),  # a family
        (["wake"], ["wake"]),  # its own name
        (["wavlm"], ["wake"]),  # what stands in for it
        (["wavlm", "whisper"], ["whisper_a", "wake"]),  # in the scale's order
    ],
)
def test_names_families_and_stand_ins(chosen, expected):
    found = select_encoders(ENCODERS, chosen, STAND_INS)
    assert list(found) == expected
    assert all(found[name] is ENCODERS[name] for name in expected)


@pytest.mark.parametrize(
    "chosen, message",
    [
        (["wisper"], "unknown encoder 'wisper': did you mean 'whisper'"),
        (["wavlm", "wake"], "wavlm, wake select wake, wake: name each encoder once"),
        ("whisper", "expected a list of names"),
        ([], "expected a list of names"),
        (["lost"], "stand_ins.lost: 'nothing' is not an encoder"),
    ],
)
def test_bad_choices_are_one_clear_line(chosen, message):
    with pytest.raises(PamError, match=message):
        select_encoders(ENCODERS, chosen, STAND_INS)


def test_a_family_of_two_must_be_told_apart():
    two = ENCODERS | {"whisper_b": {"family": "whisper", "dim": 4}}
    with pytest.raises(PamError, match="'whisper' can be whisper_a or whisper_b"):
        select_encoders(two, ["whisper"], {})
    assert list(select_encoders(two, ["whisper_b"], {})) == ["whisper_b"]


def test_sizes_of_a_fusion_replace_those_of_the_others():
    scale = {
        "encoders": ENCODERS,
        "fusion_conf": {"adapter": {"kind": "linear"}},
        "fusions": {"salmonn": {"queries": 4, "window": 5}},
    }
    salmonn = combine(scale, {"fusion": "salmonn", "fusion_conf": {"queries": 2}})
    assert salmonn["fusion_conf"] == {"queries": 2, "window": 5}
    pam = combine(scale, {"fusion": "pam", "fusion_conf": {"rank": 64}})
    assert pam["fusion_conf"] == {"adapter": {"kind": "linear"}, "rank": 64}
    assert not {"fusions", "use_encoders", "stand_ins"} & pam.keys()
    told = combine(scale, {"fusion": "salmonn"}, ["fusion_conf.queries=7", "use_encoders=[moon]"])
    assert told["fusion_conf"] == {"queries": 7, "window": 5}
    assert list(told["encoders"]) == ["moon"]


GOOD = {
    "llm_conf": {"path": "x"},
    "encoders": {"whisper": {"family": "whisper", "path": "x", "dim": 1, "num_states": 2}},
    "batch": {"max_utts": 8, "max_frames": 100},
    "phases": {"llm": {"optim_conf": {"lr": 1e-3}, "warmup_steps": 2, "floor": 0.1}, "ctc": {}},
    "budgets": {"short": {"ctc_steps": 1, "epochs": 0.5, "steps_per_epoch": 5}},
}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("budgets.short.stepz=3", "budgets.short: unknown option 'stepz': did you mean 'steps'"),
        (
            "budgets.short.steps=abc",
            "budgets.short.steps: 'abc': expected a whole number, at least 1",
        ),
        ("budgets.short.epochs=0", "budgets.short.epochs: 0: expected a number above 0"),
        ("budgets.short=5", "budgets.short: 5: expected a section of options"),
        ("phases.llm.warmup_step=3", "unknown option 'warmup_step': did you mean 'warmup_steps'"),
        ("phases.llm.floor=2", "phases.llm.floor: 2: expected a number from 0 to 1"),
        ("phases.lm.warmup_steps=3", "phases: unknown option 'lm': did you mean 'llm'"),
        ("phases.llm.optim_conf.lr=.inf", "optim_conf.lr: inf: expected a number"),
        ("phases.llm.optim_conf.betas=0.9", "optim_conf.betas: 0.9: expected two numbers"),
        ("phases.lm={}", "phases: unknown option 'lm': did you mean 'llm'"),
        ("phases.llm.optim_conf.lora_rl=1", "optim_conf: unknown option 'lora_rl': did you mean"),
        ("phases.llm.optim_conf.lr=fast", "optim_conf.lr: 'fast': expected a number"),
        (
            "phases.llm.optim_conf.lr_factors={whisper: 0}",
            "lr_factors.whisper: 0: expected a number above 0",
        ),
        (
            "phases.llm.optim_conf.lr_factors={wisper: 0.5}",
            "phases.llm.optim_conf.lr_factors: 'wisper' is not an encoder: did you mean 'whisper'",
        ),
        ("batch.max_uts=3", "batch: unknown option 'max_uts': did you mean 'max_utts'"),
        ("batch.max_utts=-3", "batch.max_utts: -3: expected a whole number, at least 1"),
        (f"batch.max_utts={10**23}", "batch.max_utts: 1000"),
        ("batch.max_utts=2147483648", "2147483648: expected a number of at most 2147483647"),
        (f"grad_clip={'9' * 400}", "expected a number of at most 2147483647"),
        (f"phases.llm.optim_conf.betas=[0.9, {'9' * 400}]", "expected two numbers"),
        ("phases.llm.optim_conf.betas=[0.9, 1.0]", "two numbers from 0 to below 1"),
        ("phases.llm.optim_conf.differentiable=true", "unknown option 'differentiable'"),
        ("trainable=[3]", "trainable: [3]: expected a list of patterns of names"),
        ("trainable=[{router.ffn.weight: 1}]", "expected a list of patterns of names"),
        ("trainable=[{router.ffn.weight: [x]}]", "expected a list of patterns of names"),
        ("tasks=[asr_clean, ac, asr_clean]", "expected a list of names that differ"),
        ("fusion_conf={1: 2}", "fusion_conf: the name 1 is not a text: put it in quotes"),
        ("batch.max_utts=true", "batch.max_utts: True: expected a whole number, at least 1"),
        ("encoders.whisper.dym=3", "encoders.whisper: unknown option 'dym': did you mean 'dim'"),
        ("encoders.wisper.dim=3", "encoders: unknown option 'wisper': did you mean 'whisper'"),
        ("encoders.whisper.family=wisper", "unknown encoder 'wisper': did you mean 'whisper'"),
        ("encoders.whisper.conf.dtipe=x", "whisper.conf: unknown option 'dtipe': did you mean"),
        ("encoders.whisper.conf.dtype=int8", "conf.dtype: 'int8': expected one of float32"),
        ("budgets.shrt.steps=3", "budgets: unknown option 'shrt': did you mean 'short'"),
        ("fusion_conf.rnk=3", "fusion_conf: unknown option 'rnk': did you mean 'rank'"),
        (
            "fusion_conf.num_fused=0",
            "fusion_conf.num_fused: 0: expected a whole number, at least 1",
        ),
        ("fusion_conf.adapter.stak=3", "fusion_conf.adapter: unknown option 'stak': did you mean"),
        ("fusion_conf.adapter.stack=x", "adapter.stack: 'x': expected a whole number, at least 1"),
        ("fusions.salmonn.queries=3", "give the options of the fusion as fusion_conf.OPTION"),
        ("router_conf.gaet=x", "router_conf: unknown option 'gaet': did you mean 'gate'"),
        ("llm_conf.lora_rnak=3", "llm_conf: unknown option 'lora_rnak': did you mean 'lora_rank'"),
        ("llm_conf.lora_dropout=2", "llm_conf.lora_dropout: 2: expected a number from 0 to 1"),
        ("model_conf.bf61=true", "model_conf: unknown option 'bf61': did you mean 'bf16'"),
        ("model_conf.bf16=3", "model_conf.bf16: 3: expected true or false"),
        ("stand_ins.wavlm=3", "stand_ins.wavlm: 3: expected a text"),
        ("feats=onlin", "feats: 'onlin': expected one of dumped, online"),
        ("accum_grad=0", "accum_grad: 0: expected a whole number, at least 1"),
        ("accum_grad=1.5", "accum_grad: 1.5: expected a whole number, at least 1"),
        ("accum_grad=two", "accum_grad: 'two': expected a whole number, at least 1"),
        ("merge_asr_prompts=3", "merge_asr_prompts: 3: expected true or false"),
        ("warmup_tasks=asr_clean", "warmup_tasks: 'asr_clean': expected a list of names"),
        ("log_interval=0", "log_interval: 0: expected a whole number, at least 1"),
        ("warmup_tasks=[asr_claen]", "unknown task 'asr_claen': did you mean 'asr_clean'"),
    ],
)
def test_wrong_keys_and_values_at_any_depth_are_one_clear_line(assignment, message):
    combine(GOOD, {"fusion": "pam"})
    with pytest.raises(PamError) as error:
        combine(GOOD, {"fusion": "pam"}, [assignment])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("scale", "system", "message"),
    [
        (
            "budgets: {short: {stepz: 3}}",
            "fusion: pam",
            r"scale.yaml: budgets.short: unknown option 'stepz'",
        ),
        (
            "batch: {max_utts: 3}",
            "phases: {lm: {}}",
            r"system.yaml: phases: unknown option 'lm'",
        ),
        (
            "fusions: {pam: {rnk: 3}}",
            "fusion: pam",
            r"scale.yaml: fusion\S+: unknown option 'rnk'.*'rank'",
        ),
        (
            "fusion_conf: {rnk: 3}",
            "fusion: pam",
            r"scale.yaml: fusion\S+: unknown option 'rnk'.*'rank'",
        ),
        ("batch: {}", "fusion: pma", r"system.yaml: fusion: unknown fusion 'pma'.*'pam'"),
    ],
)
def test_a_wrong_key_or_option_of_a_file_names_the_file(tmp_path, scale, system, message):
    files = tmp_path / "scale.yaml", tmp_path / "system.yaml"
    for file, text in zip(files, (scale, system), strict=True):
        file.write_text(f"{text}\n")
    with pytest.raises(PamError, match=message):
        read_layers(*files)


def test_a_budget_says_how_long_every_phase_is():
    check_budget(Budget(steps=1, steps_per_epoch=1), "short", "none")
    with pytest.raises(PamError, match="budgets.short: ctc_steps is missing"):
        check_budget(Budget(steps=1, steps_per_epoch=1), "short", "ctc")
    with pytest.raises(PamError, match="budgets.b: steps_per_epoch, steps or epochs is missing"):
        check_budget(Budget(), "b", "none")


def test_a_budget_has_steps_or_epochs():
    with pytest.raises(PamError, match="budgets.b: steps and epochs are both given"):
        check_budget(Budget(steps=1, epochs=1, steps_per_epoch=1), "b", "none")
    config = combine(GOOD, {"fusion": "pam"}, ["budgets.short.steps=7"])
    assert config["budgets"]["short"] == {"ctc_steps": 1, "steps": 7, "steps_per_epoch": 5}


def test_a_phase_that_runs_says_how():
    llm = {"optim_conf": {}, "warmup_steps": 1}
    check_phases(typed(Phases, {"llm": llm}), "none", False)
    with pytest.raises(PamError, match="phases: ctc is missing"):
        check_phases(typed(Phases, {"llm": llm}), "ctc", False)
    with pytest.raises(PamError, match="phases.ctc: optim_conf, warmup_steps is missing"):
        check_phases(typed(Phases, {"llm": llm, "ctc": {}}), "ctc", False)
    both = {"optim_conf": {"fused": True, "foreach": True}, "warmup_steps": 1}
    with pytest.raises(PamError, match="phases.llm.optim_conf: fused and foreach: leave out one"):
        check_phases(typed(Phases, {"llm": both}), "none", False)


def test_the_optimizer_takes_every_option():
    own = {f"{part}_{key}" for part in ("lora", "router") for key in ("lr", "weight_decay")}
    parameters = inspect.signature(torch.optim.AdamW).parameters
    own |= {"lr_factors", "muon_lr"}
    unusable = {"params", "differentiable"}  # an update changes leaves in their place
    assert set(keys_of(Optim)) - own == parameters.keys() - unusable


def test_systems_of_other_encoders_keep_all_factors():
    factors = "phases.llm.optim_conf.lr_factors={whisper: 0.5}"
    scale = GOOD | {"encoders": GOOD["encoders"] | {"other": {"family": "wavlm"}}}
    config = combine(scale, {"fusion": "pam", "use_encoders": ["other"]}, [factors])
    assert config["encoders"].keys() == {"other"}
    assert config["phases"]["llm"]["optim_conf"]["lr_factors"] == {"whisper": 0.5}
