import math

import numpy as np
import pytest
import scipy.stats

from pam.score.significance import ci95, paired_bootstrap, proportion_ci95, wilson95


def test_interval_covers_the_truth_about_19_times_in_20():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(150):
        low, high = proportion_ci95(rng.random(150) < 0.3, seed=seed)
        covered += low <= 30 <= high
    assert 0.88 <= covered / 150 <= 0.99  # binomial: 0.95 ± 0.054 at three sigma


def test_pooled_ratio_agrees_with_scipy():
    rng = np.random.default_rng(2)
    words = rng.integers(1, 30, 200)
    errors = rng.binomial(words, 0.2)
    reference = scipy.stats.bootstrap(
        (errors, words),
        lambda e, w, axis: 100 * e.sum(axis) / w.sum(axis),
        paired=True,
        method="percentile",
        rng=rng,
    ).confidence_interval
    assert ci95(errors, words, seed=3) == pytest.approx(list(reference), abs=0.3)


def test_same_seed_same_interval():
    values = np.random.default_rng(0).random(50)
    assert ci95(values, seed=4) == ci95(values, seed=4) != ci95(values, seed=5)


def test_chunks_do_not_change_the_number_of_resamples(monkeypatch):
    values = np.random.default_rng(0).random(50)
    whole = ci95(values, seed=4)
    monkeypatch.setattr("pam.score.significance._DRAWS_AT_ONCE", 50 * 300)
    assert ci95(values, seed=4) == whole  # the same stream of indices, cut elsewhere


def test_all_right_is_no_proof_of_perfection():
    low, high = proportion_ci95([True] * 10)
    # Wilson by hand, p = 1: n / (n + z²)
    assert low == pytest.approx(100 * 10 / (10 + 1.959964**2), abs=1e-3)
    assert high == 100
    assert wilson95(0, 10)[0] == 0


def test_wilson_by_hand():
    # 8 of 20: centre (0.4 + z²/40) / (1 + z²/20), half width as in Wilson (1927)
    z2 = 1.959964**2
    centre = (0.4 + z2 / 40) / (1 + z2 / 20)
    half = math.sqrt(z2 * (0.24 / 20 + z2 / 1600)) / (1 + z2 / 20)
    assert wilson95(8, 20) == pytest.approx(
        [100 * (centre - half), 100 * (centre + half)], abs=1e-3
    )


def test_paired_bootstrap_sees_a_small_steady_difference():
    rng = np.random.default_rng(5)
    words = rng.integers(5, 40, 300)
    errors = rng.binomial(words, 0.3)
    better = np.maximum(errors - (rng.random(300) < 0.2), 0)
    result = paired_bootstrap(errors, better, words, seed=0)
    assert result["p"] < 0.01
    assert result["ci95"][0] > 0
    assert result["difference"] == pytest.approx(100 * (errors.sum() - better.sum()) / words.sum())


def test_paired_bootstrap_of_a_system_with_itself():
    result = paired_bootstrap([1, 0, 1], [1, 0, 1])
    assert result["difference"] == 0
    assert result["p"] == 1
