"""Both phases on toy data: they train, resume bit for bit, and refuse other settings."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
import yaml
from toydata import SHAPES, TASKS
from toys import build_with_lora, warmup_of

from pam.bin import train
from pam.bin.average import main as average_main
from pam.bin.train import main as train_main
from pam.config.made import Making
from pam.data.archive import load
from pam.data.longest import read_longest
from pam.data.prompts import load_prompts
from pam.data.scp import read_text_file, write_text_file
from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.train.checkpoint import average, choose
from pam.train.schedule import LinearWarmupDecay
from pam.train.task import PaMTask, sample_of_each_task
from pam.train.trainer import load_checkpoint


def weights(exp, phase="train"):
    return torch.load(exp / phase / "last.pth", weights_only=True)


def test_training_lowers_losses_and_leaves_curves_and_a_model(setup, combined):
    exp, options = setup
    train_main(options)
    curves = json.loads((exp / "curves.json").read_text())
    for phase, key in (("ctc", "loss"), ("llm", "loss_asr_clean")):
        points = [p for p in curves if p["phase"] == phase]
        assert points[-1]["train"][key] < points[0]["train"][key]
    assert [p["step"] for p in curves if p["phase"] == "llm"] == [4, 8, 12]
    longest = max(map(int, read_text_file(combined / "utt2num_frames").values()))
    assert read_longest(exp) == longest / 25
    made = (exp / "environment.json").read_text()
    assert torch.__version__.startswith(json.loads(made)["torch"])
    train_main(options)  # complete: it says where it was trained, not where it was asked for again
    assert (exp / "environment.json").read_text() == made
    assert {"loss", "acc_ac", "router_acc_snv"} <= curves[-1]["dev"].keys()
    assert {"loss_routed", "loss_routed_snv"} <= curves[-1]["dev"].keys() - curves[-1][
        "train"
    ].keys()
    assert "loss_scale" not in curves[-1]["train"]
    average_main(["--exp", str(exp), "--dev", str(combined)])
    hearing = json.loads((exp / "hearing.json").read_text())
    assert set(hearing) == set(TASKS) and hearing["snv"]["count"] == 6
    model = torch.load(exp / "model.pth", weights_only=True)
    assert all(torch.equal(model[k], v) for k, v in weights(exp).items())
    before = (exp / "train" / "last.pth").stat().st_mtime_ns
    train_main(options)  # a finished phase is skipped
    assert (exp / "train" / "last.pth").stat().st_mtime_ns == before


def test_a_training_may_start_from_anothers_warm_up(setup, tmp_path):
    """It learns what it learns from its own, which is the same; joint optimisation starts there."""
    exp, options = setup
    train_main(options)
    again = [*options[: options.index("--expdir")], "--warm_from", str(exp), "--expdir"]
    train_main([*again, str(tmp_path / "same")])
    assert not (tmp_path / "same" / "warmup").exists()
    same = weights(tmp_path / "same")
    assert all(torch.equal(same[name], value) for name, value in weights(exp).items())
    train_main([*again, str(tmp_path / "joint"), "--set", "model_conf.exits.share=0.5"])
    curves = json.loads((tmp_path / "joint" / "curves.json").read_text())
    assert [p["phase"] for p in curves] == ["llm"] * 3
    assert curves[-1]["train"]["exit_loss"] < curves[0]["train"]["exit_loss"]


@pytest.mark.parametrize(
    "more, message",
    [
        (["--warm_from", "nowhere"], "--warm_from nowhere: there is no finished warm-up"),
        (["--warm_from", "x", "--warmup", "none"], "no warm-up with --warmup none: leave out one"),
        (["--warm_from", "x", "--init", "y"], "there is no warm-up with --init: leave out one"),
    ],
)
def test_a_warm_up_that_does_not_fit_is_one_line(setup, more, message):
    exp, options = setup
    with pytest.raises(PamError, match=message) as error:
        train_main([*options, *more])
    assert "\n" not in str(error.value) and not exp.exists()


@pytest.mark.parametrize(
    "system",
    [{"router_conf": {"standardize": True}}, {"fusion": "prompt_mixture"}],
    ids=["pam", "prompt_mixture"],
)
def test_a_standardizing_router_starts_from_the_training_prompts(
    tiny_config, combined, tmp_path, system
):
    config = tiny_config | system | {"warmup": "none"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    files = {"pam_config": str(tmp_path / "config.yaml"), "train_dir": str(combined)}
    args = argparse.Namespace(**files, phase="llm", warm_fusion=None, seed=0)
    model = PaMTask.build_model(args)
    tasks = [load_prompts(task) for task in TASKS]
    prompts = sorted({prompt for own in tasks for prompt in own.train + own.plain_train})
    reader = model.prompt_reader
    standard = (model.pooled_prompts(prompts) - reader.shift) * reader.scale
    torch.testing.assert_close(standard.mean(0), torch.zeros(model.llm.width), rtol=0, atol=1e-3)
    assert standard.std(0).max() < 1.001


@pytest.mark.parametrize(("count", "total"), [(50, 51), (50, 75), (50, 99), (50, 120), (32, 999)])
def test_a_sample_of_each_task_is_even(count, total):
    utts = [f"u{number:03d}" for number in range(total)]
    some = sample_of_each_task(dict.fromkeys(reversed(utts), "ac") | {"few": "snv"}, count)
    assert some.pop("few") == "snv" and set(some.values()) == {"ac"}
    places = [utts.index(utt) for utt in some]
    gaps = {right - left for left, right in pairwise([*places, places[0] + total])}
    assert len(some) == count and max(gaps) - min(gaps) <= 1


def test_a_sample_of_no_count_is_all_of_each_task():
    utt2task = {"b": "ac", "a": "snv", "c": "ac"}
    assert sample_of_each_task(utt2task, 0) == sample_of_each_task(utt2task, 5) == utt2task


def test_states_are_standardised_by_training_data_and_stay_so(setup, combined):
    """Measured once, before the warm-up; the checkpoints of both phases carry the statistics."""
    exp, options = setup
    adapter = "{standardize: true, kind: linear, stack: 2}"
    train_main([*options, "--set", f"fusion_conf.adapter={adapter}"])
    name = "fusion.adapters.0."
    warm, last = weights(exp, "warmup"), weights(exp)
    for key in ("shift", "scale"):
        assert torch.equal(warm[f"model.{name}{key}"], last[f"{name}{key}"])
    encoder = next(iter(yaml.safe_load((exp / "config.yaml").read_text())["encoders"].items()))
    pointers = read_text_file(combined / f"feats_{encoder[0]}.scp")
    arrays = [load(pointer, utt) for utt, pointer in pointers.items()]
    frames = torch.cat([torch.from_numpy(array).float() for array in arrays])
    states = frames.unflatten(-1, (encoder[1]["num_states"], encoder[1]["dim"]))
    torch.testing.assert_close(last[f"{name}shift"], states.mean(0), rtol=0.1, atol=0.1)
    torch.testing.assert_close(1 / last[f"{name}scale"], states.std(0), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "system",
    [
        {"fusion": "single", "use_encoders": ["wavlm"]},
        {"fusion": "salmonn", "fusion_conf": {"queries": 3}},
        {
            "router_conf": {"gate": "probability"},
            "model_conf": {"routing": "predicted", "routing_loss": False},
            "fusion": "pam",
        },
        {"fusion": "prompt_mixture"},
    ],
    ids=["one_encoder", "salmonn", "no_label", "prompt_mixture"],
)
def test_other_systems_go_the_same_way(setup, combined, tmp_path, system):
    exp, options = setup
    (tmp_path / "pam.yaml").write_text(yaml.safe_dump(system))
    train_main(options)
    curves = json.loads((exp / "curves.json").read_text())
    assert [p["phase"] for p in curves] == ["ctc"] * 2 + ["llm"] * 3
    assert not any(key.startswith("router_acc") for key in curves[-1]["train"])
    average_main(["--exp", str(exp), "--dev", str(combined)])
    assert set(json.loads((exp / "hearing.json").read_text())) == set(TASKS)
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert list(config["encoders"]) == (["second"] if "use_encoders" in system else list(SHAPES))


def test_missing_states_are_one_clear_line(setup, combined, tmp_path):
    _, options = setup
    lacking = tmp_path / "lacking"
    shutil.copytree(combined, lacking, ignore=shutil.ignore_patterns("feats_first.scp"))
    mine = [str(lacking) if option == str(combined) else option for option in options]
    with pytest.raises(PamError, match="feats_first.scp: missing: run stages 2 and 3"):
        train_main(mine)


KILLED = """
import os, sys, espnet2.train.trainer as t
from pam.train.trainer import PaMTrainer
plain = PaMTrainer.train_one_epoch.__func__
calls = []
def die(cls, *args, **kwargs):
    calls.append(1)
    if len(calls) == 4:  # two epochs of the warm-up, one of the training
        os._exit(9)
    return plain(cls, *args, **kwargs)
PaMTrainer.train_one_epoch = classmethod(die)
from pam.bin.train import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "more",
    [[], ["--set", "prompt_bank=5", "--set", "llm_conf.lora_on_prompt=false"]],
    ids=["prompts_read", "prompts_kept"],
)
def test_a_killed_run_resumes_to_the_same_bits(setup, tmp_path, more):
    """With all that is drawn and counted: prompts, dropped words, layers, batches of an update."""
    exp, options = setup
    options += more
    options += ["--set", "model_conf.word_dropout=0.3", "--set", "accum_grad=2"]
    options += ["--set", "model_conf.exits={share: 0.5, gate: true, per_batch: 1}"]
    train_main(options)
    want = weights(exp)
    exp.rename(tmp_path / "whole")
    killed = subprocess.run([sys.executable, "-c", KILLED, *options], capture_output=True)
    assert killed.returncode == 9
    assert (exp / "train" / "1epoch.pth").is_file() and not (exp / "train" / "last.pth").exists()
    train_main(options)
    got = weights(exp)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize("lost", [0, 1])
def test_the_schedule_counts_updates_and_ends_at_its_floor(setup, monkeypatch, lost):
    """Of two batches each, in both phases; also where ESPnet leaves one out, whose gradient is not
    finite."""
    exp, options = setup
    plain, calls, steps = CausalLM.logits, [], []
    stepped = torch.optim.AdamW.step

    def logits(self, hidden):
        calls.extend([1] if torch.is_grad_enabled() else [])
        return plain(self, hidden) * (torch.nan if lost and len(calls) == 2 else 1)

    def step(self, *args, **kwargs):
        steps.append(1)
        return stepped(self, *args, **kwargs)

    monkeypatch.setattr(CausalLM, "logits", logits)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    train_main([*options, "--set", "accum_grad=2"])
    updates = {"warmup": 8 // 2, "train": 12 // 2 - lost}
    for phase, count in updates.items():
        schedule = load_checkpoint(exp / phase / "checkpoint.pth")["schedulers"][0]
        assert schedule["last_epoch"] == schedule["total_steps"] == count
        assert min(schedule["_last_lr"]) == pytest.approx(
            0.02 * (5e-3 if phase == "train" else 1e-2)
        )
    assert len(steps) == sum(updates.values())


def test_an_epoch_without_an_update_is_refused_before_anything_is_written(setup):
    exp, options = setup
    with pytest.raises(
        PamError, match="accum_grad: 5 batches make an update, but an epoch has only 4"
    ):
        train_main([*options, "--set", "accum_grad=5"])
    assert not exp.exists()


def test_epochs_of_a_budget_are_passes_over_the_data(setup, tmp_path):
    """Six utterances of each of four tasks in batches of three, or, of long clips, of fewer."""
    exp, options = setup
    scale = yaml.safe_load((tmp_path / "toy.yaml").read_text())
    scale["budgets"]["short"] = {"epochs": 2, "steps_per_epoch": 5}
    scale["batch"] = {"max_utts": 3, "max_frames": 80}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(scale))
    train_main([*options, "--warmup", "none"])
    steps = [point["step"] for point in json.loads((exp / "curves.json").read_text())]
    assert steps == [5, 10, 15, 20, 24]  # two clips a batch: three batches, four tasks, two passes
    assert yaml.safe_load((exp / "train/config.yaml").read_text())["total_steps"] == 24


def test_other_settings_for_a_trained_experiment_are_an_error(setup, capsys):
    exp, options = setup
    (exp / "train").mkdir(parents=True)
    Making(exp, "train", {"seed": 5}).begin()
    for kept in ("model.pth", "warmup/last.pth", "train/checkpoint.pth"):
        (exp / kept).parent.mkdir(exist_ok=True)
        (exp / kept).touch()
        with pytest.raises(PamError, match="made with other settings; .*--expname"):
            train_main(options)
        assert "made with: seed: 5\n  now asked for:    seed: 0\n" in capsys.readouterr().err
        (exp / kept).unlink()


def test_whatever_changes_the_model_is_a_setting_and_nothing_else_is(setup, combined):
    _, options = setup
    Making(combined.parent, "combine", {"size": "tiny", "encoders": SHAPES}).finish()

    def settings(*more):
        return train.making_of(train.get_parser().parse_args([*options, *more])).settings

    asked = settings()
    assert asked["size"] == "tiny" and asked["budget_conf.steps"] == 12
    for other in ("fusion_conf.num_fused=3", "use_encoders=[wavlm]", "budgets.short.steps=4"):
        assert settings("--set", other) != asked, other
    for other in (["--seed", "1"], ["--warmup", "none"], ["--budget", "long"]):
        assert settings(*other) != asked, other
    memory = ("llm_conf.gradient_checkpointing=true", "llm_conf.shard=true")
    for same in ("num_workers=3", "log_interval=5", "no_repeat_ngram_size=2", *memory):
        assert settings("--set", same) == asked, same
    assert settings("--ngpu", "2") == asked
    (combined.parent / "made.json").unlink()


def test_another_number_of_gpus_is_refused_where_each_has_a_batch(setup):
    exp, options = setup
    options += ["--set", "batch.per=gpu"]

    def gpus(*more):
        return train.making_of(train.get_parser().parse_args([*options, *more])).settings["gpus"]

    assert gpus("--ngpu", "2") == 2 and gpus("--ngpu", "2", "--num_nodes", "3") == 6
    Making(exp, "train", {"gpus": 2}).begin()
    assert gpus("--ngpu", "4") == 4  # nothing has been learned
    (exp / "model.pth").touch()
    assert gpus("--num_nodes", "2") == 2
    with pytest.raises(PamError, match=r"begun on 2 GPUs, .* not on 4: give --ngpu"):
        train_main([*options, "--ngpu", "4"])
    Making(exp, "train", {"gpus": 2}).finish()
    assert gpus() == 2  # later stages need one


def test_an_attempt_without_a_checkpoint_leaves_no_trace_in_one_with_other_settings(
    setup, monkeypatch, capsys
):
    exp, options = setup

    def crash(*_, **__):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        patch.setattr("pam.train.task.PaMTrainer.train_one_epoch", crash)
        train_main(options)
    [left] = exp.glob("warmup/config.yaml")
    (exp / "template.json").write_text("of another LLM")
    others = [*options, "--warmup", "none", "--seed", "1"]
    train_main(others)
    assert not left.exists() and (exp / "template.json").read_text() != "of another LLM"
    assert yaml.safe_load((exp / "config.yaml").read_text())["seed"] == 1
    with pytest.raises(PamError, match="made with other settings"):
        train_main(options)
    assert "  it was made with: seed: 1\n" in capsys.readouterr().err


def only(combined, folder, *tasks):
    """The combined directory with utterances of these tasks alone."""
    shutil.copytree(combined, folder)
    utt2task = read_text_file(combined / "utt2task")
    for file in [folder / "text", folder / "utt2num_frames", folder / "utt2task"]:
        entries = read_text_file(file)
        write_text_file(file, {utt: v for utt, v in entries.items() if utt2task[utt] in tasks})
    for file in folder.glob("feats_*.scp"):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(x for x in lines if utt2task[x.split()[0]] in tasks))
    return folder


@pytest.mark.parametrize(
    "train, dev, phases",
    [
        (["ac"], ["ac"], {"llm"}),
        (["asr_noisy", "ac"], ["ac"], {"llm"}),
        (["asr_noisy", "ac"], ["asr_noisy", "ac"], {"ctc", "llm"}),
    ],
    ids=["no_speech", "no_speech_in_dev", "one_of_the_tasks"],
)
def test_the_warm_up_takes_the_tasks_that_are_there(
    setup, combined, tmp_path, caplog, train, dev, phases
):
    exp, options = setup
    options += ["--train", str(only(combined, tmp_path / "t", *train))]
    options += ["--dev", str(only(combined, tmp_path / "d", *dev))]
    with caplog.at_level("INFO", "pam.bin.train"):
        train_main(options)
    said = [r.getMessage() for r in caplog.records if "warm-up is skipped" in r.getMessage()]
    curves = json.loads((exp / "curves.json").read_text())
    assert {point["phase"] for point in curves} == phases
    warmup = yaml.safe_load((exp / "config.yaml").read_text())["warmup"]
    assert (warmup, len(said)) == (("ctc", 0) if "ctc" in phases else ("none", 1))
    assert (exp / "warmup").exists() == ("ctc" in phases)
    assert not said or "no text of the tasks of warmup_tasks (asr_clean, asr_noisy)" in said[0]


def test_a_warm_up_that_is_asked_for_needs_its_tasks(setup, combined, tmp_path):
    exp, options = setup
    folder = str(only(combined, tmp_path / "t", "ac"))
    options += ["--train", folder, "--dev", folder, "--warmup", "ctc"]
    with pytest.raises(PamError, match=f"--warmup ctc: {folder} has no text of .*asr_clean"):
        train_main(options)
    assert not exp.exists()
    train_main([*options, "--set", "warmup_tasks=[ac]"])
    assert (exp / "warmup" / "last.pth").is_file()


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--budget", "shrt"], "'shrt': did you mean 'short'"),
        (["--set", "fusion_cnf.rank=3"], "fusion_cnf"),
        (["--set", "fusion_conf.rnk=3"], "unknown option 'rnk': did you mean 'rank'"),
        (["--set", "fusion=pan"], "unknown fusion 'pan': did you mean 'pam'"),
        (["--set", "tasks=[asr_clean]"], "task 'ac' is not configured"),
        (["--set", "feats=online"], "--set feats=online: give it as the option --feats"),
        (["--set", "pool=after"], "unknown option 'pool'"),
        (["--set", "phases.llm.lr_rule=sqrt"], "lr_rule: sqrt: .*set batch.per: gpu"),
    ],
)
def test_bad_options_are_one_clear_line(setup, extra, message):
    _, options = setup
    with pytest.raises(PamError, match=message):
        train_main([*options, "--warmup", "none", *extra])


def test_averaging_is_the_mean(tmp_path):
    for epoch, value in ((1, 1.0), (2, 2.0), (3, 6.0)):
        torch.save({"w": torch.tensor([value])}, tmp_path / f"{epoch}epoch.pth")
    losses = {1: 0.5, 2: 0.1, 3: 0.4}
    assert average(choose(tmp_path, "last", 1, losses))["w"] == 6.0
    assert average(choose(tmp_path, "best", 2, losses))["w"] == 4.0
    assert average(choose(tmp_path, "last", 3, losses))["w"] == 3.0
    with pytest.raises(PamError, match="--num 4: .* has 3 epochs with a finite dev loss"):
        choose(tmp_path, "last", 4, losses)
    (tmp_path / "1epoch.pth").unlink()
    with pytest.raises(PamError, match="1epoch.pth not kept: .* keep_nbest_models .3 or more"):
        choose(tmp_path, "best", 3, losses)


def test_the_last_epochs_weights_are_in_last_pth_too(tmp_path):
    torch.save({"w": torch.tensor([1.0])}, tmp_path / "1epoch.pth")
    torch.save({"w": torch.tensor([3.0])}, tmp_path / "last.pth")
    losses = {1: 0.5, 2: 0.4}
    assert choose(tmp_path, "last", 1, losses) == [tmp_path / "last.pth"]
    assert average(choose(tmp_path, "best", 2, losses))["w"] == 2.0


def test_the_best_and_the_last_epochs_are_kept(setup, combined, monkeypatch):
    """As many of each as keep_nbest_models says; stage 5 averages those it is asked for."""
    exp, options = setup
    options = [*options, "--warmup", "none", "--set", "keep_nbest_models=2"]
    options += ["--set", "budgets.short.steps=20"]
    train_main(options)
    curves = json.loads((exp / "curves.json").read_text())
    losses = {point["epoch"]: point["dev"]["loss"] for point in curves}
    best = sorted(losses, key=losses.get)[:2]
    kept = {int(path.name[0]) for path in (exp / "train").glob("?epoch.pth")}
    assert kept == {4, 5, *best}
    for method, epochs in (("last", (5, 4)), ("best", best)):
        average_main(["--exp", str(exp), "--dev", str(combined), "--method", method, "--num", "2"])
        want = average([exp / "train" / f"{epoch}epoch.pth" for epoch in epochs])
        got = torch.load(exp / "model.pth", weights_only=True)
        assert all(torch.equal(got[name], want[name]) for name in want)


def test_learning_rate_rises_then_falls():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = LinearWarmupDecay(optimizer, warmup_steps=4, total_steps=12, floor=0.05)
    rates = []
    for _ in range(14):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[5] == pytest.approx(7 / 8) and rates[11] == pytest.approx(1 / 8)
    assert rates[13] == 0.05


def test_training_goes_on_from_an_extended_model(setup, combined, tmp_path):
    """Of three tasks a fourth: old weights stay to the bit, whatever the scale and system say."""
    from pam.bin.extend import write_experiment
    from pam.model.extend import add_task, read_trained

    exp, options = setup
    three = tmp_path / "three"
    shutil.copytree(combined, three)
    kept = read_text_file(combined / "utt2task")
    write_text_file(three / "utt2task", {utt: task for utt, task in kept.items() if task != "ac"})
    mine = [str(three) if option == str(combined) else option for option in options]
    fewer = ["--set", "tasks=[asr_clean,asr_noisy,snv]", "--set", "fusion_conf.num_fused=1"]
    train_main([*mine, "--warmup", "none", *fewer])
    torch.save(weights(exp), exp / "model.pth")
    write_experiment(tmp_path / "new", *add_task(*read_trained(exp), "ac"))
    start = torch.load(tmp_path / "new" / "model.pth", weights_only=True)

    more = [str(tmp_path / "more") if option == str(exp) else option for option in options]
    train_main([*more, "--init", str(tmp_path / "new")])
    end = weights(tmp_path / "more")
    moved = {name.rpartition(".")[0] for name in end if not torch.equal(start[name], end[name])}
    assert moved and all(m.startswith(("fusion.experts.3", "router.ffn")) for m in moved)
    assert torch.equal(start["router.ffn.weight"][:3], end["router.ffn.weight"][:3])
    config = yaml.safe_load((tmp_path / "more" / "config.yaml").read_text())
    assert config["init"] == str(tmp_path / "new") and config["warmup"] == "none"
    assert config["fusion_conf"]["num_fused"] == 1 and len(config["tasks"]) == 4
    assert not (tmp_path / "more" / "warmup").exists()
    assert json.loads((tmp_path / "more" / "peak_memory.json").read_text())["resident_bytes"] > 1e8
    for extra, message in (
        (["--init", str(tmp_path / "nowhere")], "--init .*nowhere: there is no model.pth"),
        (["--init", str(tmp_path / "new"), "--warmup", "ctc"], "needs no warm-up"),
    ):
        with pytest.raises(PamError, match=message):
            train_main([*more, *extra])


def rates_of(optimizer, model):
    """The rate and weight decay of every parameter, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_lora_and_the_router_have_rates_of_their_own(tiny_model):
    class Args:
        optim = "adamw"
        optim_conf = {
            "lr": 1e-3,
            "weight_decay": 0.01,
            "lora_lr": 2e-3,
            "router_lr": 3e-3,
            "router_weight_decay": 0.3,
        }

    (optimizer,) = PaMTask.build_optimizers(Args, tiny_model)
    found = rates_of(optimizer, tiny_model)
    assert found.keys() == {n for n, p in tiny_model.named_parameters() if p.requires_grad}
    for name, settings in found.items():
        part = "lora" if "lora_" in name else name.split(".")[0]
        expected = {"lora": (2e-3, 0.01), "router": (3e-3, 0.3)}.get(part, (1e-3, 0.01))
        assert settings == expected, name


FLAGS = ("amsgrad", "maximize", "capturable", "foreach", "fused")


@pytest.mark.parametrize("options", [{flag: value} for flag in FLAGS for value in (True, False)])
def test_every_flag_of_adamw_can_be_given(tiny_model, options):
    class Args:
        optim, optim_conf = "adamw", {"lr": 1e-3} | options

    (optimizer,) = PaMTask.build_optimizers(Args, tiny_model)
    assert all(
        group[flag] == value for group in optimizer.param_groups for flag, value in options.items()
    )
    assert optimizer.param_groups[0]["fused"] == (
        options not in ({"fused": False}, {"foreach": True})
    )


@pytest.mark.parametrize("fusion", ["pam", "wavllm", "salmonn"])
@pytest.mark.parametrize("phase", ["ctc", "llm"])
def test_an_encoder_may_have_a_factor_of_the_rate(tiny_config, fusion, phase):
    """It acts on what the fusion has of this encoder alone, in both phases."""

    class Args:
        optim = "adamw"
        optim_conf = {"lr": 1e-3, "lora_lr": 2e-3, "lr_factors": {"second": 0.25, "unused": 0.5}}

    model = build_with_lora(tiny_config | {"fusion": fusion, "fusion_conf": {}})
    if phase == "ctc":
        model = warmup_of(model)
    (optimizer,) = PaMTask.build_optimizers(Args, model)
    found = rates_of(optimizer, model)
    assert found.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert optimizer.param_groups[0]["lr"] == 1e-3  # the first rate of a log is lr itself
    own = [name for name in found if re.search(r"fusion\.(adapters|branches)\.1\.", name)]
    assert bool(own) == (fusion != "salmonn")
    for name, (rate, _) in found.items():
        assert rate == (2e-3 if "lora_" in name else 2.5e-4 if name in own else 1e-3), name
