"""Which LLMs the decoding engine can run."""

import pytest
import torch
from families import FAMILIES, SIZES, tiny_of
from test_families import REFUSED, load

from pam.decode.engine import Engine, engine_fault, shortest_window
from pam.llm.merged import merged_copy

ALIBI = ("bloom", "falcon")  # their distances come from a mask of two dimensions


def test_an_llm_with_windows_has_a_limit(monkeypatch, tiny_llm):
    whole = merged_copy(load(monkeypatch, tiny_llm, tiny_of("llama")))
    assert shortest_window(whole) == float("inf")
    windows = merged_copy(load(monkeypatch, tiny_llm, tiny_of("mistral")))
    assert shortest_window(windows) == 6


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - REFUSED.keys()))
def test_the_engine_runs_a_family_or_finds_that_it_cannot(monkeypatch, tiny_llm, family):
    """With windows longer than the text: the family alone counts."""
    longer = {name: 128 for name, value in SIZES.items() if value == 6}
    assert longer
    monkeypatch.setattr("families.SIZES", SIZES | longer)
    lm = merged_copy(load(monkeypatch, tiny_llm, tiny_of(family)))
    fault = engine_fault(lm)
    assert (fault is not None) == (family in ALIBI)
    assert fault is not None or shortest_window(lm) >= 128


def test_a_window_shorter_than_the_text_is_found(monkeypatch, tiny_llm):
    windows = merged_copy(load(monkeypatch, tiny_llm, tiny_of("mistral")))
    assert "differ from those of one pass" in engine_fault(windows)


def test_wrong_states_are_found(monkeypatch, tiny_llm):
    lm = merged_copy(load(monkeypatch, tiny_llm, tiny_of("llama")))
    assert engine_fault(lm) is None
    monkeypatch.setattr(Engine, "read", lambda self, items: torch.zeros(len(items), lm.width))
    assert "differ from those of one pass" in engine_fault(lm)
