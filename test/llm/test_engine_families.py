"""Which LLMs the decoding engine can run."""

import pytest
import torch
from families import FAMILIES, tiny_of
from test_families import REFUSED, load

from pam.decode.engine import Engine, engine_fault, shortest_window
from pam.llm.merged import merged_copy

ALIBI = "bloom falcon mpt"


def test_an_llm_with_windows_has_a_limit(monkeypatch, tiny_llm):
    whole = merged_copy(load(monkeypatch, tiny_llm, tiny_of("llama")))
    assert shortest_window(whole) == float("inf")
    windows = merged_copy(load(monkeypatch, tiny_llm, tiny_of("mistral")))
    assert shortest_window(windows) == 6


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - REFUSED.keys()))
def test_the_engine_runs_a_family_or_says_why_not(monkeypatch, tiny_llm, family):
    """Windows are as long as the text here, so that only the family counts."""
    lm = merged_copy(load(monkeypatch, tiny_llm, tiny_of(family)))
    fault = engine_fault(lm)
    print(family, fault, shortest_window(lm))


def test_wrong_states_are_found(monkeypatch, tiny_llm):
    lm = merged_copy(load(monkeypatch, tiny_llm, tiny_of("llama")))
    assert engine_fault(lm) is None
    monkeypatch.setattr(Engine, "read", lambda self, items: torch.zeros(len(items), lm.width))
    assert "differ from those of one pass" in engine_fault(lm)
