"""Figures: written whole, as PNG and as an SVG with text, from what is there and no more."""

import re

import numpy as np
import pytest
import torch

from pam.analysis.plots import canvas, measures, routing, weights
from pam.analysis.routing import analyse_routing
from pam.config import load_yaml
from pam.report import figures, results, store
from pam.report.plots import curves, systems

PNG = b"\x89PNG\r\n\x1a\n"
ENCODERS = {"one": {"num_states": 2}, "two_b": {"num_states": 4}}
TASKS = ["asr_clean", "ac"]
CONFIG = {"encoders": ENCODERS, "tasks": TASKS, "fusion_conf": {}}
RNG = np.random.default_rng(0)
WEIGHTS = {name: RNG.standard_normal((2, 6)) for name in ("shared", *TASKS)}
CURVES = [
    {
        "phase": phase,
        "epoch": epoch,
        "step": 10 * epoch,
        "train": {"loss": 2.0 / epoch, "time": 1.0},
        "dev": {"loss": 3.0 / epoch, "acc_ac": 0.5} if epoch > 1 else {},
    }
    for phase in ("ctc", "llm")
    for epoch in (1, 2)
]
ROUTER = {
    split: {
        "tasks": {"asr_clean": {"correct": 3, "count": 5}, "ac": {"correct": 4, "count": 4}},
        "misrouted": [{"task": "asr_clean", "chosen": "ac"}] * 2,
    }
    for split in ("seen", "unseen")
}


def delta(value):
    return {"loss": 2 + value, "change": value, "ci95": [value - 0.1, value + 0.1], "count": 4}


ZEROED = {
    name: {task: delta(n + k) for k, task in enumerate(TASKS)}
    for n, name in enumerate(["one", "two_b", "one low", "one high", "two_b middle"])
}
FORCED = {
    expert: {task: delta(n - k) for k, task in enumerate(TASKS)} for n, expert in enumerate(TASKS)
}
BASE = {task: {"sums": [4.0, 4.0], "tokens": [2, 2]} for task in TASKS}
PAIRS = [
    {
        "encoders": ["one", "two_b"],
        "layers": [[0, 0], [0, 1], [1, 2], [1, 3]],
        "cosine_mapped": [0.1, 0.2, -0.3, 0.4],
        "mean_cosine_mapped": [0.9, 0.9, 0.9, 0.8],
        "cosine": [None] * 4,
        "mean_cosine": [None] * 4,
        "cka": [0.5, 0.4, 0.3, 0.2],
    }
]
SCORES = {
    system: {
        "clean": {"metric": "wer", "value": 10.0 + n, "ci95": [8.0, 14.0]},
        "snv": {"metric": "accuracy", "value": 40.0 + n, "ci95": [30.0, 60.0]},
        "ac": {"metric": "meteor", "value": 20.0 - n, "ci95": [10.0, 30.0]},
        "cider": {"metric": "cider", "value": 0.31 - n / 200, "ci95": [0.2, 0.4]},
    }
    for n, system in enumerate(["pam", "con$cat"])
}


def routing_analysis():
    from pam.data.prompts import Prompts

    prompts = {
        task: Prompts(("t",), tuple(f"{task} prompt {n}" for n in range(6))) for task in TASKS
    }
    probes = {"paraphrases": {"ac": ["a sound"]}, "other_tasks": {"x": ["y"]}}

    def posteriors(texts):
        right = np.array([0.9 if "asr" in text else 0.3 for text in texts])
        return np.stack([right, 1 - right], axis=1)

    return analyse_routing(posteriors, prompts, probes, TASKS)


def labels(path):
    """The texts of an SVG."""
    svg = path.with_suffix(".svg").read_text(encoding="utf-8")
    return " | ".join(re.findall(r"<text[^>]*>([^<]+)</text>", svg))


FIGURES = {
    "curves": (lambda out: curves.plot_curves(CURVES, out), ["llm: loss", "ac, dev"]),
    "weights": (
        lambda out: weights.plot_weights(WEIGHTS, ENCODERS, out),
        ["two_b", "shared", "share of |W|"],
    ),
    "weights_bands": (
        lambda out: weights.plot_bands(WEIGHTS, ENCODERS, out),
        ["low layers", "middle layers", "expert ac", "share of |W|, %"],
    ),
    "weights_bands_norm": (
        lambda out: weights.plot_bands(WEIGHTS, ENCODERS, out, np.arange(1.0, 7.0)),
        ["‖f‖"],
    ),
    "layer_preference": (
        lambda out: weights.plot_preference({"one": {"ac": np.ones((2, 2))}}, out),
        ["hidden state", "one", "ac"],
    ),
    "router_confusion": (
        lambda out: routing.plot_confusion(ROUTER, out),
        ["unseen prompts", "expert chosen"],
    ),
    "posteriors": (
        lambda out: routing.plot_posteriors(routing_analysis()["posteriors"], TASKS, out),
        ["asr_clean, 6 prompts", "posterior p"],
    ),
    "margins": (
        lambda out: routing.plot_margins(routing_analysis()["posteriors"], TASKS, out),
        ["sent to another expert", "asr_clean"],
    ),
    "robustness": (
        lambda out: routing.plot_robustness(routing_analysis(), out),
        ["one typo", "paraphrases", "12 / 12"],
    ),
    "forced_experts": (
        lambda out: routing.plot_forced(FORCED, dict.fromkeys(TASKS, 2.0), out),
        ["as it is", "3.00"],
    ),
    "importance": (
        lambda out: measures.plot_importance(ZEROED, out),
        ["two_b middle", "asr_clean (4)", "nats a token"],
    ),
    "similarity": (
        lambda out: measures.plot_similarity(PAIRS, out),
        ["one &amp; two_b", "linear CKA, raw states", "cosine after FFN_e"],
    ),
    "systems_bars": (
        lambda out: systems.plot_bars(SCORES, out),
        ["con$cat", "WER %", "10.00", "0.305", "CIDEr"],
    ),
    "systems_radar": (
        lambda out: systems.plot_radar(SCORES, out),
        ["11.00 → 10.00", "0.305 → 0.310"],
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_png_and_an_svg_with_text(name, tmp_path):
    make, wanted = FIGURES[name]
    out = make(tmp_path / f"{name}.png")
    assert out.read_bytes().startswith(PNG)
    assert out.stat().st_size > 5000
    found = labels(out)
    for text in wanted:
        assert text in found, found
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.png", f"{name}.svg"]
    assert name in figures.CAPTIONS


def test_what_fails_halfway_leaves_nothing(tmp_path, monkeypatch):
    figure, _ = canvas.new_figure(1, 1, 2, 2)
    monkeypatch.setattr(figure, "savefig", lambda part, **_: part.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        canvas.save(figure, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_statistics_are_sorted_into_panels():
    assert curves.is_of_kind("loss_asr_clean", "loss")
    assert curves.is_of_kind("router_acc_snv", "router_acc")
    assert not curves.is_of_kind("router_acc_snv", "acc")
    assert not curves.is_of_kind("iter_time", "loss")


def test_confusions_are_counted_from_the_misrouted():
    tasks, counts = routing.confusion(ROUTER["seen"])
    assert tasks == TASKS
    np.testing.assert_array_equal(counts, [[3, 2], [0, 4]])


def test_places_on_a_radar():
    values = np.array([[10.0, 50.0, 7.0], [30.0, 20.0, 7.0], [20.0, 35.0, 7.0]])
    found = systems.place(values, np.array([True, False, False]))
    np.testing.assert_allclose(found, [[1, 1, 1], [0.25, 0.25, 1], [0.625, 0.625, 1]])
    assert systems.plot_radar({"pam": SCORES["pam"]}, None) is None
    few = {name: {"clean": s["clean"], "ac": s["ac"]} for name, s in SCORES.items()}
    assert systems.plot_radar(few, None) is None


def checkpoint(path):
    states = {"fusion.shared.weight": torch.ones(2, 6)}
    states |= {f"fusion.experts.{n}.weight": torch.rand(2, 6) for n in range(2)}
    torch.save(states, path)


def made(**parts):
    """The results of an experiment that has these parts alone."""
    return {"config": CONFIG, "curves": [], "router": None, "analysis": None, **parts}


def test_what_is_there_is_drawn(tmp_path):
    assert figures.draw(tmp_path, made()) == []
    torch.save({"fusion.linear.weight": torch.ones(2)}, tmp_path / "model.pth")
    assert figures.draw(tmp_path, made()) == []
    checkpoint(tmp_path / "model.pth")
    files = figures.draw(tmp_path, made(curves=CURVES, router=ROUTER))
    assert [f.stem for f in files] == ["curves", "weights", "weights_bands", "router_confusion"]
    importance = {"base": BASE, "zeroed": ZEROED, "forced": {}}
    analysis = {"importance": importance, "norms": {"mapped": {"one": [1, 2], "two_b": [1] * 4}}}
    files = figures.draw(tmp_path, made(router=ROUTER, analysis=analysis))
    assert [f.stem for f in files] == [
        "weights",
        "weights_bands",
        "weights_bands_norm",
        "router_confusion",
    ]
    importance["complete"] = True
    assert figures.draw(tmp_path, made(router=ROUTER, analysis=analysis))[-1].stem == "importance"


def test_figures_of_several_experiments(tmp_path):
    exps = []
    for name, encoders in (("a", {"one": {"num_states": 6}}), ("b", ENCODERS)):
        (tmp_path / name).mkdir()
        checkpoint(tmp_path / name / "model.pth")
        config = CONFIG | {"encoders": encoders}
        exps.append((tmp_path / name, made(name=name, config=config, sets=SCORES["pam"])))
    files = figures.draw_comparison(exps, tmp_path / "figures")
    assert [f.stem for f in files] == ["systems_bars", "systems_radar", "layer_preference"]
    assert "one" in labels(files[-1]) and "two_b" not in labels(files[-1])
    assert figures.draw_comparison(exps[1:], tmp_path / "figures") == []


def test_a_report_reads_a_checkpoint_once_and_a_newer_one_again(experiment, monkeypatch):
    read = []
    plain = torch.load
    monkeypatch.setattr(torch, "load", lambda file, **how: read.append(file) or plain(file, **how))
    config = load_yaml(experiment / "config.yaml")
    drawn = figures.draw(experiment, made(config=config))
    assert [file.stem for file in drawn] == ["weights", "weights_bands"]
    before = results.mean_weights(experiment, config), store.weight_shares(experiment, config)
    assert read == [(experiment / "model.pth").resolve()]
    states = {"fusion.shared.weight": torch.arange(10.0).view(2, 5)}
    states |= {f"fusion.experts.{n}.weight": torch.full((2, 5), float(n)) for n in range(2)}
    torch.save(states, experiment / "model.pth")
    assert results.mean_weights(experiment, config) != before[0]
    assert store.weight_shares(experiment, config) != before[1]
    assert len(read) == 2
