import math

import numpy as np
import pytest
import scipy.stats

from pam.score.significance import (
    SAMPLES,
    ci95,
    count_clusters,
    matched_pairs,
    p_text,
    paired_bootstrap,
    proportion_ci95,
    resampled_ratio,
    scope,
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
    assert result["p"] == pytest.approx(2 * scipy.stats.t.sf(z, 4))


def test_matched_pairs_is_the_paired_t_statistic():
    rng = np.random.default_rng(8)
    first, second = rng.poisson(2, 400), rng.poisson(2.1, 400)
    reference = scipy.stats.ttest_rel(first, second)
    result = matched_pairs(first, second)
    assert result["z"] == pytest.approx(reference.statistic)
    assert result["p"] == pytest.approx(reference.pvalue)


def test_matched_pairs_at_its_limits():
    assert matched_pairs([1, 2], [1, 2]) == {"mean": 0, "z": 0, "p": 1}
    always = matched_pairs([1, 2, 3], [0, 1, 2])
    assert (always["z"], always["p"]) == (math.inf, 2 / 2**3)  # two of the eight sign patterns
    assert matched_pairs([3], [1])["p"] == 1  # one utterance proves nothing


@pytest.mark.parametrize("test", [paired_bootstrap, matched_pairs])
def test_what_cannot_be_paired(test):
    with pytest.raises(ValueError, match="2 and 1 utterances"):
        test([1, 2], [1])
    with pytest.raises(ValueError, match="no utterance"):
        test([], [])


def simulated(rng, count, share, icc, spread):
    """Errors and words of utterances in `count` clusters of unequal sizes.

    The share of errors of a cluster varies about `share` with the intra-cluster correlation `icc`.
    """
    sizes = np.maximum(1, np.round(10 * np.exp(rng.normal(0, spread, count)))).astype(int)
    clusters = np.repeat(np.arange(count), sizes)
    words = rng.integers(1, 20, clusters.size)
    weight = 1 / icc - 1 if icc else None
    own = rng.beta(share * weight, (1 - share) * weight, count) if icc else np.full(count, share)
    return rng.binomial(words, own[clusters]), words, clusters.tolist()


@pytest.mark.parametrize(("count", "spread"), [(10, 0.0), (14, 0.5), (30, 1.0)])
@pytest.mark.parametrize("icc", [0.0, 0.05, 0.2])
def test_intervals_of_clusters_cover_the_truth(monkeypatch, count, spread, icc):
    monkeypatch.setattr("pam.score.significance.SAMPLES", 300)
    rng, covered, alone, times = np.random.default_rng(11), 0, 0, 600
    for _ in range(times):
        errors, words, clusters = simulated(rng, count, 0.3, icc, spread)
        low, high = ci95(errors, words, clusters=clusters)
        covered += low <= 30 <= high
        low, high = ci95(errors, words)
        alone += low <= 30 <= high
    assert 0.92 <= covered / times <= 0.97
    if icc == 0.2:
        assert alone / times < 0.85  # utterances as if they were independent


@pytest.mark.parametrize("shares", [(0.3, 0.3), (0.35, 0.45), (0.1, 0.3, 0.5)])
def test_intervals_of_few_clusters_cover_the_truth_of_these(monkeypatch, shares):
    monkeypatch.setattr("pam.score.significance.SAMPLES", 300)
    rng, covered, times = np.random.default_rng(21), 0, 500
    clusters = np.repeat(np.arange(len(shares)), 60)
    for _ in range(times):
        words = rng.integers(1, 20, clusters.size)
        errors = rng.binomial(words, np.array(shares)[clusters])
        low, high = ci95(errors, words, clusters=clusters.tolist())
        covered += low <= 100 * np.mean(shares) <= high
    assert 0.92 <= covered / times <= (0.97 if max(shares) - min(shares) < 0.2 else 1)


@pytest.mark.parametrize("count", [10, 14, 30])
@pytest.mark.parametrize("icc", [0.0, 0.2])
def test_intervals_of_means_and_of_differences_cover_the_truth(monkeypatch, count, icc):
    monkeypatch.setattr("pam.score.significance.SAMPLES", 300)
    rng, times, found = np.random.default_rng(12), 500, {"mean": 0, "difference": 0, "claimed": 0}
    for _ in range(times):
        clusters = np.repeat(np.arange(count), rng.integers(3, 20, count))
        own = rng.normal(0, icc**0.5, (2, count))[:, clusters]
        first, second = 0.5 + 0.1 * (own + rng.normal(0, (1 - icc) ** 0.5, own.shape))
        low, high = ci95(first, clusters=clusters.tolist())
        found["mean"] += low <= 50 <= high
        result = paired_bootstrap(first, second, clusters=clusters.tolist())
        found["difference"] += result["ci95"][0] <= 0 <= result["ci95"][1]
        found["claimed"] += result["p"] < 0.05
    assert 0.92 <= found["mean"] / times <= 0.97
    assert 0.92 <= found["difference"] / times <= 0.97
    assert found["claimed"] / times <= 0.08


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.0), (2, 0.2), (3, 0.2), (5, 0.05)])
def test_differences_of_seeds_and_clusters_cover_the_truth(monkeypatch, seeds, spread):
    """Neither level alone: what systems differ by must hold for other seeds and other speakers."""
    monkeypatch.setattr("pam.score.significance.SAMPLES", 300)
    rng, times, covered, without = np.random.default_rng(13), 500, 0, 0
    for _ in range(times):
        clusters = np.repeat(np.arange(15), rng.integers(3, 12, 15))
        shared = rng.normal(0, 0.2, 15)[clusters] + rng.normal(0, 0.4, clusters.size)
        trained = rng.normal(0, spread, (2, seeds, 1)) + rng.normal(0, 0.1, (2, seeds, shared.size))
        trained[0] += shared
        means, by_seed = trained.mean(1), trained.mean(2)
        options = {"clusters": clusters.tolist(), "scale": 1.0}
        low, high = paired_bootstrap(*means, **options, seeds=tuple(by_seed))["ci95"]
        covered += low <= 0 <= high
        low, high = paired_bootstrap(*means, **options)["ci95"]
        without += low <= 0 <= high
    assert 0.92 <= covered / times <= 0.97
    if spread == 0.2:
        assert without / times < 0.85


def test_seeds_by_hand():
    """Welch's two parts beside that of the clusters, degrees of freedom by Satterthwaite."""
    rng = np.random.default_rng(14)
    alone = resampled_ratio(rng.normal(0.1, 1, 60), np.ones(60), list(range(60)))
    both = alone.with_seeds([1.0, 2.0], [3.0, 3.5, 4.0])
    parts = [alone.se**2, 0.5 / 2, 0.25 / 3]
    assert both.se**2 == pytest.approx(sum(parts))
    degrees = sum(parts) ** 2 / sum(p**2 / n for p, n in zip(parts, (59, 1, 2), strict=True))
    assert both.df == pytest.approx(degrees)
    assert both.ci95()[0] < alone.ci95()[0] and both.p() > alone.p()
    assert alone.with_seeds([1.0], [2.0]) == alone  # one seed says nothing of others


def test_the_standard_error_leaves_out_one_cluster_at_a_time():
    rng = np.random.default_rng(15)
    errors, words, clusters = simulated(rng, 12, 0.3, 0.1, 0.3)
    names = np.array(clusters)
    whole = errors.sum() / words.sum()
    left = [errors[names != g].sum() / words[names != g].sum() for g in range(12)]
    expected = math.sqrt(11 / 12 * sum((one - whole) ** 2 for one in left))
    found = resampled_ratio(errors.astype(float), words.astype(float), clusters)
    assert found.se == pytest.approx(expected) and found.value == whole
    assert found.samples_N.std() == pytest.approx(expected, rel=0.25)
    sizes = [words[names == g].sum() for g in range(12)]
    assert found.df == pytest.approx(sum(sizes) ** 2 / sum(s**2 for s in sizes) - 1)


def test_a_difference_that_is_there_is_found():
    rng = np.random.default_rng(16)
    for count in (10, 20):
        errors, words, clusters = simulated(rng, count, 0.4, 0.1, 0.5)
        result = paired_bootstrap(errors, rng.binomial(errors, 0.5), words, clusters=clusters)
        assert result["p"] < 0.01 and result["ci95"][0] > 0
        assert matched_pairs(errors, rng.binomial(errors, 0.5), clusters)["p"] < 0.01


def test_each_utterance_its_own_cluster_is_no_cluster():
    values = np.random.default_rng(17).random(50)
    names = [f"{number:02d}" for number in range(50)]
    assert ci95(values, clusters=names) == ci95(values)
    assert matched_pairs(values, values[::-1] / 2, names) == matched_pairs(values, values[::-1] / 2)


def test_p_is_not_below_what_the_resamples_show():
    """Every cluster differs by the same: no resample is on the other side."""
    result = paired_bootstrap([1.0] * 40, [0.0] * 40, clusters=[n // 2 for n in range(40)])
    assert result["p"] == 2 / (SAMPLES + 1) and result["ci95"] == [100, 100]
    assert p_text(result["p"]) == "p < 0.001" and p_text(0.0123) == "p = 0.012"
    rng = np.random.default_rng(18)
    clear = paired_bootstrap(rng.normal(9, 0.1, 40), rng.normal(0, 0.1, 40))
    assert clear["p"] == 2 / (SAMPLES + 1)


@pytest.mark.parametrize(
    ("sizes", "note"),
    [
        ([5] * 10, None),
        ([5] * 9, "for these 9 clusters only"),
        ([3], "for this cluster only"),
        ([300] + [5] * 30, "for these 31 clusters only, worth 2.2 of equal size"),
    ],
)
def test_few_clusters_leave_their_utterances(sizes, note):
    """These are resampled; what is found holds for their clusters only, and it is said."""
    clusters = [name for name, size in enumerate(sizes) for _ in range(size)]
    assert scope(count_clusters(clusters)) == note
    assert scope(None) == "clusters not known"
    rng = np.random.default_rng(19)
    first, second = rng.random((2, len(clusters))) + np.array(clusters) % 3
    assert (ci95(first, clusters=clusters) == ci95(first)) == bool(note)
    found, alone = (matched_pairs(first, second, names) for names in (clusters, None))
    assert (found == alone) == bool(note)


def test_clusters_are_those_of_all_utterances():
    values = np.random.default_rng(19).random(50)
    with pytest.raises(ValueError, match="2 clusters of 50 utterances"):
        ci95(values, clusters=["a", "b"])


def test_matched_pairs_of_clusters_are_pairs_of_their_sums():
    first, second = np.random.default_rng(20).integers(0, 5, (2, 24))
    sums = first[::2] + first[1::2], second[::2] + second[1::2]
    assert matched_pairs(first, second, [n // 2 for n in range(24)]) == matched_pairs(*sums)


def test_all_right_in_twelve_clusters_is_twelve_draws():
    assert proportion_ci95([True] * 60, clusters=list(range(12)) * 5) == wilson95(12, 12)
    assert proportion_ci95([False] * 20, clusters=["a", "b"] * 10) == wilson95(0, 20)


def test_an_interval_stays_in_the_range_of_its_metric():
    assert ci95([1.0] * 11 + [0.0], clusters=list(range(12)))[1] == 100
    low, high = ci95([9, 0, 0, 0] * 3, [5] * 12)  # insertions: above 100 %
    assert low == 0 and high > 100
    low, high = ci95([-0.9, 0.2] * 6, clusters=list(range(12)))
    assert low < -60
