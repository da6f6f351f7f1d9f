"""Dumped states give a model the same features as the encoders that run on the audio."""

import numpy as np
import pytest
import soundfile
import torch
from small_dirs import text_files

from pam.data.datadir import DataDir
from pam.data.utterances import pad, read_inputs
from pam.encoders.dump import DumpOptions, dump
from pam.model.build import build_model

NAMES = {"enc_a": "whisper_unpadded", "enc_b": "moonshine", "enc_c": "beats"}
SECONDS = {"s-1": 1.0, "s-2": 0.7, "s-3": 0.53, "s-4": 2.31}


@pytest.fixture
def specs(tiny_specs, tiny_encoders) -> dict:
    return {
        name: tiny_specs[case]
        | {"dim": tiny_encoders[case].dim, "num_states": tiny_encoders[case].num_states}
        for name, case in NAMES.items()
    }


@pytest.fixture
def data(tmp_path):
    (tmp_path / "wav").mkdir()
    generator = np.random.default_rng(0)
    for utt, seconds in SECONDS.items():
        samples = 0.1 * generator.standard_normal(round(seconds * 16000))
        soundfile.write(tmp_path / "wav" / f"{utt}.wav", samples, 16000)
    wavs = {utt: str(tmp_path / "wav" / f"{utt}.wav") for utt in SECONDS}
    DataDir(text_files(SECONDS) | {"wav.scp": wavs}).write(tmp_path / "data" / "set")
    return tmp_path / "data" / "set"


@torch.no_grad()
def test_dumped_states_are_those_that_are_made_online(data, specs, tiny_config, tmp_path):
    """The same frames and features of a batch; the dump rounds states to float16."""
    root = tmp_path / "dump"
    assert dump(data, root / "raw/set", DumpOptions(specs, root)) == {}
    torch.manual_seed(0)
    model = build_model(tiny_config | {"encoders": specs}, online=True).eval()
    found = []
    for feats in ("dumped", "online"):
        inputs = read_inputs(root / "raw/set", specs, feats, SECONDS)
        sequences, lengths = pad([inputs[utt] for utt in SECONDS])
        assert sequences.keys() == (specs.keys() if feats == "dumped" else {"speech"})
        batch = sequences | {f"{name}_lengths": n for name, n in lengths.items()}
        found.append(model.states(batch))
    (dumped, frames), (online, own_frames) = found
    least = [
        min(model.encoders[name].output_length(round(s * 16000)) for name in specs)
        for s in SECONDS.values()
    ]
    assert frames.tolist() == own_frames.tolist() == least
    for mine, theirs in zip(dumped, online, strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs, rtol=6e-4, atol=1e-3)  # float16
    gate = torch.eye(4)
    ours, counts = model.fuse(dumped, frames, gate)
    theirs, _ = model.fuse(online, own_frames, gate)
    assert torch.equal(counts, frames)
    for row, count in enumerate(frames.tolist()):
        torch.testing.assert_close(ours[row, :count], theirs[row, :count], rtol=1e-2, atol=1e-2)
