import math

import numpy as np
import pytest
import scipy.stats

from pam.score.significance import (
    ci95,
    matched_pairs,
    paired_bootstrap,
    proportion_ci95,
    wilson95,
)


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


def test_paired_bootstrap_of_a_mean_in_its_own_unit():
    rng = np.random.default_rng(6)
    first, noise = rng.random(200), rng.normal(0, 0.1, 200)
    result = paired_bootstrap(first, first + noise - 0.01, scale=1.0, seed=1)
    reference = scipy.stats.bootstrap(
        (first, first + noise - 0.01),
        lambda a, b, axis: (a - b).mean(axis),
        paired=True,
        method="percentile",
        rng=rng,
    ).confidence_interval
    assert result["difference"] == pytest.approx(float((0.01 - noise).mean()))
    assert result["ci95"] == pytest.approx(list(reference), abs=1.5e-3)


def test_agrees_with_kaldialign():
    """Bisani and Ney's bootstrap: intervals of both systems, and which of them is better."""
    import kaldialign

    rng = np.random.default_rng(7)
    words = rng.integers(2, 12, 120)
    refs = [[f"w{rng.integers(30)}" for _ in range(count)] for count in words]

    def spoil(share):
        return [["x" if rng.random() < share else word for word in ref] for ref in refs]

    hyps = [spoil(0.30), spoil(0.25)]
    errors = [[sum(w == "x" for w in hyp) for hyp in hyps_] for hyps_ in hyps]
    theirs = kaldialign.bootstrap_wer_ci(refs, *hyps, replications=2000, seed=1)
    for count, system in zip(errors, ("system1", "system2"), strict=True):
        low, high = ci95(count, words, seed=0)
        assert low == pytest.approx(100 * theirs[system]["ci95min"], abs=0.5)
        assert high == pytest.approx(100 * theirs[system]["ci95max"], abs=0.5)
    ours = paired_bootstrap(*errors, words, seed=0)
    assert ours["difference"] > 0  # the second is better
    one_sided = 1 - theirs["p_s2_improv_over_s1"]
    assert ours["p"] == pytest.approx(2 * one_sided, abs=0.04)


def test_matched_pairs_by_hand():
    # differences 1, 0, 2, -1, 1: mean 0.6, variance (0.16+0.36+1.96+2.56+0.16)/4 = 1.3
    result = matched_pairs([2, 1, 3, 0, 1], [1, 1, 1, 1, 0])
    z = 0.6 / math.sqrt(1.3 / 5)
    assert result["mean"] == pytest.approx(0.6)
    assert result["z"] == pytest.approx(z)
    assert result["p"] == pytest.approx(math.erfc(z / math.sqrt(2)))


def test_matched_pairs_is_the_paired_t_statistic():
    rng = np.random.default_rng(8)
    first, second = rng.poisson(2, 400), rng.poisson(2.1, 400)
    reference = scipy.stats.ttest_rel(first, second)
    result = matched_pairs(first, second)
    assert result["z"] == pytest.approx(reference.statistic)
    assert result["p"] == pytest.approx(reference.pvalue, abs=0.003)  # 399 degrees of freedom


def test_matched_pairs_at_its_limits():
    assert matched_pairs([1, 2], [1, 2]) == {"mean": 0, "z": 0, "p": 1}
    always = matched_pairs([1, 2, 3], [0, 1, 2])
    assert (always["z"], always["p"]) == (math.inf, 0)
    assert matched_pairs([3], [1])["p"] == 1  # one utterance proves nothing


@pytest.mark.parametrize("test", [paired_bootstrap, matched_pairs])
def test_what_cannot_be_paired(test):
    with pytest.raises(ValueError, match="2 and 1 utterances"):
        test([1, 2], [1])
    with pytest.raises(ValueError, match="no utterance"):
        test([], [])
