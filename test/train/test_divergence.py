"""Trainings whose losses are not finite: errors, and epochs that are left out."""

import json

import pytest
import torch

from pam.bin.average import dev_losses
from pam.bin.average import main as average_main
from pam.bin.train import main as train_main
from pam.errors import PamError
from pam.model.speech_llm import ESPnetPaMModel
from pam.train.checkpoint import average
from pam.train.phases import refuse_lost
from pam.train.trainer import PaMTrainer

BATCHES = 8  # of a validation: four tasks, six clips, three a batch


def spoil(monkeypatch, epochs, others=1.0):
    """In validations, make the loss NaN in so many first batches of these epochs; that of their
    other batches is multiplied by `others`."""
    plain, validated = ESPnetPaMModel.forward, []

    def forward(self, *args, **kwargs):
        loss, stats, weight = plain(self, *args, **kwargs)
        if not self.training and (len(validated) // BATCHES + 1) in epochs:
            factor = others
            if len(validated) % BATCHES < epochs[len(validated) // BATCHES + 1]:
                factor = torch.nan
            loss, stats["loss"] = loss * factor, stats["loss"] * factor
        validated.extend([] if self.training else [1])
        return loss, stats, weight

    monkeypatch.setattr(ESPnetPaMModel, "forward", forward)


@pytest.mark.parametrize("phase", ["warmup", "train"])
def test_a_training_that_diverges_is_an_error_and_stays_one(setup, phase):
    """It is never called trained; the same command says it again."""
    exp, options = setup
    key = f"phases.{'ctc' if phase == 'warmup' else 'llm'}.optim_conf.lr"
    options = [*options, "--set", f"{key}=1e30"]
    if phase == "train":
        options += ["--warmup", "none"]
    for _ in range(2):
        with pytest.raises(
            PamError, match=rf"{phase}: the training diverged in epoch \d: "
        ) as told:
            train_main(options)
        assert "asr_clean" in str(told.value) and "is not finite: lower " in str(told.value)
        assert key.rpartition(".")[0] in str(told.value)
        assert str(told.value).endswith(f"another --expname or remove {exp}")
        assert "\n" not in str(told.value) and not (exp / phase / "last.pth").exists()


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_dev_loss_that_is_not_finite_is_no_checkpoint(
    setup, combined, monkeypatch, caplog, epoch
):
    """One batch of one task is enough, though ESPnet's means leave it out."""
    exp, options = setup
    spoil(monkeypatch, {epoch: 1})
    options = [*options, "--warmup", "none", "--set", "keep_nbest_models=3"]
    if epoch == 3:
        with pytest.raises(PamError, match="in epoch 3: the dev loss of ac is not finite"):
            train_main(options)
        assert not (exp / "train" / "last.pth").exists()
        return
    train_main(options)
    curves = json.loads((exp / "curves.json").read_text())
    assert [point["diverged"] for point in curves] == [[], ["ac"], []]
    average_main(["--exp", str(exp), "--dev", str(combined), "--num", "2"])
    assert "epoch 2 is left out: its dev loss of ac is not finite" in caplog.text
    want = average([exp / "train" / f"{epoch}epoch.pth" for epoch in (3, 1)])
    got = torch.load(exp / "model.pth", weights_only=True)
    assert all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize("spoilt", [1, BATCHES], ids=["one_batch", "all_batches"])
@pytest.mark.parametrize("method", ["last", "best"])
def test_an_epoch_that_diverged_takes_the_place_of_no_other(
    setup, combined, monkeypatch, method, spoilt
):
    """The mean that ESPnet makes of its other batches is the least of all epochs here."""
    exp, options = setup
    spoil(monkeypatch, {2: spoilt, 3: spoilt}, others=0.0)
    options += ["--warmup", "none", "--set", "budgets.short.steps=16"]
    train_main([*options, "--set", "keep_nbest_models=2"])
    kept = {path.name for path in (exp / "train").glob("?epoch.pth")}
    assert kept == {"1epoch.pth", "4epoch.pth"}
    average_main(["--exp", str(exp), "--dev", str(combined), "--method", method, "--num", "2"])
    want = average([exp / "train" / name for name in kept])
    got = torch.load(exp / "model.pth", weights_only=True)
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_a_run_that_is_killed_after_such_an_epoch_resumes(setup, monkeypatch):
    """As the training goes on after it where nobody kills it."""
    exp, options = setup
    options += ["--warmup", "none"]

    def die(cls, reporter, **others):
        if reporter.get_epoch() == 3:
            raise KeyboardInterrupt
        return plain(reporter=reporter, **others)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        spoil(patch, {2: 1})
        plain = PaMTrainer.train_one_epoch
        patch.setattr(PaMTrainer, "train_one_epoch", classmethod(die))
        train_main(options)
    assert not (exp / "train" / "3epoch.pth").exists()
    train_main(options)
    curves = json.loads((exp / "curves.json").read_text())
    assert [point["diverged"] for point in curves] == [[], ["ac"], []]


def test_weights_that_are_not_finite_are_not_gone_on_from(tmp_path):
    """Nor is it refused where only a loss was: see above."""
    folder = tmp_path / "train"
    stats = {1: {"valid": {"nonfinite_ac": 0.5}}}
    good, bad = torch.zeros(2), torch.tensor([0.0, torch.nan])
    refuse_lost({"reporter": {"stats": stats}, "model": {"w": good}}, 2, folder)
    for weights, epochs in ((bad, 2), (good, 1)):
        with pytest.raises(PamError, match="in epoch 1: the dev loss of ac is not finite"):
            refuse_lost({"reporter": {"stats": stats}, "model": {"w": weights}}, epochs, folder)


def test_curves_of_an_earlier_version_are_read(tmp_path):
    """They do not say which tasks diverged; a loss that is not finite is not there."""
    points = [{"phase": "llm", "epoch": n, "dev": {"loss": 1.0} if n > 1 else {}} for n in (1, 2)]
    (tmp_path / "curves.json").write_text(json.dumps(points))
    assert dev_losses(tmp_path) == {2: 1.0}
