"""A system at a scale: its encoders, and the sizes of its fusion."""

import pytest

from pam.errors import UserError
from pam.train.systems import combine, select_encoders

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
