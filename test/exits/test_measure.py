"""What is measured on a tiny model, against plain computations; the program; the page."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from small_dirs import text_files
from toydata import TASKS, make_combined
from toys import build_with_lora

from pam.bin import exit_analysis
from pam.data.datadir import DataDir
from pam.errors import PamError
from pam.exits.cost import Cost
from pam.exits.measure import BLOCK, Answer, measure, measure_all
from pam.exits.page import document
from pam.exits.store import read_folder
from pam.exits.summary import Summary
from pam.llm.depth import Depth
from pam.model.exits import ExitGate


@pytest.fixture
def depth(tiny_model):
    return Depth(tiny_model.llm, sublayers=True)


@torch.no_grad()
def test_predictions_and_scores_are_those_of_the_plain_formulas(depth):
    states = [torch.randn(BLOCK + 3, 16) for _ in range(4)]
    gate = ExitGate([1], 16)
    torch.nn.init.normal_(gate.weight)
    top, scores = measure(depth, states, gate)
    norm, head = depth.lm.backbone.norm, depth.lm.llm.lm_head
    p = [head(norm(state)).softmax(-1) for state in states]
    assert (top == np.stack([row.argmax(-1) for row in p])).all()
    for layer, (state, row) in enumerate(zip(states[1::2], p[1::2], strict=True)):
        ordered = row.sort(-1, descending=True).values
        entropy = torch.distributions.Categorical(row).entropy() / np.log(row.shape[-1])
        expected = {
            "softmax": ordered[:, 0],
            "margin": ordered[:, 0] - ordered[:, 1],
            "entropy": 1 - entropy,
            "cosine": F.cosine_similarity(state, states[1]).clamp(min=0) * layer,
            "gate": torch.sigmoid(norm(state) @ gate.weight[0]) * (1 - layer),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(scores[name][layer], value, atol=1e-5, err_msg=name)
    assert measure(depth, states[1::2])[0].shape == (2, BLOCK + 3)


def answer(name, ids, top, softmax):
    """An answer of a two-layer LLM with 4 points; the gate is that of layer 1."""
    scores = {"softmax": np.array(softmax), "gate": np.array([softmax[0], [0] * len(ids)])}
    return Answer(ids, name, "asr_clean", name, np.array(top), scores)


def test_the_figures_of_a_set_are_ratios_over_its_tokens():
    answers = [
        answer("a", [5, 6], [[1, 6], [5, 2], [5, 6], [5, 6]], [[0.9, 0.2], [1.0, 1.0]]),
        answer("b", [7], [[7], [7], [8], [8]], [[0.7], [1.0]]),
    ]
    classes = {"kind": [["word-initial", "end"], ["word-initial"]]}
    found = Summary(answers, classes, Cost(1.0, 1.0, 2), [1]).as_dict()

    def values(rows):
        return [round(row[0], 1) for row in rows]

    assert values(found["agreement"]) == [33.3, 33.3, 100, 100]  # of the last point's 5, 6, 8
    assert values(found["accuracy"]) == [66.7, 66.7, 66.7, 66.7]
    assert found["oracle"]["histogram"] == [1, 2] and found["oracle"]["layer"][0] == 1.667
    assert found["sublayer"]["layer"][0] == pytest.approx((1 + 0.5 + 1.5) / 3, abs=1e-3)
    assert found["sublayer"]["earlier"][0] == pytest.approx((0 + 1.5 + 0.5) / 3, abs=1e-3)
    kinds = found["classes"]["kind"]
    assert kinds["word-initial"]["tokens"] == 2 and kinds["end"]["oracle"][0] == 2
    at = {entry["threshold"]: entry for entry in found["criteria"]["softmax"]["1"]}
    assert at[0.8]["layer"][0] == 1.667 and at[0.8]["agreement"][0] == 100
    assert at[0.5]["layer"][0] == 1.333 and at[0.5]["agreement"][0] == 66.667
    assert (at[0.5]["premature"][0], at[0.5]["late"][0]) == (33.333, 0)
    assert at[0.999]["late"][0] == 33.333 and at[0.999]["error"][0] == 0.333
    assert at[0.8]["flops"][0] == pytest.approx(100 * (2 + 4 + 4) / 9, abs=0.01)
    gate = found["gate"]
    assert gate["right"][0] == 66.667 and gate["agreeing"][0] == 33.333
    assert found["paired"]["error"] == [0, 1] and found["paired"]["tokens"] == [2, 1]
    for _, low, high in found["agreement"]:
        assert low <= high


@pytest.fixture
def trained(tmp_path, tiny_config):
    """A trained experiment with a gate, and a dumped set."""
    exp = tmp_path / "exp"
    exp.mkdir()
    config = tiny_config | {"model_conf": {"bf16": False, "exits": {"gate": True}}}
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(build_with_lora(config).state_dict(), exp / "model.pth")
    data = tmp_path / "asr_clean_test"
    DataDir(text_files([f"{task}-{i}" for task in TASKS for i in range(2)])).write(data)
    return exp, make_combined(data, count=2)


def analyse(exp, data, *more):
    exit_analysis.main(["--exp", str(exp), "--data", str(data), *more])
    return json.loads((exp / "exits" / "exits.json").read_text())


def test_the_program_measures_a_trained_model_and_resumes(trained, tmp_path, monkeypatch):
    exp, data = trained
    train = make_combined(tmp_path / "combined")
    found = analyse(exp, data, "--train", str(train), "--results", str(tmp_path / "results"))
    entry = found["sets"][data.name]
    assert found["points"] == 4 and len(entry["agreement"]) == 4
    assert entry["agreement"][-1] == [100.0, 100.0, 100.0]
    assert set(entry["classes"]) == {"kind", "position", "frequency"}
    assert set(entry["criteria"]) == {"softmax", "margin", "entropy", "cosine", "gate"}
    assert (exp / "exits" / "agreement.png").is_file()
    stored = json.loads((tmp_path / "results" / "exp.json").read_text())
    assert stored == found
    before = (exp / "exits" / "exits.json").read_bytes()
    monkeypatch.setattr("pam.exits.analyse.Analysis", None)  # nothing is measured again
    analyse(exp, data, "--train", str(train))
    assert (exp / "exits" / "exits.json").read_bytes() == before


def test_the_states_are_those_that_predict_the_answer(trained):
    """The last point's prediction of each token is that of the model's own forward pass."""
    from pam.config import load_yaml
    from pam.exits.answers import speech_answers
    from pam.model.build import load_experiment

    exp, data = trained
    model = load_experiment(exp)
    depth = Depth(model.llm, sublayers=True)
    seen = []
    plain = model.answer

    def answer(*args, **kwargs):
        hidden, labels = plain(*args, **kwargs)
        seen.append((model.llm.logits(hidden).argmax(-1).tolist(), labels.tolist()))
        return hidden, labels

    model.answer = answer
    reads = speech_answers(model, depth, data, load_yaml(exp / "config.yaml"))
    answers = list(measure_all(depth, model.exit_gate, reads))
    assert len(answers) == len(seen) == 8
    for found, (top, labels) in zip(answers, seen, strict=True):
        assert found.top[-1].tolist() == top and found.ids == labels


def test_a_bare_llm_on_a_text(tiny_llm, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox.\n" * 40)
    out = tmp_path / "out"
    exit_analysis.main(["--llm", tiny_llm, "--text", str(text), "--out", str(out), "--utts", "2"])
    entry = json.loads((out / "exits.json").read_text())["sets"]["text.txt"]
    assert entry["utterances"] == 2 and entry["tokens"] == 2 * 127
    assert "gate" not in entry["criteria"] and entry["gate"] is None


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--exp", "EXP"], "--data is missing"),
        (["--exp", "EXP", "--data", "nowhere"], "--data nowhere: not a dumped set"),
        (["--exp", "EXP", "--data", "DATA", "--utts", "-1"], "--utts -1: expected 0"),
        (["--exp", "EXP", "--data", "DATA", "--answers", "nowhere"], "hyp.jsonl: there is no such"),
        (["--llm", "x"], "--text is missing"),
        (["--page", "page.md"], "--results is missing"),
        (["--page", "page.md", "--results", "nowhere"], "nowhere: no result of"),
    ],
)
def test_a_mistake_is_one_line(trained, argv, message):
    exp, data = trained
    argv = [{"EXP": str(exp), "DATA": str(data)}.get(word, word) for word in argv]
    with pytest.raises(PamError, match=message) as error:
        exit_analysis.main(argv)
    assert "\n" not in str(error.value)


def test_the_page_shows_every_result_and_the_paired_comparison(trained, tmp_path):
    exp, data = trained
    results = tmp_path / "results"
    for name in ("with_joint", "without_joint"):
        exit_analysis.main(
            ["--exp", str(exp), "--data", str(data), "--name", name, "--results", str(results)]
            + ["--out", str(tmp_path / name)]
        )
    page = tmp_path / "PAGE.md"
    exit_analysis.main(["--page", str(page), "--results", str(results)])
    text = page.read_text()
    assert text == document(read_folder(results), results, page)
    assert "+0.00 (+0.00 to +0.00)" in text and (results / "criteria_with_joint.png").is_file()
    (results / "with_joint.json").unlink()
    assert "not measured" in document(read_folder(results), results, page)
