"""Similarities against plain loops, and at limits with known answers."""

import numpy as np
import pytest

from pam.analysis.similarity import (
    MEASURES,
    cosine,
    layer_pairs,
    linear_cka,
    similarities,
)
from pam.report.analysis import similarity_table
from pam.report.blocks import to_markdown

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)), RNG.standard_normal((20, 4))
WIDE = RNG.standard_normal((20, 7))


def gram_cka(x, y):
    """The definition: the cosine of the centred matrices of dot products between frames."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    return (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())


def test_cosine_is_the_mean_over_frames():
    plain = [float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)) for a, b in zip(X, Y, strict=True)]
    assert cosine(X, Y) == pytest.approx(np.mean(plain))
    assert cosine(X, -3 * X) == pytest.approx(-1)
    assert cosine(np.vstack([X[:1], 0 * X[:1]]), np.vstack([X[:1]] * 2)) == pytest.approx(0.5)


def test_cka_is_the_cosine_of_gram_matrices_and_ignores_axes_and_scale():
    assert linear_cka(X, WIDE) == pytest.approx(gram_cka(X, WIDE))
    turn, _ = np.linalg.qr(RNG.standard_normal((4, 4)))
    assert linear_cka(X, 5 * X @ turn + 1) == pytest.approx(1)
    assert linear_cka(X, np.ones_like(X)) == 0


def test_layers_are_paired_by_depth():
    assert layer_pairs(13, 13) == [(n, n) for n in range(13)]
    pairs = layer_pairs(5, 9)
    assert pairs[0] == (0, 0) and pairs[-1] == (4, 8)
    assert [j for _, j in pairs] == list(range(9))
    assert {i for i, _ in pairs} == set(range(5))
    assert [i for i, _ in pairs] == sorted(i for i, _ in pairs)
    assert layer_pairs(1, 1) == [(0, 0)]
    assert layer_pairs(1, 3) == [(0, 0), (0, 1), (0, 2)]


def test_every_pair_is_measured_where_it_can_be():
    raw = {"a": np.stack([X, Y]), "b": np.stack([Y, X]), "c": np.stack([WIDE] * 3)}
    mapped = {name: RNG.standard_normal((len(s), 6, 5)) for name, s in raw.items()}
    first, second, _ = similarities(raw, mapped)
    assert first["encoders"] == ["a", "b"] and first["layers"] == [[0, 0], [1, 1]]
    assert first["cosine"] == pytest.approx([cosine(X, Y)] * 2, abs=1e-4)
    assert first["mean_cosine"][0] == pytest.approx(
        cosine(X.mean(0)[None], Y.mean(0)[None]), abs=1e-4
    )
    assert first["cosine_mapped"][1] == pytest.approx(
        cosine(mapped["a"][1], mapped["b"][1]), abs=1e-4
    )
    # Widths differ: no raw cosine, but the rest.
    assert second["cosine"] == second["mean_cosine"] == [None] * 3
    assert second["cka"][2] == pytest.approx(gram_cka(Y, WIDE), abs=1e-4)
    assert None not in second["cosine_mapped"]
    assert similarities(raw)[0]["cosine_mapped"] == [None, None]


def test_the_table_has_the_papers_columns():
    pairs = similarities({"a": np.stack([X, Y]), "b": np.stack([Y, X]), "c": np.stack([WIDE] * 3)})
    lines = to_markdown([similarity_table(pairs, "cka")]).splitlines()
    assert lines[0] == "| linear CKA, raw states | emb | 1 | 2 |"
    assert lines[2].startswith("| a & b | ".replace("&", "\\&")) and lines[2].endswith("| — |")
    assert len(lines) == 5
    assert similarity_table(pairs, "cosine_mapped") is None
    assert set(MEASURES) < set(pairs[0])
