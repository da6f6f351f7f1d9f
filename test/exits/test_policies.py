"""Where policies exit, what that costs, and the classes of tokens, on cases worked out by hand."""

from collections import Counter

import numpy as np
import pytest

from pam.exits import policies
from pam.exits.cost import Cost, cost_of
from pam.exits.tokens import frequencies_of, kinds_of, positions_of
from pam.model.architecture import on_meta

TOP = np.array([[7, 1, 3], [5, 2, 3], [7, 2, 3], [5, 2, 4], [5, 1, 3]])  # 5 layers, 3 tokens
AGREES = TOP[-1] == TOP


def test_the_oracle_is_the_first_layer_that_agrees_the_stable_one_the_last_change():
    assert policies.oracle(AGREES).tolist() == [2, 1, 1]
    assert policies.stable_oracle(AGREES).tolist() == [4, 5, 5]


def test_a_threshold_exits_at_the_first_checked_layer_that_reaches_it():
    scores = np.array(
        [[0.9, 0.1, 0.2], [0.2, 0.5, 0.4], [0.95, 0.9, 0.4], [1, 0.9, 0.5], [1, 1, 1]]
    )
    assert policies.by_threshold(scores, 0.9, [1, 2, 3, 4]).tolist() == [1, 3, 5]
    assert policies.by_threshold(scores, 0.9, [2, 4]).tolist() == [4, 4, 5]
    assert policies.by_threshold(scores, 0.0, [2, 4]).tolist() == [2, 2, 2]
    assert policies.predicted_at(TOP, np.array([1, 3, 5])).tolist() == [7, 2, 3]


def test_patience_counts_equal_predictions_of_checked_layers():
    assert policies.by_patience(TOP, 2, [1, 2, 3, 4]).tolist() == [5, 3, 2]
    assert policies.by_patience(TOP, 3, [1, 2, 3, 4]).tolist() == [5, 4, 3]
    assert policies.by_patience(TOP, 2, [2, 4]).tolist() == [4, 4, 5]


def test_operations_count_the_heads_of_the_checks():
    cost = Cost(layer=10.0, head=40.0, layers=6)  # 100 in all
    exits = np.array([2, 4, 6])
    assert cost.ratio(exits, [2, 4], False).tolist() == [0.6, 0.8, 1.0]
    assert cost.ratio(exits, [2, 4], True).tolist() == [0.6, 1.2, 1.8]


def test_which_exits_pay_in_qwen():
    """Qwen2.5-3B: a head is worth 4.04 layers; checks at every layer pay up to layer 7."""
    llm = on_meta("qwen2.5-3b")
    cost = cost_of(llm, llm.model.layers)
    assert round(cost.head / cost.layer, 2) == 4.04 and cost.layers == 36
    found = {stride: cost.pays_up_to(stride) for stride in (1, 2, 4, 6, 9)}
    assert found == {1: 7, 2: 12, 4: 16, 6: 18, 9: 27}


class Tokenizer:
    """Pieces of byte-level BPE; the id is the place."""

    pieces = ["Ġhel", "lo", ",", "wor", "ld", "Ġ2", "'", "s", "<end>", "Ċ", "Ġ"]

    def convert_ids_to_tokens(self, ids):
        return [self.pieces[i] for i in ids]


def test_kinds_and_positions_of_tokens():
    kinds = kinds_of(Tokenizer(), [0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 9, 10, 8], end=8)
    initial, more, mark = "word-initial", "continuation", "punctuation"
    assert kinds == [
        *(initial, more, mark, initial, more, more, more, initial, mark, initial, mark, mark),
        "end",
    ]
    first = [*"12", None, *"123", "4 and later", "1", None, "1", None, None, None]
    assert positions_of(kinds) == first
    assert kinds_of(Tokenizer(), [1, 1], end=8) == [initial, more]  # an answer begins with a word


def test_ranges_of_frequencies():
    counts = Counter({1: 1, 2: 9, 3: 10, 4: 999, 5: 1000, 6: 123456})
    assert frequencies_of(range(7), counts) == [
        *("0", "1 to 9", "1 to 9", "10 to 99", "100 to 999", "1000 and more", "1000 and more"),
    ]


@pytest.mark.parametrize("stride, layers", [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3])])
def test_checked_layers_are_before_the_last(stride, layers):
    assert policies.checked_layers(5, stride) == layers
