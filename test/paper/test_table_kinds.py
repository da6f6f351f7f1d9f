"""Tables of the paper that no system's scores fill: data, prompts, weights, similarities, sizes."""

import pytest
from stored_results import grid, render, result, write

from pam.paper.kinds import KINDS
from pam.paper.spec import load_spec, table_names
from pam.report.markdown import GAP


def test_training_data(tmp_path):
    data = {
        "asr_clean_train": {"task": "asr_clean", "utterances": 900, "hours": 1.5},
        "ac_train": {"task": "ac", "utterances": 20, "hours": 0.25},
    }
    text = render(write(tmp_path, {"pam_mini_short_s0": result("pam", training_data=data)}), "5")
    assert (
        "| asr_clean | asr_clean_train | 1.50 | 900 | Librispeech-clean-100 | 100 | 28539 |" in text
    )
    assert "| snv | — | — | — |" in text
    assert "no stored result says" in render(write(tmp_path / "b", {}), "5")


def test_prompts_and_their_routing(tmp_path):
    split = {"correct": 599, "count": 600, "accuracy": 99.8333, "ci95": [99.1, 100.0]}
    wrong = [{"task": "ac", "prompt": "a | b", "chosen": "snv", "probability": 0.6}]
    router = {"seen": split | {"misrouted": []}, "unseen": split | {"misrouted": wrong}}
    text = render(write(tmp_path, {"pam_mini_short_s0": result("pam", router=router)}), "16")
    assert "| pam | 0 | unseen | 599 | 600 | 99.83 [99.1, 100.0] | a \\| b (ac → snv) |" in text
    assert "| Extract the words from the audio and write them down. |" in text
    assert "not trained and scored yet" in render(write(tmp_path / "b", {}), "14")


@pytest.mark.parametrize("kind", KINDS.names())
def test_every_kind_renders_without_results(tmp_path, kind):
    name = next(name for name in table_names() if load_spec(name, "mini").kind == kind)
    text = render(tmp_path, name)
    assert text.startswith(f"# {load_spec(name, 'mini').title}\n") and len(text.split("\n\n")) > 2
    assert ("128256" in text) == (kind == "sizes")  # the errata of the paper's table
    if kind != "sizes":
        assert GAP in text


def test_weights_of_the_experts_in_thirds(tmp_path):
    weights = {"shared": [0.1] * 10, "asr_clean": [0, 0, 0, 0.25, 0.25, 0.5, 0, 0, 0, 0]}
    encoders = {"one": 4, "two": 6}
    kept = {"pam_mini_short_s0": result("pam", weights=weights, encoders=encoders)}
    lines = render(write(tmp_path, kept), "figure3").splitlines()
    assert "| expert | one, low | one, middle | one, high | two, low | two, middle |" in "".join(
        line for line in lines if line.startswith("| expert")
    )
    row = next(line for line in lines if line.startswith("| asr_clean |"))
    assert row == "| asr_clean | 0.000 | 0.000 | 0.250 | 0.750 | 0.000 | 0.000 |"
    assert lines.index(row) < next(n for n, line in enumerate(lines) if "| shared |" in line)


def test_similarity_of_the_encoders(tmp_path):
    from pam.analysis.similarity import MEASURES

    pair = {"encoders": ["a_b", "c|d"], "layers": [[0, 0], [1, 1]]}
    pair |= dict.fromkeys(MEASURES, [None, None]) | {"cka": [0.25, 0.5]}
    kept = {"pam_mini_short_s0": result("pam", similarity=[pair])}
    text = render(write(tmp_path, kept), "12")
    assert "| a_b & c\\|d | 0.25 | 0.50 |" in text.replace("\\&", "&")
    assert "-0.91" in text and "not analysed" not in text
    assert "—, pam, seed 0: cosine after FFN\\_e; " in text or "cosine after FFN_e; " in text
    kept["pam_mini_short_s0"]["similarity"] = None
    assert "not analysed" in render(write(tmp_path, kept), "12")


def test_sizes_of_the_models(tmp_path):
    text = render(tmp_path, "6", scale="paper", out=tmp_path / "x.md")
    assert "| 8192 (128256) |" in text and "| 7.37 | 36 | 2048 | 11008 | 128 | 16 |" in text


def test_section_4_5_counts_what_is_trained(tmp_path):
    rows = grid(render(tmp_path, "section45"), "Parameters")
    assert rows["concat"][2:] == ["37.27", "37.27"]
    assert rows["pam_reduced"][2:] == ["29.29", "26.53"]
    assert float(rows["pam"][0]) > float(rows["pam"][1]) > float(rows["pam_reduced"][0])
    assert "## Parameters" not in render(tmp_path, "1")


def test_baselines_beyond_the_paper_have_no_printed_numbers(tmp_path):
    text = render(write(tmp_path, {"pam_mini_short_s0": result("pam")}), "beyond")
    assert text.startswith("# Beyond the paper")
    rows = grid(text, "Ours")
    assert {"concat_all_layers", "prompt_mixture", "pam"} < {r.replace("\\", "") for r in rows}
    assert "The paper's" not in text and "The paper cuts" not in text and "lost" not in text
    assert "not trained and scored yet: row" in text
