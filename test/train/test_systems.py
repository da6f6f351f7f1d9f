"""A system at a scale: its encoders, and the sizes of its fusion."""

import re
from pathlib import Path

import pytest

from pam.errors import UserError
from pam.train.schema import check_budget
from pam.train.systems import combine, read_layers, select_encoders

ROOT = Path(__file__).resolve().parents[2]

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
        (["wavlm", "wake"], "wavlm, wake are here wake, wake: name each encoder once"),
        ("whisper", "expected a list of names"),
        ([], "expected a list of names"),
        (["lost"], "stand_ins.lost: 'nothing' is no encoder"),
    ],
)
def test_bad_choices_are_one_clear_line(chosen, message):
    with pytest.raises(UserError, match=message):
        select_encoders(ENCODERS, chosen, STAND_INS)


def test_a_family_of_two_must_be_told_apart():
    two = ENCODERS | {"whisper_b": {"family": "whisper", "dim": 4}}
    with pytest.raises(UserError, match="'whisper' may be whisper_a or whisper_b"):
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
    "encoders": {"whisper": {"family": "whisper", "path": "x", "dim": 1, "num_states": 2}},
    "batch": {"max_utts": 8, "max_frames": 100},
    "phases": {"llm": {"optim_conf": {"lr": 1e-3}, "warmup_steps": 2, "floor": 0.1}, "ctc": {}},
    "budgets": {"short": {"ctc_steps": 1, "epochs": 0.5, "steps_per_epoch": 5}},
}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("budgets.short.stepz=3", "budgets.short: unknown option 'stepz': did you mean 'steps'"),
        ("budgets.short.steps=abc", "budgets.short.steps: 'abc': expected a whole number from 1"),
        ("budgets.short.epochs=0", "budgets.short.epochs: 0: expected a number above 0"),
        ("budgets.short=5", "budgets.short: 5: expected a section of options"),
        ("phases.llm.warmup_step=3", "unknown option 'warmup_step': did you mean 'warmup_steps'"),
        ("phases.llm.floor=2", "phases.llm.floor: 2: expected a number from 0 to 1"),
        ("phases.lm={}", "phases: unknown option 'lm': did you mean 'llm'"),
        ("phases.llm.optim_conf.lora_rl=1", "optim_conf: unknown option 'lora_rl': did you mean"),
        ("phases.llm.optim_conf.lr=fast", "optim_conf.lr: 'fast': expected a number"),
        ("batch.max_uts=3", "batch: unknown option 'max_uts': did you mean 'max_utts'"),
        ("batch.max_utts=-3", "batch.max_utts: -3: expected a whole number from 1"),
        ("batch.max_utts=true", "batch.max_utts: True: expected a whole number from 1"),
        ("encoders.whisper.dym=3", "encoders.whisper: unknown option 'dym': did you mean 'dim'"),
        ("log_interval=0", "log_interval: 0: expected a whole number from 1"),
        ("warmup_tasks=[asr_claen]", "unknown task 'asr_claen': did you mean 'asr_clean'"),
    ],
)
def test_wrong_keys_and_values_at_any_depth_are_one_clear_line(assignment, message):
    combine(GOOD, {"fusion": "pam"})
    with pytest.raises(UserError) as error:
        combine(GOOD, {"fusion": "pam"}, [assignment])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_key_of_a_file_names_the_file(tmp_path):
    scale, system = tmp_path / "scale.yaml", tmp_path / "system.yaml"
    scale.write_text("budgets: {short: {stepz: 3}}\n")
    system.write_text("fusion: pam\n")
    with pytest.raises(UserError, match=r"scale.yaml: budgets.short: unknown option 'stepz'"):
        read_layers(scale, system)
    scale.write_text("batch: {max_utts: 3}\n")
    system.write_text("phases: {lm: {}}\n")
    with pytest.raises(UserError, match=r"system.yaml: phases: unknown option 'lm'"):
        read_layers(scale, system)


def test_a_budget_says_how_long_every_phase_is():
    check_budget({"steps": 1, "steps_per_epoch": 1}, "short", "none")
    with pytest.raises(UserError, match="budgets.short: ctc_steps is missing"):
        check_budget({"steps": 1, "steps_per_epoch": 1}, "short", "ctc")
    with pytest.raises(UserError, match="budgets.b: steps_per_epoch, steps or epochs is missing"):
        check_budget({}, "b", "none")


def test_the_example_of_train_args_in_the_help_is_a_setting_that_exists():
    options = (ROOT / "utils" / "options.sh").read_text(encoding="utf-8")
    (example,) = re.findall(r'pam.bin.train, as in "--set ([^"]+)"', options)
    layers = read_layers(ROOT / "conf/scale/mini.yaml", ROOT / "conf/systems/pam.yaml")
    assert combine(*layers, [example])["phases"]["llm"]["optim_conf"]["lr"] == 1e-4
