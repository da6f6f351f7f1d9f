"""The verb on a tiny random model: what it writes, that it resumes, and what the report shows."""

import json
import re

import numpy as np
import pytest
import torch
import yaml

from pam.analysis import importance
from pam.analysis.metric import set_metric
from pam.bin import analyse, report
from pam.data.archive import write_archive
from pam.data.datadir import DataDir
from pam.decode.settings import Settings
from pam.model.build import build_model
from pam.report import analysis
from pam.report.blocks import to_markdown

pytestmark = pytest.mark.usefixtures("no_figures")

TASKS = {"asr_clean": "hello", "asr_noisy": "go on", "snv": "two", "ac": "a bell"}
SHAPES = {"first": (3, 6), "second": (2, 4)}


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """A combined directory of random states, three utterances of each task."""
    folder = tmp_path_factory.mktemp("dev")
    rng = np.random.default_rng(0)
    utts = {f"{task}-{n}": task for task in TASKS for n in range(3)}
    files = {
        "utt2task": utts,
        "text": {utt: TASKS[task] for utt, task in utts.items()},
        "utt2num_frames": dict.fromkeys(utts, "9"),
        "wav.scp": {utt: f"/nowhere/{utt}.flac" for utt in utts},
        "utt2spk": {utt: utt for utt in utts},
    }
    DataDir(files).write(folder)
    for name, (states, dim) in SHAPES.items():
        arrays = [(u, rng.standard_normal((9, states * dim)).astype(np.float16)) for u in utts]
        write_archive(folder / f"{name}.ark", folder / f"feats_{name}.scp", sorted(arrays))
    return folder


@pytest.fixture
def few_prompts(monkeypatch):
    """A model of a byte a token reads 600 prompts slowly: leave four of each split."""
    from pam.data.prompts import Prompts, load_all_prompts

    def few(config):
        prompts = load_all_prompts(config["tasks"])
        return {task: Prompts(own.train[:4], own.unseen[:4]) for task, own in prompts.items()}

    monkeypatch.setattr("pam.analysis.analyse.prompts_of", few)


def experiment(folder, config, **changes):
    config = config | {"num_workers": 0, "batch": {"max_utts": 3, "max_frames": 100}} | changes
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    torch.save(build_model(config).state_dict(), folder / "model.pth")
    return folder


def run(exp, dev, *options):
    analyse.main(["--exp", str(exp), "--data", str(dev), "--frames", "40", *options])
    return json.loads((exp / "analysis.json").read_text())


def test_all_of_it_and_again(tmp_path, tiny_config, dev, few_prompts, figures, monkeypatch):
    exp = experiment(tmp_path / "exp", tiny_config)
    found = run(exp, dev)
    assert found["left_out"] == {}
    assert set(found["importance"]["zeroed"]) >= {"first", "second", "first low", "second high"}
    assert list(found["importance"]["forced"]) == list(TASKS)
    assert set(found["importance"]["zeroed"]["first"]) == set(TASKS)
    assert found["routing"]["robustness"]["as written"]["count"] == 16
    assert len(found["norms"]["mapped"]["first"]) == 3
    assert len(found["similarity"][0]["cka"]) == 3
    drawn = {path.stem for path in (exp / "figures").glob("*.png")}
    assert drawn >= {"importance", "forced_experts", "similarity", "posteriors", "margins"}

    # Nothing is measured twice: the model is not even loaded.
    monkeypatch.setattr("pam.analysis.analyse.load_experiment", None)
    assert run(exp, dev) == found
    report.main(["--exp", str(exp)])
    text = (exp / "RESULTS.md").read_text(encoding="utf-8")
    assert text.index("### Analysis") < text.index("### Figures")
    assert "(figures/importance.png)" in text and "(figures/importance.svg)" in text
    assert "| first low |" in text and "| three typos |" in text
    # The three speakers of the development set speak for themselves alone.
    assert re.search(r"It may not hold for other speakers or clips \(.*for .* only\)", text)


def test_a_killed_run_goes_on_where_it_stopped(
    tmp_path, tiny_config, dev, few_prompts, monkeypatch
):
    exp = experiment(tmp_path / "exp", tiny_config)
    real, calls = importance.dev_losses, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(importance, "dev_losses", dies)
    with pytest.raises(KeyboardInterrupt):
        run(exp, dev)
    before = json.loads((exp / "analysis.json").read_text())
    assert list(before["importance"]["zeroed"]) == ["first"]
    assert "complete" not in before["importance"]
    assert analysis.importance_part(before["importance"]) == []
    found = run(exp, dev)
    assert found["importance"]["complete"]
    assert found["importance"]["zeroed"]["first"] == before["importance"]["zeroed"]["first"]
    assert len(calls) == 3 - 1 + len(found["importance"]["zeroed"]) + 4
    # Other settings, another analysis.
    assert run(exp, dev, "--utts", "2")["importance"]["base"]["ac"]["tokens"] == [8, 8]


def test_what_does_not_apply_is_left_out_and_said(tmp_path, tiny_config, dev, few_prompts):
    one = {"first": tiny_config["encoders"]["first"]}
    single = {"fusion": "single", "fusion_conf": {}, "encoders": one}
    found = run(experiment(tmp_path / "single", tiny_config, **single), dev)
    assert set(found["left_out"]) == {"similarity", "routing", "bands", "forced"}
    assert list(found["importance"]["zeroed"]) == ["first"]
    text = to_markdown(analysis.section(found))
    assert "- routing: —, this system has no prompt router." in text
    assert "p₁" not in text and "for every prompt" not in text


@pytest.mark.parametrize("fusion", ["concat_norm_layers", "prompt_mixture"])
def test_all_layers_without_experts(tmp_path, tiny_config, dev, few_prompts, fusion):
    found = run(experiment(tmp_path / "exp", tiny_config, fusion=fusion, fusion_conf={}), dev)
    assert set(found["left_out"]) == {"routing", "forced"}
    assert "first high" in found["importance"]["zeroed"]
    assert bool(found["norms"]["mapped"]) == (fusion == "prompt_mixture")


def test_experts_that_the_audio_chooses(tmp_path, tiny_config, dev, few_prompts):
    found = run(experiment(tmp_path / "moe", tiny_config, fusion="moe_audio"), dev)
    assert set(found["left_out"]) == {"routing"}
    assert list(found["importance"]["forced"])[0] == "expert 1"


def test_the_metric_of_every_change(tmp_path, tiny_config, dev, few_prompts, monkeypatch):
    used = []

    def measured(model, data, config, settings, utts):
        used.append({key: getattr(settings, key) for key in limits})
        return {"ac": {"metric": "meteor", "value": 1, "ci95": [0, 2], "clusters": None}}

    monkeypatch.setattr("pam.analysis.analyse.set_metric", measured)
    limits = {"max_new_tokens": 9, "max_tokens_per_second": 12, "no_repeat_ngram_size": 3}
    exp = experiment(tmp_path / "exp", tiny_config, fusion="concat", fusion_conf={}, **limits)
    found = run(exp, dev, "--metric", str(dev))
    (name,) = found["metric"]
    assert list(found["metric"][name]) == ["as it is", "zeroed: first", "zeroed: second"]
    assert used == [limits] * 3  # the answers are limited as in the experiment's own decoding
    assert "| zeroed: second | 1.00 (0.0–2.0, clusters not known) |" in to_markdown(
        analysis.metric_part(found["metric"])
    )


def test_the_metric_of_a_few_utterances(tiny_model, tiny_config, dev, tmp_path):
    some = [f"{task}-{n}" for task in ("asr_clean", "snv") for n in range(3)]
    DataDir.read(dev).subset(some).write(tmp_path / "set")
    settings = Settings(max_new_tokens=4)
    found = set_metric(tiny_model.eval(), tmp_path / "set", tiny_config, settings, 2)
    assert {task: (e["metric"], e["count"]) for task, e in found.items()} == {
        "asr_clean": ("wer", 2),
        "snv": ("accuracy", 2),
    }
    assert found["snv"]["clusters"]["resampled"] == "utterances"
    with importance.zeroed(tiny_model, {"first": range(3), "second": range(2)}):
        assert (
            set_metric(tiny_model, tmp_path / "set", tiny_config, settings, 2).keys()
            == found.keys()
        )


def test_nothing_analysed_nothing_said():
    assert analysis.section(None) == []
