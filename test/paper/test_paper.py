"""The paper's figures hold together, or their contradiction is in the errata."""

from decimal import ROUND_HALF_UP, Decimal
from itertools import permutations

import pytest

from pam.paper.printed import load_errata, load_paper
from pam.score.rank import average_rank

PAPER = load_paper()
WER = ["librispeech_test_clean_wer", "librispeech_test_other_wer", "ami_wer"]
OTHER = ["snv_accuracy", "audiocaps_meteor", "audiocaps_qa_meteor"]
SIX = WER + OTHER
SINGLE = ["whisper", "wavlm", "wav2vec2"]


def column_of(table, name):
    """The cells of one column, in the order of the rows."""
    return [row[name] for row in table.cells.values()]


def mean(values):
    """Exact mean of printed figures; None where one is missing."""
    values = list(values)
    if None in values:
        return None
    return sum(Decimal(str(value)) for value in values) / len(values)


def rounded(value, digits=2):
    """Half up, as printed tables do it; a float's half is rarely a half."""
    return float(Decimal(str(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def cut(value):
    return float(value.quantize(Decimal("0.01"), "ROUND_DOWN"))


def combinations():
    """Table 13 without its best rows."""
    return {row: c for row, c in PAPER["table_13"].cells.items() if not row.startswith("best")}


def ranks(rows):
    better = [PAPER["table_1"].columns[name].better for name in SIX]
    return average_rank([[row[name] for name in SIX] for row in rows], better)


def test_every_table_of_the_paper_is_there():
    numbers = {name.split("_")[1] for name in PAPER if name.startswith("table")}
    assert numbers == {str(n) for n in range(1, 14)} - {"4"}
    # The cells of the tables and the running text, counted in the paper.
    cells = {name: sum(len(row) for row in table.cells.values()) for name, table in PAPER.items()}
    text = cells.pop("text") // 2  # value and unit
    assert sum(cells.values()) + text == 629


def test_units_and_directions():
    for name, table in PAPER.items():
        for key, column in table.columns.items():
            assert column.better in ("lower", "higher", None), (name, key)
            if key.endswith("wer") and name != "table_1_delta":
                assert (column.unit, column.better) == ("%", "lower")
            for cell in column_of(table, key):
                assert cell is None or isinstance(cell, str) == (column.unit == "text")
    missing = {
        (row, column)
        for row, cells in PAPER["table_13"].cells.items()
        for column, cell in cells.items()
        if cell is None
    }
    best = {(f"best_{k}", "avg_rank") for k in (1, 2, 3)}
    assert missing == {("hubert", "ami_wer"), ("hubert", "avg_wer")} | best


@pytest.mark.parametrize("table", ["table_1", "table_2", "table_11"])
def test_avg_rank(table):
    computed = ranks(PAPER[table].cells.values())
    digits = 1 if table == "table_2" else 2
    assert [rounded(r, digits) for r in computed] == column_of(PAPER[table], "avg_rank")


def test_avg_rank_of_table_13():
    rows = combinations()
    assert [rounded(r) for r in ranks(rows.values())] == [row["avg_rank"] for row in rows.values()]


def test_differences_of_table_1():
    cells = PAPER["table_1"].cells
    for row, deltas in PAPER["table_1_delta"].cells.items():
        for name in WER:
            best = min(cells[single][name] for single in SINGLE)
            assert deltas[name] == pytest.approx(best - cells[row][name])
        for name in OTHER:
            best = max(cells[single][name] for single in SINGLE)
            assert deltas[name] == pytest.approx(cells[row][name] - best)


def holding(encoder, size, rows):
    """The rows of Table 13 over `size` encoders that hold one of them."""
    names = {row: row.split("+") for row in rows}
    return [rows[row] for row, parts in names.items() if encoder in parts and len(parts) == size]


def agrees_with_table_2(rows, size):
    for row, printed in PAPER["table_2"].cells.items():
        encoder, *others = row.split("_")
        if len(others) + 1 == size:
            for name in SIX:
                value = mean(r[name] for r in holding(encoder, size, rows))
                if printed[name] not in (rounded(value), cut(value)):
                    return False
    return True


@pytest.mark.parametrize("size", [2, 3])
def test_table_2_is_table_13_averaged(size):
    assert agrees_with_table_2(combinations(), size)
    cells = [
        (rounded(value), printed[name])
        for row, printed in PAPER["table_2"].cells.items()
        if row.count("_") + 1 == size
        for name in SIX
        for value in [mean(r[name] for r in holding(row.split("_")[0], size, combinations()))]
    ]
    wrong = [pair for pair in cells if pair[0] != pair[1]]
    assert wrong == ([(18.48, 18.47)] if size == 2 else [])


@pytest.mark.parametrize("size", [2, 3])
def test_errata_lost_check_marks(size):
    """No other order of the rows agrees with Table 2."""
    rows = combinations()
    names = [row for row in rows if row.count("+") == size - 1]
    agreeing = [
        order
        for order in permutations(names)
        if agrees_with_table_2(
            {name: rows[row] for name, row in zip(names, order, strict=True)}, size
        )
    ]
    assert agreeing == [tuple(names)]
    assert "lost_check_marks" in load_errata()


def test_means_of_table_13_and_errata_cut_not_rounded():
    """Means are rounded, three are cut."""
    oddly = []
    for row in combinations().values():
        for name, parts in (("avg_wer", WER), ("avg_other", OTHER)):
            value = mean(row[part] for part in parts)
            if value is None:
                assert row[name] is None
            elif rounded(value) != row[name]:
                assert cut(value) == row[name]
                oddly.append(row[name])
    assert oddly == [22.1, 9.38, 7.83]
    finding = load_errata()["cut_not_rounded"].finding
    assert all(text in finding for text in ("22.107", "9.387", "7.837", "18.477"))


def groups():
    rows = combinations()
    return {k: [c for row, c in rows.items() if row.count("+") == k - 1] for k in (1, 2, 3)}


def test_best_rows_of_table_13():
    for k, rows in groups().items():
        best = PAPER["table_13"].cells[f"best_{k}"]
        for name in SIX:
            known = [row[name] for row in rows if row[name] is not None]
            assert best[name] == (min(known) if name in WER else max(known))
        wer = mean(value for row in rows if (value := row["avg_wer"]) is not None)
        assert rounded(wer) == best["avg_wer"]
        if k != 2:
            assert abs(float(mean(row["avg_other"] for row in rows)) - best["avg_other"]) < 0.011


def test_errata_best_2_mean():
    others = [row["avg_other"] for row in groups()[2]]
    printed = PAPER["table_13"].cells["best_2"]["avg_other"]
    assert rounded(mean(others)) == 30.54 != printed
    assert rounded(sum(Decimal(str(other)) for other in others) / 5) == printed
    assert "30.54" in load_errata()["best_2_mean"].finding


def test_errata_ami_gain():
    cells, text = PAPER["table_1"].cells, PAPER["text"].cells

    def gain(name):
        best = min(cells[single][name] for single in SINGLE)
        return rounded(100 * (best - cells["pam"][name]) / best, 1)

    assert gain("ami_wer") == 21.4
    assert gain("librispeech_test_other_wer") == 25.3
    assert gain("librispeech_test_clean_wer") == pytest.approx(15, abs=0.2)
    assert text["rel_improvement_ami"] == {"value": 25, "unit": "%"}
    for name, row in (("snv_accuracy", "snv"), ("audiocaps_meteor", "audiocaps")):
        best = max(cells[single][name] for single in SINGLE)
        printed = text[f"rel_improvement_{row}"]["value"]
        assert rounded(100 * (cells["pam"][name] - best) / best, 1) == printed
    assert "21.4 %" in load_errata()["ami_gain"].finding


@pytest.mark.parametrize(
    ("row", "right"), [("pam_without_task_label", True), ("moe_audio_based", False)]
)
def test_errata_table_9_row(row, right):
    one, ablation = PAPER["table_1"].cells, PAPER["table_11"].cells
    baselines = [one[name] for name in one if name != "pam"]
    rows = [*baselines, ablation[row], one["pam"], PAPER["table_8"].cells["pam_beats"]]
    printed = column_of(PAPER["table_9"], "avg_rank")
    assert ([rounded(rank, 1) for rank in ranks(rows)] == printed) is right
    assert "without task label" in load_errata()["table_9_row"].finding


def test_errata_fense():
    """The share of captions in error that the printed FENSE needs."""
    shares = [
        (1 - row[f"{data}_fense"] / row[f"{data}_sbert"]) / 0.9
        for row in PAPER["table_7"].cells.values()
        for data in ("audiocaps", "audiocaps_qa")
    ]
    assert (rounded(100 * min(shares), 0), rounded(100 * max(shares), 0)) == (75, 92)
    assert "75 to 92 %" in load_errata()["fense"].finding


def test_errata_meteor_variant():
    one = PAPER["table_1"].cells
    for row, cells in PAPER["table_7"].cells.items():
        for name in ("audiocaps_meteor", "audiocaps_qa_meteor"):
            assert cells[name] == one[row][name]
    assert "NLTK" in load_errata()["meteor_variant"].finding


def test_errata_snv_below_chance():
    chance = 100 / 4  # one to four speakers (A.2)
    below = {
        (table, row)
        for table in ("table_1", "table_10")
        for row, cells in PAPER[table].cells.items()
        if cells["snv_accuracy"] < chance
    }
    assert below == {("table_1", "whisper"), ("table_10", "llama3.1_8b/wavllm")}
    assert "chance" in load_errata()["snv_below_chance"].finding


def test_errata_frame_length():
    from transformers import Wav2Vec2Config, WavLMConfig

    for config in (Wav2Vec2Config(), WavLMConfig()):
        assert 1000 * config.inputs_to_logits_ratio / 16000 == 20
    assert PAPER["text"].cells["frame_length_ms"]["value"] == 40
    assert "20 ms" in load_errata()["frame_length"].finding


def test_errata_llama_ffn():
    """Every other model's FFN is two to six times as wide as its states."""
    odd = {
        row
        for row, cells in PAPER["table_6"].cells.items()
        if not 2 <= cells["d_ffn"] / cells["d_model"] <= 6
    }
    assert odd == {"meta-llama/Llama-3.2-3B"}
    assert "vocabulary" in load_errata()["llama_ffn"].finding


def test_every_erratum_names_a_place_and_has_a_test():
    tests = "".join(name for name in globals() if name.startswith("test_"))
    for name, erratum in load_errata().items():
        assert f"errata_{name}" in tests
        table = next(t for t in PAPER if erratum.where.split("/")[0] == t)
        inside = erratum.where.removeprefix(table).strip("/")
        row = next((r for r in PAPER[table].rows if inside.startswith(r)), None)
        assert bool(row) == bool(inside), erratum.where
        if row and (column := inside.removeprefix(row).strip("/")):
            assert column in PAPER[table].columns


def test_sums_of_the_training_data():
    hours, samples = (column_of(PAPER["table_5"], name) for name in ("hours", "samples"))
    text = PAPER["text"].cells
    assert sum(hours) == text["total_training_hours"]["value"]
    assert sum(samples) == text["total_training_samples"]["value"]


def test_table_3_and_10_repeat_other_tables():
    base = PAPER["table_3"].cells
    assert base["base_pam"] == {name: PAPER["table_1"].cells["pam"][name] for name in SIX}
    for llm in ("qwen2.5_7b", "llama3.1_8b"):
        assert PAPER["table_10"].cells[f"{llm}/pam"] == base[llm]
