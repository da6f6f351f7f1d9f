"""What would decide a claim: its outlook, its table, its place on the pages."""

import re
from dataclasses import replace

import pytest
from stored_results import cluster, grid, render, result, table_1, write

from pam.paper.cells import table_cells
from pam.paper.claims import FAILS, FAILS_HERE, HOLDS, HOLDS_HERE, NO_DATA, NO_SET, OPEN, Pair
from pam.paper.deciding import Need, claims_part, deciding_section, needs, outlook
from pam.paper.spec import load_spec
from pam.score.power import COMPOSITE, Components

NOISY, METEOR = "ami_wer", "audiocaps_meteor"


def need(difference: float, column: str = METEOR, kind: str = OPEN) -> Need:
    variances = Components(difference, 4, 0.1, 2, clusters=40, seeds=2)
    return Need(Pair("pam", "whisper", column, kind), variances)


def test_the_outlook_of_a_claim():
    spec = load_spec("table01", "mini")
    # All point its way, METEOR up and WER down: it holds, the smallest difference is the hardest.
    hardest = need(0.5)
    assert outlook([need(3.0), hardest, need(-1.0, NOISY)], spec) == (HOLDS, hardest)
    # Two point the other way: the larger one is easier to show, at a level for three comparisons.
    outcome, easiest = outlook([need(3.0), need(-1.0), need(2.0, NOISY)], spec)
    assert outcome == FAILS and easiest.variances.difference == 2.0
    assert easiest.level == pytest.approx(0.05 / 3) and easiest.growth >= need(2.0).growth
    # It cannot hold while something is not measured, but it can fail.
    gap = Need(Pair("pam", "wavlm", METEOR, NO_DATA), NO_DATA)
    assert outlook([need(3.0), gap], spec) == (f"Not estimated ({NO_DATA})", None)
    assert outlook([need(-3.0), gap], spec)[0] == FAILS
    assert outlook([], spec) == (f"Not estimated ({NO_SET})", None)
    rank = Need(Pair("pam", "wavlm", "avg_rank", OPEN), COMPOSITE)
    assert outlook([rank], spec) == (f"Not estimated ({COMPOSITE})", None)
    # Of too few clusters, all this is for these only.
    few = Need(hardest.pair, replace(hardest.variances, by_utterance=True))
    assert outlook([need(3.0), few], spec) == (HOLDS_HERE, few)
    against = Need(few.pair, replace(few.variances, difference=-2.0))
    assert outlook([need(3.0), against], spec)[0] == FAILS_HERE
    assert outlook([need(-4.0), against], spec)[0] == FAILS  # the easiest is of many clusters
    # No difference at all points no way, and is the hardest.
    assert outlook([need(3.0), need(0.0)], spec) == (HOLDS, need(0.0))


def test_comparisons_have_the_variances_of_their_rows():
    kept = table_1(seeds=(0, 1))
    spec = load_spec("table01", "mini")
    cells = table_cells(spec, kept, "short")
    found = needs(spec.claims[0], spec, cells)
    assert {one.pair.verdict for one in found}.isdisjoint({NO_SET}) and len(found) == 3 * 4
    assert {one.variances.df_of_seeds for one in found} == {7}  # all systems of the table
    assert {one.variances.clusters for one in found} == {40}
    mean = replace(spec.rows["whisper"], how="mean")  # a mean of systems has other variances
    found = needs(spec.claims[0], replace(spec, rows={**spec.rows, "whisper": mean}), cells)
    assert {one.variances.df_of_seeds for one in found} == {6}


def claims_of(text: str) -> dict[str, list[str]]:
    rows = grid(text.split("\n| comparison |")[0], "What would decide")
    return {name: row for name, row in rows.items() if name not in ("claim", "---")}


def test_the_section_of_a_page(tmp_path):
    kept = {
        name: result(made["system"], made["seed"], 0.5) for name, made in table_1((0, 1)).items()
    }
    for seed, level in ((0, 0.3), (1, 0.55)):  # better or worse than equal systems, by the seed
        kept[f"pam_mini_short_s{seed}"] = result("pam", seed, level)
    cluster(kept, "asr_noisy_test", 3)
    text = render(write(tmp_path, kept))
    claims = claims_of(text)
    assert len(claims) == 7 and text.count("## What would decide") == 1
    assert f"- Not estimated ({COMPOSITE}): PaM has a better AVG Rank than the other" in text
    comparisons = text.split("| comparison |")[1].split("\n\n")[0]
    noisy = next(line for line in comparisons.splitlines() if "against Whisper, asr_noisy" in line)
    assert re.search(
        r"\| 40 utterances of 3 clusters → [^|]+ \| [^|]+ seeds, [\d,]+ utterances \|", noisy
    )
    assert "more than 1,000" in comparisons  # Whisper and WavLM have the same answers
    assert "80 % power" in text and "not measured" not in comparisons


def test_decided_claims_need_nothing():
    spec = load_spec("table01", "mini")
    spec = replace(spec, claims=spec.claims[:3])
    cells = table_cells(spec, table_1(seeds=range(4)), "short")
    assert claims_part(spec, cells, {}) == [] and deciding_section(spec, cells, {}) == []


def test_an_empty_store_estimates_nothing(tmp_path):
    text = render(tmp_path)
    assert text.count(f"- Not estimated ({NO_DATA}): ") == 8
    assert "| comparison |" not in text and "% power" not in text
