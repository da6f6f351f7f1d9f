"""Tables of the paper from stored results: complete, with gaps, seeds, ties; what they prove."""

import operator
import re
from dataclasses import replace
from statistics import variance

import numpy as np
import pytest
import scipy.stats
from stored_results import LEVELS, SHORT, cluster, grid, render, result, table_1, write

from pam.bin import table
from pam.errors import PamError
from pam.paper.cells import table_cells
from pam.paper.claims import (
    FAILS,
    FAILS_HERE,
    HOLDS,
    HOLDS_HERE,
    NO_DATA,
    NO_SET,
    NOT_YET,
    ONE_SEED,
    OPEN,
    Pair,
    pairs,
    verdict,
)
from pam.paper.document import mark
from pam.paper.figures import mean_shares
from pam.paper.spec import load_spec
from pam.paper.store import read_store, stored_runs
from pam.report.markdown import GAP
from pam.score.compare import Difference, Sums, compare, summary
from pam.score.significance import ci95, resampled_ratio

AMI = "ami_wer"


def test_a_complete_table(tmp_path):
    results = write(tmp_path, table_1())
    text = render(results)
    ours, theirs, gap = (grid(text, name) for name in ("Ours", "The paper's", "Difference"))
    pam = ours["PaM (Ours)"]
    store = table_1()["pam_mini_short_s0"]["sets"]["ac_test"]["metrics"]["meteor"]["numerators"]
    meteor = 100 * sum(store) / len(store)
    assert pam[4].startswith(f"{meteor:.2f} [")
    assert theirs["PaM (Ours)"][4] == "35.47" and theirs["PaM (Ours)"][6] == "1.67"
    assert gap["PaM (Ours)"][4] == f"{meteor - 35.47:+.2f}"
    assert pam[1] == GAP and "the mini corpora have one set of clean speech" in text
    # PaM is best on all four sets that the scale has, which Whisper is not.
    assert pam[6].startswith("1.00 [1.00, 1.00]")
    # One seed: these models differ, of the systems nothing is said.
    assert "▽" in ours["Whisper"][0] and not {*"▲△▼"} & {*str(ours)}
    assert "▽" not in "".join(pam) and "## Errata and oddities of the paper" in text
    assert "- Ranks are among 7 of 7 rows" in text and "## Made with" in text
    assert "how well the paper is reproduced" in text  # the sets are not the paper's


def test_gains_over_the_best_single_encoder(tmp_path):
    text = render(write(tmp_path, table_1()))
    gains = grid(text, "Improvement over the best single encoder")
    cells = table_cells(load_spec("table01", "mini"), table_1(), "short")
    single = min(cells[row][AMI].value for row in ("whisper", "wavlm", "wav2vec2"))
    assert gains["PaM (Ours)"][1].startswith(f"{single - cells['pam'][AMI].value:+.2f} [+")
    assert gains["PaM (Ours)"][1].endswith("(paper +3.48)")


def test_what_is_missing_is_a_gap_with_its_reason(tmp_path, figures):
    kept = table_1()
    del kept["salmonn_mini_short_s0"]
    del kept["wavllm_mini_short_s0"]["sets"]["ac_test"]
    text = render(results := write(tmp_path, kept))
    svg = (results / "mini/table01_bars.svg").read_text(encoding="utf-8")
    assert "WavLLM" in svg and "SALMONN" not in svg
    ours = grid(text, "Ours")
    assert set(ours["SALMONN (concatenation + Q-Former)"]) == {GAP}
    assert ours["WavLLM (concatenation + linear)"][4] == GAP
    assert "- not trained and scored yet: row SALMONN (concatenation + Q-Former)" in text
    assert "- meteor of ac_test was not scored: WavLLM (concatenation + linear), ac_test" in text
    assert "- Ranks are among 6 of 7 rows" in text


def test_a_result_without_the_rows_options_is_a_gap(tmp_path):
    kept = table_1(seeds=(0, 1))
    kept["average_mini_short_s1"]["options"] = ["optim_conf.lr=0.001"]
    store = read_store(write(tmp_path, kept) / "mini")
    average = load_spec("table01", "mini").rows["average"]
    row = replace(average, options=("optim_conf.lr=0.001",))
    assert list(stored_runs(row, store, "mini", "short")[0]) == [1]
    del store["average_mini_short_s1"]
    expected = "average_mini_short_s0 was made with other options"
    assert stored_runs(row, store, "mini", "short") == ({}, expected)


def test_an_empty_store_gives_all_gaps(tmp_path):
    text = render(tmp_path)
    ours, systems = grid(text, "Ours"), [*grid(text, "The paper's")][2:]  # below the heads
    assert len(systems) == 7 and "Whisper" in systems and "PaM (Ours)" in systems
    assert all(set(ours[system]) == {GAP} for system in systems)
    assert "**not measured**" in text and "**holds**" not in text
    assert "## Made with" not in text


def test_a_metric_that_lacked_something_says_what(tmp_path):
    kept = table_1()
    kept["pam_mini_short_s0"]["sets"]["ac_test"]["missing"] = {"spice": "it needs | two jars"}
    text = render(write(tmp_path, kept), "7")
    assert "- it needs \\| two jars: PaM, ac_test SPICE (for AudioCaps SPICE)" in text
    assert "- spice of ac_test was not scored (--metrics spice of the recipe): Whisper, " in text


def test_seeds_have_a_mean_and_a_standard_deviation(tmp_path):
    kept = table_1(seeds=(0, 1))
    del kept["average_mini_short_s1"]
    text = render(write(tmp_path, kept))
    ours = grid(text, "Ours")
    spec = load_spec("table01", "mini")
    cells = table_cells(spec, kept, "short")
    one, two = (100 * sum(_errors(kept, seed)) / 200 for seed in (0, 1))
    assert one != two
    assert cells["pam"][AMI].value == pytest.approx((one + two) / 2)
    assert cells["pam"][AMI].sd == pytest.approx(abs(one - two) / 2**0.5)
    assert "(2 seeds)" in ours["PaM (Ours)"][2] and "±" not in ours["Average"][2]
    found = compare(cells["average"][AMI], cells["pam"][AMI])  # over all seeds of both
    assert found.seeds == (1, 2) and found.of_models
    assert found.value == pytest.approx(cells["average"][AMI].value - (one + two) / 2)


def _errors(kept, seed):
    return kept[f"pam_mini_short_s{seed}"]["sets"]["asr_noisy_test"]["metrics"]["wer"]["numerators"]


def test_a_tie_goes_to_the_earlier_row_and_proves_nothing():
    kept = {name: result(system, 0, 0.5) for name, system in _names(LEVELS)}
    spec = load_spec("table01", "mini")
    cells = table_cells(spec, kept, "short")
    assert [cells[row]["avg_rank"].value for row in spec.rows] == [1, 2, 3, 4, 5, 6, 7]
    assert compare(cells["pam"][AMI], cells["whisper"][AMI]).p == 1
    assert cells["pam"]["avg_rank"].ci95 == (4, 4)  # the order of the rows is no proof
    assert {verdict(pairs(claim, spec, cells)) for claim in spec.claims} == {OPEN}


def _names(systems):
    return [(f"{system}_mini_short_s0", system) for system in systems]


def test_claims_hold_fail_or_stay_open():
    spec = load_spec("table01", "mini")
    seeds = (0, 1, 2)
    cells = table_cells(spec, table_1(seeds), "short")
    found = [verdict(pairs(claim, spec, cells)) for claim in spec.claims]
    assert found[:3] == [HOLDS, HOLDS, HOLDS]  # sets that the scale does not have are left out
    assert found[-1] == FAILS  # wav2vec2 is worse than the fusions here
    found = pairs(spec.claims[0], spec, cells)
    assert {p.verdict for p in found if p.column == AMI} == {HOLDS}
    swapped = table_1(seeds)
    for seed in seeds:
        pam, other = (swapped[f"{name}_mini_short_s{seed}"] for name in ("pam", "single_whisper"))
        pam["sets"], other["sets"] = other["sets"], pam["sets"]
    cells = table_cells(spec, swapped, "short")
    assert verdict(pairs(spec.claims[0], spec, cells)) == FAILS


@pytest.mark.parametrize(
    ("count", "note"), [(3, "for these 3 clusters only"), (None, "clusters not known")]
)
def test_few_or_unknown_clusters_decide_for_themselves_alone(tmp_path, count, note):
    """Utterances are resampled, and every interval and verdict says that it is about these."""
    kept, spec = table_1(seeds=(0, 1, 2)), load_spec("table01", "mini")
    cluster(kept, "asr_noisy_test", count)
    cells = table_cells(spec, kept, "short")
    found = compare(cells["pam"][AMI], cells["whisper"][AMI])
    assert found.only == note and found.p_of_all < 0.001
    kinds = {p.column: p.verdict for p in pairs(spec.claims[0], spec, cells) if p.than == "whisper"}
    assert kinds[AMI] == HOLDS_HERE and kinds["audiocaps_meteor"] == HOLDS
    assert {verdict(pairs(claim, spec, cells)) for claim in spec.claims[:3]} == {HOLDS_HERE}
    worse = replace(spec.claims[0], better=("whisper",), than=("pam",), columns=(AMI,))
    against = pairs(worse, spec, cells)
    assert verdict(against) == against[0].verdict == FAILS_HERE
    # A rank over several sets holds for the clusters of the least of them.
    assert compare(cells["pam"]["avg_rank"], cells["whisper"]["avg_rank"]).only == note
    text = render(write(tmp_path, kept))
    whisper = grid(text, "Ours")["Whisper"]
    assert whisper[2].endswith(f"] ({note}) ▼") and whisper[6].endswith(f"] ({note}) ▼")
    assert note not in whisper[4] and whisper[4].endswith("] ▼")
    gain = grid(text, "Improvement over the best single encoder")["PaM (Ours)"]
    assert f"] ({note}) (paper" in gain[1]
    assert "3 hold for these clusters only" in text


def pair_of(kind: str, p: float, seeds: tuple[int, int] = (3, 3)) -> Pair:
    return Pair("pam", "whisper", AMI, kind, Difference(1.0, 0.5, 1.5, p, seeds=seeds))


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([HOLDS, HOLDS_HERE, NO_SET], HOLDS_HERE),
        ([HOLDS_HERE, OPEN], OPEN),
        ([HOLDS, FAILS_HERE, OPEN, NO_DATA], FAILS_HERE),
        ([FAILS, FAILS_HERE, HOLDS], FAILS),
        ([NO_SET], OPEN),
    ],
)
def test_a_claim_is_about_the_clusters_of_its_comparisons(kinds, expected):
    assert verdict([pair_of(kind, 0.001) for kind in kinds]) == expected


def test_one_seed_is_of_models_and_decides_no_claim(tmp_path):
    spec, kept = load_spec("table01", "mini"), table_1()
    cells = table_cells(spec, kept, "short")
    found = {p.verdict for claim in spec.claims for p in pairs(claim, spec, cells)}
    assert ONE_SEED in found and not {HOLDS, FAILS} & found
    assert {verdict(pairs(claim, spec, cells)) for claim in spec.claims} == {OPEN}
    text = render(write(tmp_path, kept))
    compared = grid(text, "What the paper says of it")
    what = "PaM (Ours) against Whisper, asr_noisy_test WER % (for AMI WER)"
    assert compared[what][1:] == ["< 0.001", "1", "of one seed only"]
    own = (cells[row][AMI].value for row in ("pam", "whisper"))
    assert compared[what][0].startswith(f"{operator.sub(*own):+.2f} [-")


def test_what_the_seeds_differ_by_is_part_of_the_doubt():
    spec = load_spec("table01", "mini")
    near, far = table_1(seeds=(0, 1)), table_1(seeds=(0, 1))
    for kept, numbers in ((near, (10, 10)), (far, (2, 18))):  # of 40 wrong; the same mean
        for seed, number in enumerate(numbers):
            wer = kept[f"pam_mini_short_s{seed}"]["sets"]["asr_noisy_test"]["metrics"]["wer"]
            wer["numerators"] = [5] * number + [0] * (40 - number)
    found = []
    for kept in (near, far):
        cells = table_cells(spec, kept, "short")
        found.append(compare(cells["pam"][AMI], cells["whisper"][AMI]))
    assert found[0].value == found[1].value and found[0].seeds == found[1].seeds == (2, 2)
    assert found[1].low < found[0].low < found[0].high < found[1].high
    assert found[0].p < found[1].p


def test_the_interval_of_a_system_has_the_doubt_about_its_seeds():
    """As that of a difference: so intervals and comparisons do not contradict each other."""
    errors = [[5.0] * 10 + [0.0] * 30, [5.0] * 12 + [0.0] * 28, [0.0] * 29 + [5.0] * 11]
    words = np.full(40, 8.0)
    sums = {seed: Sums("x", np.array(own), words, 100.0) for seed, own in enumerate(errors)}
    one, three = summary({0: sums[0]}), summary(sums)
    assert one.ci95 == pytest.approx(ci95(errors[0], words), abs=1e-4)  # of this model
    alone = resampled_ratio(np.mean(errors, axis=0), words)
    parts = [(alone.se**2, alone.df), (variance([50 / 320, 60 / 320, 55 / 320]) / 3, 2)]
    total = sum(part for part, _ in parts)
    df = total**2 / sum(part**2 / own for part, own in parts)  # Satterthwaite
    half = 100 * scipy.stats.t.ppf(0.975, df) * total**0.5
    expected = (three.value - half, three.value + half)
    assert three.ci95 == pytest.approx(expected, abs=1e-3) and three.value == 100 * 55 / 320


def test_all_seeds_of_both_systems_count():
    """Seeds that only one system has, too: a seed's number pairs nothing."""
    kept, spec = table_1(seeds=range(4)), load_spec("table01", "mini")
    for seed in (1, 2):
        del kept[f"salmonn_mini_short_s{seed}"]
    flip(kept, 2)
    cells = table_cells(spec, kept, "short")
    first, second = (cells[row][AMI] for row in ("pam", "salmonn"))
    found = compare(first, second)
    assert found.seeds == (4, 2) and found.value == pytest.approx(first.value - second.value)
    renamed = {
        n.replace("salmonn_mini_short_s3", "salmonn_mini_short_s1"): m for n, m in kept.items()
    }
    renamed["salmonn_mini_short_s1"]["seed"] = 1
    cells = table_cells(spec, renamed, "short")
    assert compare(cells["pam"][AMI], cells["salmonn"][AMI]) == found


def test_sets_of_the_same_clips_are_resampled_together():
    """Two tasks on the same clips, all alike: their average is as uncertain as one of them."""
    from pam.paper.cells import add_averages

    spec = replace(load_spec("table13", "mini"), averages={"both": ("ami_wer", "audiocaps_meteor")})
    kept = {"single_whisper_mini_short_s0": result("single_whisper")}
    sets = kept["single_whisper_mini_short_s0"]["sets"]
    sets["ac_test"] = {**sets["asr_noisy_test"], "metrics": {}}
    sets["ac_test"]["metrics"]["meteor"] = sets["asr_noisy_test"]["metrics"]["wer"]
    widths = []
    for other in (sets["ac_test"]["clusters"], {"names": [f"o{n}" for n in range(40)]}):
        sets["ac_test"]["clusters"] = {**sets["ac_test"]["clusters"], **other}
        cells = table_cells(spec, kept, "short")
        add_averages(cells, spec, "both", spec.averages["both"])
        low, high = cells["whisper"]["both"].ci95
        widths.append(high - low)
    low, high = cells["whisper"][AMI].ci95
    assert widths[0] == pytest.approx(high - low, rel=0.1) and widths[1] < 0.8 * widths[0]


def flip(kept: dict, seed: int) -> None:
    """In one seed of PaM, twice the errors: it is the worst then."""
    wer = kept[f"pam_mini_short_s{seed}"]["sets"]["asr_noisy_test"]["metrics"]["wer"]
    wer["numerators"] = [8] * len(wer["numerators"])


def test_seeds_that_contradict_each_other_decide_nothing(tmp_path):
    kept, spec = table_1(seeds=(0, 1)), load_spec("table01", "mini")
    for made in (made for name, made in kept.items() if "salmonn" in name):
        wer = made["sets"]["asr_noisy_test"]["metrics"]["wer"]
        wer["numerators"] = [7] * len(wer["numerators"])
    cells = table_cells(spec, kept, "short")
    found = compare(cells["pam"][AMI], cells["salmonn"][AMI])
    assert found.p_of_all < 0.05
    flip(kept, 1)
    cells = table_cells(spec, kept, "short")
    found = compare(cells["pam"][AMI], cells["salmonn"][AMI])
    assert found.value < 0 and found.p > 0.05  # the mean of the seeds is still better
    claim = spec.claims[1]
    assert {
        p.verdict for p in pairs(claim, spec, cells) if (p.than, p.column) == ("salmonn", AMI)
    } == {OPEN}
    assert (
        "▼"
        not in grid(render(write(tmp_path, kept)), "Ours")["SALMONN (concatenation + Q-Former)"][2]
    )


def test_ranks_and_averages_have_seeds_and_intervals():
    kept, spec = table_1(seeds=(0, 1)), load_spec("table01", "mini")
    flip(kept, 1)
    ranks = {row: cell["avg_rank"] for row, cell in table_cells(spec, kept, "short").items()}
    assert ranks["pam"].by_seed == {0: 1.0, 1: (1 + 7 + 1 + 1) / 4}
    assert ranks["pam"].sd == pytest.approx(1.5 / 2**0.5)
    spec = load_spec("table13", "mini")
    single = {name: made for name, made in kept.items() if name.startswith(("single", "pam"))}
    cells = table_cells(spec, single, "short")
    own = cells["whisper"]
    clean, noisy = (own[c].by_seed for c in ("librispeech_test_clean_wer", AMI))
    assert own["avg_wer"].by_seed == {seed: (clean[seed] + noisy[seed]) / 2 for seed in (0, 1)}
    assert own["avg_wer"].ci95[0] < own["avg_wer"].value < own["avg_wer"].ci95[1]
    wider = own[AMI].ci95[1] - own[AMI].ci95[0]
    assert own["avg_wer"].ci95[1] - own["avg_wer"].ci95[0] < wider
    found = compare(own["avg_wer"], cells["wav2vec2"]["avg_wer"])
    other = cells["wav2vec2"]["avg_wer"].value
    assert found.high < 0 and found.value == own["avg_wer"].value - other
    spec = replace(spec, reference="wav2vec2")
    assert [mark(spec, cells, "whisper", c) for c in ("avg_wer", "avg_other")] == [" ▲", " ▲"]


def test_a_gain_and_its_interval_are_of_all_seeds(tmp_path):
    kept = table_1(seeds=(0, 1))
    for name in ("single_whisper", "single_wavlm", "single_wav2vec2"):
        del kept[f"{name}_mini_short_s1"]
    flip(kept, 1)  # PaM's second seed is the worst of all
    gain = grid(render(write(tmp_path, kept)), "Improvement over the best single encoder")
    value, low, high = re.match(r"(\S+) \[(\S+), (\S+)\]", gain["PaM (Ours)"][1]).groups()
    cells = table_cells(load_spec("table01", "mini"), kept, "short")
    single = min(cells[row][AMI].value for row in ("whisper", "wavlm", "wav2vec2"))
    assert float(value) == pytest.approx(single - cells["pam"][AMI].value, abs=0.006)
    assert float(low) < float(value) < float(high) and float(low) < 0


def test_one_of_many_comparisons_refutes_only_after_correction():
    others = [pair_of(HOLDS, 0.001)] * 3 + [pair_of(NO_SET, 1.0)] * 9
    assert verdict([*others, pair_of(FAILS, 0.02)]) == OPEN  # 4 were made: 0.08
    assert verdict([*others, pair_of(FAILS, 0.01)]) == FAILS
    assert verdict([*others, pair_of(FAILS, 0.01, (2, 4))]) == OPEN  # a p of two seeds is too small
    assert verdict(others) == HOLDS
    assert verdict([*others, pair_of(NO_DATA, 1.0)]) == OPEN
    assert verdict([pair_of(NO_SET, 1.0)]) == OPEN
    gaps = [Pair("pam", than, AMI, NO_DATA) for than in ("whisper", "wavlm")]
    assert verdict(gaps) == verdict([*gaps, pair_of(NO_SET, 1.0)]) == NO_DATA


def test_a_claim_is_decided_once_with_the_planned_seeds():
    for kind in (HOLDS, HOLDS_HERE, FAILS, OPEN):
        found = [pair_of(kind, 0.001, (4, 4)), Pair("pam", "wavlm", AMI, NO_SET)]
        assert verdict(found, 4) == kind
        for seeds in ((4, 3), (3, 4), (1, 1)):
            assert verdict([*found, pair_of(kind, 0.001, seeds)], 4) == NOT_YET


def test_with_fewer_seeds_than_planned_a_page_is_preliminary(tmp_path):
    text = render(write(tmp_path / "two", table_1(seeds=(0, 1))))
    assert "**Preliminary**: 4 seeds of each system are planned" in text and "some have 2." in text
    assert "- **not decided yet** (seeds: 2 of 4): PaM has a better AVG Rank than" in text
    assert "- **holds**" not in text and "## What would decide" in text
    assert "Preliminary" not in render(write(tmp_path / "four", table_1(seeds=range(4))))
    assert "Preliminary" not in render(tmp_path / "none")


def test_verdicts_on_results_that_were_not_made_alike_say_so(tmp_path):
    kept = table_1(seeds=(0, 1))
    note = "**Not made alike**: before you read a verdict"
    assert note not in render(write(tmp_path, kept))
    for seed in (0, 1):
        kept[f"pam_mini_short_s{seed}"]["setup_hash"] = f"that of seed {seed}"
    assert note in render(write(tmp_path, kept))


@pytest.mark.parametrize("other", ["ids", "references", "denominators", "clusters"])
def test_other_utterances_are_not_compared_in_pairs(tmp_path, other):
    kept = table_1()
    for name, made in kept.items():
        if name != "average_mini_short_s0":  # made before references were recorded
            made["sets"]["asr_noisy_test"]["references"] = "those"
    noisy = kept["pam_mini_short_s0"]["sets"]["asr_noisy_test"]
    if other == "denominators":
        noisy["metrics"]["wer"]["denominators"] = [6] * 40
    elif other == "clusters":
        noisy["clusters"] = {"names": ["all"], "of": [0] * 40}
    else:
        noisy[other] = "others"
    spec = load_spec("table01", "mini")
    cells = table_cells(spec, kept, "short")
    assert compare(cells["pam"][AMI], cells["whisper"][AMI]) is None
    assert compare(cells["average"][AMI], cells["whisper"][AMI]) is not None
    assert cells["pam"]["avg_rank"].ci95 is None
    assert verdict(pairs(spec.claims[0], spec, cells)) == OPEN
    text = render(write(tmp_path, kept))
    assert "3 not measured (on the same utterances)" in text
    what = {"ids": "utterances", "denominators": "reference counts"}.get(other, other)
    line = f"- **Not comparable**: asr_noisy_test has other {what} in pam_mini_short_s0;"
    assert line in text


def test_means_and_best_rows_of_combinations():
    """The averages of Table 2, the best rows and averages of Table 13."""
    spec13, spec2 = load_spec("table13", "mini"), load_spec("table02", "mini")
    rows = [row for row in spec13.systems() if not row.missing]
    kept = {
        row.experiment("mini", "short", 0): result(row.system, 0, 0.1 + n / 10, row.options)
        for n, row in enumerate(rows)
    }
    cells = table_cells(spec13, kept, "short")
    names = [name for name in spec13.rows if name.count("+") == 1]
    assert len(names) == 6
    assert cells["best_2"][AMI].value == min(cells[name][AMI].value for name in names)
    own = cells["whisper+wavlm"]
    clean = own["librispeech_test_clean_wer"].value
    assert own["avg_wer"].value == pytest.approx((clean + own[AMI].value) / 2)
    singles = ("whisper", "wavlm", "wav2vec2", "hubert")
    other = [cells[name]["avg_other"].value for name in singles]
    assert cells["best_1"]["avg_other"].value == pytest.approx(sum(other) / 4)
    assert cells["best_1"]["avg_rank"].gap.startswith("not ranked")
    for name in ("whisper+hubert", "wavlm+hubert"):
        del kept[spec13.rows[name].experiment("mini", "short", 0)]
    gap = table_cells(spec2, kept, "short")["hubert_x"][AMI].gap
    assert gap == "needs whisper+hubert, wavlm+hubert: not trained and scored yet"


def test_a_mean_row_is_compared_like_a_system():
    spec = load_spec("table02", "paper")
    kept = {}
    for row in spec.systems():
        level = 0.1 if "whisper" in row.name else 0.9
        made = result(row.system, 0, level, row.options, scale="paper")
        made["sets"] = {"ami_test": made["sets"]["asr_noisy_test"]}
        kept[row.experiment("paper", "short", 0)] = made
    cells = table_cells(spec, kept, "short")
    members = [cells[name][AMI].value for name in spec.rows["wavlm_x"].members]
    assert cells["wavlm_x"][AMI].value == pytest.approx(sum(members) / 3)
    found = compare(cells["whisper_x"][AMI], cells["wavlm_x"][AMI])
    assert found.high < 0 and found.p < 0.05
    assert found.value == pytest.approx(cells["whisper_x"][AMI].value - sum(members) / 3)


def test_ranks_of_the_paper_come_out_of_its_own_figures(tmp_path):
    """Table 1's printed values, as if measured: its AVG Rank must be printed too."""
    from pam.paper.printed import load_paper

    paper, spec = load_paper()["table_1"], load_spec("table01", "paper")
    kept = {}
    for name, row in spec.rows.items():
        made = result(row.system, scale="paper")
        made["sets"] = {}
        for column in spec.columns.values():
            value = paper.cells[name][column.name]
            sums = {"numerators": [value, value], "denominators": None, "scale": 1}
            entry = made["sets"].setdefault(column.set, {"ids": "x", "metrics": {}})
            entry["metrics"][column.metric] = sums
        kept[row.experiment("paper", "short", 0)] = made
    cells = table_cells(spec, kept, "short")
    found = {row: round(cells[row]["avg_rank"].value, 2) for row in spec.rows}
    assert found == {row: paper.cells[row]["avg_rank"] for row in spec.rows}


def test_markdown_of_names_and_machines_is_escaped(tmp_path):
    kept = {"pam_mini_short_s0": result("pam", options=["a=*b*|<script>"], training_hash="x")}
    text = render(write(tmp_path, kept), "11")
    assert "a=\\*b\\*\\|\\<script\\>" in text and "a \\| machine" in text
    assert "MoE (audio-based)" in text


def test_the_head_says_what_stands_for_what(tmp_path):
    head = render(tmp_path).splitlines()[2]
    assert "whisper_tiny_en, moonshine_base in the place of wav2vec2, resemblyzer in the" in head
    assert f"Budget short ({SHORT})" in head
    assert "whisper_medium" not in head
    assert (
        "; whisper_medium is cache:whisper-base; LLM cache:smollm2-135m-instruct. Budget"
        in render(tmp_path, "3")
    )


def test_figures_lie_beside_the_tables(tmp_path, figures):
    text = render(write(tmp_path, table_1()))
    assert "![table01_bars](table01_bars.png)" in text and "[SVG](table01_radar.svg)" in text
    svg = (tmp_path / "mini/table01_bars.svg").read_text(encoding="utf-8")
    assert "PaM (Ours)" in svg and "asr_noisy_test WER %" in svg
    assert (tmp_path / "mini/table01_radar.png").is_file()
    assert "## Figures" not in render(tmp_path / "none")


def test_the_paper_s_figures_are_drawn_from_the_store(tmp_path, figures):
    weights = {"shared": [0.1] * 10, "asr_clean": [0, 0, 0, 0.25, 0.25, 0.5, 0, 0, 0, 0]}
    kept = {"pam_mini_short_s0": result("pam", weights=weights, encoders={"one": 4, "two": 6})}
    option = "use_encoders=[whisper]"
    for seed, share in ((0, 0.0), (1, 1.0)):
        own = {"asr_clean": [share, 1 - share], "shared": [0.5, 0.5]}
        kept[f"pam-whisper_mini_short_s{seed}"] = result(
            "pam", seed, options=[option], weights=own, encoders={"tiny": 2}
        )
    results = write(tmp_path, kept)
    assert "![figure3_pam](figure3_pam.png)" in render(results, "figure3")
    assert "two" in (results / "mini/figure3_pam.svg").read_text(encoding="utf-8")
    assert "![figure1_layers](figure1_layers.png)" in render(results, "figure1")
    assert "tiny" in (results / "mini/figure1_layers.svg").read_text(encoding="utf-8")
    row = load_spec("figure1", "mini").rows["whisper"]
    encoders, shares = mean_shares(row, kept, "mini", "short")
    assert encoders == {"tiny": 2} and shares["asr_clean"].tolist() == [[0.5, 0.5]]


def test_all_tables_and_their_summary(tmp_path):
    results = write(tmp_path, table_1(seeds=range(4)))
    table.main(["--table", "all", "--results", str(results)])
    text = (results / "mini/tables.md").read_text(encoding="utf-8")
    assert "33 claims (cannot be decided: 3, does not hold: 2, holds: 4, not measured: 24)" in text
    assert "a claim that holds here does not confirm the paper" in text
    assert "asr_clean_test WER % (for LibriSpeech test-clean WER), asr_noisy_test WER %" in text
    for link in re.findall(r"\]\((.*?)\)", text):
        assert (results / "mini" / link).is_file()
    assert "**holds**: PaM has a better AVG Rank than the other fusions" in text
    assert "**holds** (on the sets that this scale has): PaM is better than every single" in text
    assert "best\\_2" in text or "best_2" in text  # the whole errata
    assert not (results / "mini/beyond.md").exists()  # the paper has no such table
    with pytest.raises(PamError, match="one file for"):
        table.main(["--table", "all", "--results", str(results), "--out", "x.md"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--table", "4"], "--table '4': did you mean"),
        (["--table", "1", "--scale", "mimi"], "has no scale 'mimi': did you mean 'mini'"),
    ],
)
def test_wrong_names_say_what_is_right(tmp_path, argv, message):
    with pytest.raises(PamError, match=re.escape(message)):
        table.main([*argv, "--results", str(tmp_path)])


def test_a_damaged_result_is_named(tmp_path):
    results = write(tmp_path, {"x": {"system": "pam"}})
    with pytest.raises(PamError, match=r"x\.json: no 'scale' in it"):
        render(results)
    (results / "mini/x.json").write_text("{")
    with pytest.raises(PamError, match=r"x\.json: not valid JSON"):
        render(results)


def test_tables_of_other_budgets_have_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "table_names", lambda: ["table01", "table09"])
    half = {name.replace("_short_", "_half_"): r for name, r in table_1(budget="half").items()}
    del half["average_mini_half_s0"]
    results = write(tmp_path, table_1() | half)
    short = render(results)
    table.main(["--table", "all", "--budget", "half", "--results", str(results)])
    assert (results / "mini/table01.md").read_text(encoding="utf-8") == short
    text = (results / "mini/half/table01.md").read_text(encoding="utf-8")
    assert grid(text, "Ours")["Average"][0] == GAP != grid(short, "Ours")["Average"][0]
    assert grid(text, "Ours")["PaM (Ours)"][0] != GAP
    summary = (results / "mini/half/tables.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\((.*?)\)", summary):
        assert (results / "mini/half" / link).is_file()


def test_results_of_other_budgets_are_other_tables():
    kept = table_1(budget="long")
    spec = load_spec("table01", "mini")
    row = spec.rows["pam"]
    assert stored_runs(row, kept, "mini", "long")[0] == {}  # its name says short
    assert stored_runs(row, table_1(), "mini", "short")[1] is None
