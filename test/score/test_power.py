"""Power: simulated experiments decide as often as predicted; limits; what cannot be estimated."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from pam.score.compare import Cell, Sums, compare, mean_sums, summary
from pam.score.power import COMPOSITE, MOST, NO_SEEDS, NOT_PAIRED, Components, components
from pam.score.significance import resampled_ratio

PLAN = Components(1.0, of_clusters=4, of_seeds=0.08, residual=2, clusters=40, seeds=4)


def cell(values_SC, utterances=1) -> Cell:
    """A system whose seeds have these values for clusters of some utterances each."""
    count = values_SC.shape[1]
    names = tuple(f"speaker {number:03d}" for number in range(count) for _ in range(utterances))
    ones_U = np.ones(len(names))
    return summary(
        {
            seed: Sums("ids", np.repeat(own_C, utterances), ones_U, 1.0, clusters=names)
            for seed, own_C in enumerate(values_SC)
        }
    )


def systems(rng, its: Components, seeds: int, clusters: int) -> tuple[Cell, Cell]:
    """Two systems with exactly these variances."""

    def noise(shape, square):
        return rng.normal(0, square**0.5, shape)

    one, two = (
        noise((seeds, 1), its.of_seeds) + noise((seeds, clusters), its.residual) for _ in range(2)
    )
    return cell(one + its.difference + noise(clusters, its.of_clusters)), cell(two)


@pytest.mark.parametrize(
    ("its", "seeds", "clusters"),
    [
        (replace(PLAN, difference=2.0, of_seeds=0.5, seeds=2), None, 40),
        (replace(PLAN, difference=2.0, seeds=3), 3, None),
    ],
)
def test_as_many_experiments_decide_as_predicted(its, seeds, clusters):
    seeds = int(seeds or its.seeds_needed())
    clusters = int(clusters or its.clusters_needed())
    rng = np.random.default_rng(0)
    found = [compare(*systems(rng, its, seeds, clusters)) for _ in range(150)]
    # Binomial: 0.8 ± 0.1 at three sigma; the smallest number may do a little better than 80 %.
    assert 0.7 < np.mean([one.p < 0.05 for one in found]) < 0.92


def test_the_variances_of_a_simulation_are_recovered():
    rng = np.random.default_rng(1)
    its = replace(PLAN, of_seeds=1.0)
    found = [
        components(first, second, [first, second])
        for first, second in (systems(rng, its, 4, 40) for _ in range(50))
    ]
    for name, sigma in (("of_clusters", 0.7), ("of_seeds", 0.3), ("residual", 0.2)):
        mean = np.mean([getattr(one, name) for one in found])
        assert mean == pytest.approx(getattr(its, name), abs=sigma)
    assert {one.clusters for one in found} == {40} and found[0].share == pytest.approx(1)
    assert found[0].df_of_seeds == 6


def test_the_standard_error_is_that_of_the_comparison():
    """At the present numbers, with the seeds of these two systems alone."""
    cells = systems(np.random.default_rng(2), replace(PLAN, of_seeds=1.0), 3, 30)
    its = components(*cells, cells)
    first, second = (mean_sums(list(one.sums.values())) for one in cells)
    found = resampled_ratio(
        first.numerators_U - second.numerators_U, first.denominators_U, first.clusters
    ).with_seeds(*(list(one.by_seed.values()) for one in cells))
    of_set = (its.of_clusters + 2 * its.residual / 3) / 30
    of_systems = 2 / 3 * (its.of_seeds + its.residual / 30)
    assert (of_set + of_systems) ** 0.5 == pytest.approx(found.se)
    assert its.difference == pytest.approx(found.value)


def test_more_is_needed_for_smaller_differences_and_larger_variances():
    numbers = [
        replace(PLAN, difference=d).both_needed()[0] for d in (4.0, 2.0, 1.0, 0.5, 0.25, 0.1)
    ]
    assert numbers == sorted(numbers) and numbers[0] < numbers[-1]
    for name in ("of_clusters", "of_seeds", "residual"):
        grown = [replace(PLAN, **{name: getattr(PLAN, name) * k}) for k in (1, 2, 4, 8)]
        for count in (Components.seeds_needed, Components.clusters_needed):
            found = [count(one) for one in grown]
            assert found == sorted(found)
    strict = [PLAN.clusters_needed(level) for level in (0.05, 0.01, 0.001)]
    assert strict == sorted(strict) and strict[0] < strict[2]


def test_seeds_alone_are_limited_by_clusters_and_the_reverse():
    of_set = Components(1.0, of_clusters=40, of_seeds=0.02, residual=0, clusters=40, seeds=2)
    assert of_set.seeds_needed() == inf and of_set.clusters_needed() < MOST
    of_seeds = Components(1.0, of_clusters=4, of_seeds=1.0, residual=0, clusters=400, seeds=2)
    assert of_seeds.clusters_needed() == inf and of_seeds.seeds_needed() < MOST
    both = Components(1.0, of_clusters=40, of_seeds=1.0, residual=0, clusters=40, seeds=2)
    assert both.seeds_needed() == both.clusters_needed() == inf
    seeds, clusters = both.both_needed()
    assert clusters == 20 * seeds and both.decided(seeds, clusters)
    assert not both.decided(seeds - 1, clusters - 20)


def test_limits_with_known_answers():
    # Without seeds' variance and with many clusters it is the formula of any textbook:
    # (1.96 + 0.84)² · 1000 / 5² = 314.
    its = Components(5.0, of_clusters=1000, of_seeds=0, residual=0, clusters=100, seeds=2)
    assert its.clusters_needed() == pytest.approx(314, abs=3)
    # However clear, fewer than ten clusters, or one seed, decide nothing.
    assert replace(its, difference=1e6).clusters_needed() == 10
    assert replace(its, difference=1e6, share=0.25).clusters_needed() == 20
    assert replace(its, seeds=1).clusters_needed() == inf
    assert replace(its, seeds=1, difference=1e6).seeds_needed() == 2
    none = replace(its, difference=0.0)
    assert none.seeds_needed() == none.clusters_needed() == inf
    assert none.both_needed()[0] == MOST + 1  # more than 1,000
    assert replace(its, difference=0.001).both_needed()[0] == MOST + 1


def test_few_clusters_count_utterances():
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (2, 1))
    for count in (1, 3):
        first, second = (
            cell(np.repeat(values + shift, count, axis=1) + rng.normal(0, 0.1, (2, count)), 20)
            for shift in (0, 5)
        )
        its = components(first, second, [first, second])
        assert its.by_utterance and its.clusters == 20 * count
        assert its.seeds_needed() < MOST and its.clusters_needed() == inf  # seeds differ more
    unknown = [
        replace(one, sums={k: replace(s, clusters=None) for k, s in one.sums.items()})
        for one in (first, second)
    ]
    assert components(*unknown, unknown) == its
    # Alike seeds: utterances are counted in tens, beyond the limit for clusters, with none least.
    its = replace(its, of_seeds=0.0, residual=0.0, of_clusters=4.0, difference=0.1)
    assert MOST < its.clusters_needed() == pytest.approx(2.8**2 * 4 / 0.1**2, abs=20)
    assert replace(its, difference=1e6).seeds_needed() == 2


def test_one_seed_takes_the_variance_of_other_systems():
    rng = np.random.default_rng(4)
    two, other = systems(rng, PLAN, 2, 30)
    alone, _ = systems(rng, PLAN, 1, 30)
    assert components(alone, two, [alone]) == NO_SEEDS
    its = components(alone, two, [alone, two, other])
    assert (
        its.seeds == pytest.approx(4 / 3) and its.df_of_seeds == 2 and its.clusters_needed() == inf
    )
    strange = summary({seed: replace(one, ids="others") for seed, one in two.sums.items()})
    assert components(alone, strange, [two]) == NOT_PAIRED
    assert components(alone, two, [alone, strange]) == NO_SEEDS


def test_ranks_are_not_estimated():
    first, second = systems(np.random.default_rng(5), PLAN, 2, 12)
    rank = Cell(1.0, by_seed={0: 1.0}, samples_N=np.ones(3))
    assert components(rank, rank, [rank]) == COMPOSITE
    assert components(rank, Cell(gap="no"), [rank]) == NOT_PAIRED
    equal = components(first, first, [first, second])
    assert equal.difference == 0 and equal.both_needed()[0] == MOST + 1
