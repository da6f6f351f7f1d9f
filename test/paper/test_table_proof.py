"""What proves a value of a table: intervals, and comparisons of ranks and averages."""

import numpy as np
import pytest
from stored_results import COUNT, render, result, table_1, write

from pam.paper.cells import table_cells
from pam.paper.claims import FAILS, HOLDS, NO_DATA, pairs
from pam.paper.spec import load_spec
from pam.score.compare import compare


def cells_of(kept, name="table01"):
    return table_cells(load_spec(name, "mini"), kept, "short")


def test_a_row_with_a_gap_ranks_worst_there_and_proves_nothing():
    kept = table_1()
    del kept["single_whisper_mini_short_s0"]["sets"]["asr_clean_test"]
    cells = cells_of(kept)
    whisper = cells["whisper"]["avg_rank"]
    assert whisper.value is not None and whisper.ci95 is None
    assert compare(cells["pam"]["avg_rank"], whisper) is None
    assert compare(cells["pam"]["avg_rank"], cells["wavlm"]["avg_rank"]).p < 0.05
    full = cells_of(table_1())
    assert whisper.value > full["whisper"]["avg_rank"].value


def test_ranks_that_only_the_order_of_the_rows_decides_prove_nothing():
    """Two rows with the same answers: the earlier is ranked better, by 1, in every column."""
    kept = table_1()
    kept["average_mini_short_s0"]["sets"] = kept["salmonn_mini_short_s0"]["sets"]
    cells = cells_of(kept)
    found = compare(cells["salmonn"]["avg_rank"], cells["average"]["avg_rank"])
    assert found.value < 0 and found.p_of_all == 1


def test_the_seed_of_one_row_says_nothing_of_the_ranks_of_others():
    """WavLLM and SALMONN contradict each other over two seeds, whatever seeds Whisper has."""
    kept = table_1(seeds=(0, 1))
    for seed, levels in ((0, (0.3, 0.6)), (1, (0.6, 0.3))):
        for system, level in zip(("wavllm", "salmonn"), levels, strict=True):
            kept[f"{system}_mini_short_s{seed}"] = result(system, seed, level)
    both = cells_of(kept)
    found = compare(both["wavllm"]["avg_rank"], both["salmonn"]["avg_rank"])
    assert found.p_of_all > 0.05 and found.seeds == (2, 2)
    del kept["single_whisper_mini_short_s1"]
    cells = cells_of(kept)
    first, second = (cells[row]["avg_rank"] for row in ("wavllm", "salmonn"))
    assert first.sd is None and compare(first, second).of_models  # one ranking: no doubt is known
    # Values and samples are those of both seeds still.
    assert (first.value, second.value) == tuple(
        both[row]["avg_rank"].value for row in ("wavllm", "salmonn")
    )
    middle = np.median(first.samples_N - second.samples_N)
    assert abs(middle) < 0.3 < abs(first.by_seed[0] - second.by_seed[0])


def test_the_number_of_a_seed_ranks_nothing():
    kept = table_1(seeds=(0, 1))
    numbered = dict(kept)
    moved = numbered.pop("salmonn_mini_short_s1")
    numbered["salmonn_mini_short_s5"] = {**moved, "seed": 5, "name": "salmonn_mini_short_s5"}
    found = [
        compare(cells[0]["avg_rank"], cells[1]["avg_rank"])
        for cells in ((own["wavllm"], own["salmonn"]) for own in map(cells_of, (kept, numbered)))
    ]
    assert found[0] == found[1] and found[0].seeds == (2, 2)


def test_averages_have_the_seeds_of_their_own_row():
    rows = {"whisper": "single_whisper", "wavlm": "single_wavlm", "wav2vec2": "single_wav2vec2"}
    kept = {
        f"{system}_mini_short_s{seed}": result(system, seed, 0.2 + n / 5)
        for n, system in enumerate(rows.values())
        for seed in (0, 1)
    }
    del kept["single_wavlm_mini_short_s1"]
    cells = cells_of(kept, "table13")
    assert cells["whisper"]["avg_wer"].sd is not None and cells["wavlm"]["avg_wer"].sd is None
    low, high = cells["whisper"]["avg_wer"].ci95
    assert low < cells["whisper"]["avg_wer"].value < high
    assert compare(cells["whisper"]["avg_wer"], cells["wav2vec2"]["avg_wer"]).p < 0.05


def test_all_right_is_no_proof_of_a_hundred_percent():
    kept = table_1()
    snv = kept["pam_mini_short_s0"]["sets"]["snv_test_real"]["metrics"]["accuracy"]
    snv["numerators"] = [1] * COUNT
    low, high = cells_of(kept)["pam"]["snv_accuracy"].ci95
    assert high == 100 and low == pytest.approx(100 * COUNT / (COUNT + 1.959964**2), abs=0.01)


def test_claims_of_ranks_with_gaps_are_not_measured():
    kept = table_1(seeds=(0, 1, 2))
    for seed in (0, 1, 2):
        kept[f"salmonn_mini_short_s{seed}"]["sets"].pop("asr_clean_test")
    spec = load_spec("table01", "mini")
    claim = next(claim for claim in spec.claims if claim.columns == ("avg_rank",))
    found = {pair.than: pair.verdict for pair in pairs(claim, spec, cells_of(kept))}
    assert found["salmonn"] == NO_DATA and found["wavllm"] == HOLDS and FAILS not in found.values()


def test_a_table_says_what_its_ranks_are_over(tmp_path):
    text = render(write(tmp_path, table_1()))
    assert "- Ranks are among 7 of 7 rows, those that have a value, and over 4 of 6 columns" in text
    kept = {"pam_mini_short_s0": result("pam")}
    text = render(write(tmp_path, kept), "9")  # which shows nothing but ranks
    assert (
        "- the mini corpora have one set of clean speech with several test speakers: column "
        in text
    )
