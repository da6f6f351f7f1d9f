"""States at native rates: dumped, loaded and heard as those that are made online."""

import json

import numpy as np
import pytest
import soundfile
import torch
from small_dirs import tables

from pam.data.archive import load, read_scp
from pam.data.audio import load_audio
from pam.data.datadir import DataDir
from pam.data.scan import Clip
from pam.data.scp import read_table
from pam.decode.decode_set import audio_loader, loader_of
from pam.encoders import load_encoder
from pam.encoders.dump import DumpOptions, dump
from pam.encoders.shards import predicted_bytes
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
    DataDir(tables(SECONDS) | {"wav.scp": wavs}).write(tmp_path / "data" / "set")
    return tmp_path / "data" / "set"


def test_both_rates_lie_beside_each_other(data, specs, tmp_path):
    root = tmp_path / "dump"
    for native in (False, True):
        assert dump(data, root / "raw/set", DumpOptions(specs, root, native=native)) == {}
    for name, case in specs.items():
        encoder = load_encoder(case)
        pooled, own = (root / f"{name}{end}" / "set" for end in ("", "_native"))
        assert (pooled / "utt2num_frames").read_text() == (own / "utt2num_frames").read_text()
        frames = read_table(own / "utt2num_frames")
        stored = {utt: load(place) for utt, place in read_scp(own / "feats.scp").items()}
        clips = [Clip(utt, "", round(seconds * 16000)) for utt, seconds in SECONDS.items()]
        for clip in clips:
            assert int(frames[clip.utt]) == encoder.output_length(clip.samples)
            assert len(stored[clip.utt]) == encoder.native_length(clip.samples)
        size = sum(array.nbytes for array in stored.values())
        assert size == predicted_bytes(encoder, clips, native=True)
        assert json.loads((own / "dump.json").read_text())["utterances"] == len(SECONDS)


@torch.no_grad()
def test_heard_as_online(data, specs, tiny_config, tmp_path):
    """The dumped states of a batch and its audio: the same frames, shares and features."""
    root = tmp_path / "dump"
    dump(data, root / "raw/set", DumpOptions(specs, root, native=True))
    torch.manual_seed(0)
    model = build_model(tiny_config | {"encoders": specs, "pool": "after"}, online=True).eval()
    raw = DataDir.read(root / "raw/set")
    heard = []
    for loader in (loader_of(model, root / "raw/set", raw, "dumped", None), audio_loader(raw)):
        features, lengths = loader(list(SECONDS))
        batch = {**features, **{f"{name}_lengths": n for name, n in lengths.items()}}
        heard.append(model.states(batch))
    (dumped, frames, pooling), (online, own_frames, own_pooling) = heard
    least = [
        min(model.encoders[name].output_length(round(s * 16000)) for name in specs)
        for s in SECONDS.values()
    ]
    assert frames.tolist() == own_frames.tolist() == least
    for mine, theirs in zip(pooling, own_pooling, strict=True):
        assert torch.equal(mine.shares, theirs.shares)
    for mine, theirs in zip(dumped, online, strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs, rtol=6e-4, atol=1e-3)  # float16
    gate = torch.eye(4)
    ours, counts = model.hear(dumped, frames, pooling, gate)
    theirs, _ = model.hear(online, own_frames, own_pooling, gate)
    assert torch.equal(counts, frames)
    for row, count in enumerate(frames.tolist()):
        torch.testing.assert_close(ours[row, :count], theirs[row, :count], rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_pooling_native_states_gives_those_at_25_hz(data, specs, tiny_config):
    """What a model hears with `pool: before` is the mean of what it hears with `pool: after`."""
    clips = [torch.from_numpy(load_audio(data.parents[1] / "wav" / f"{u}.wav")) for u in SECONDS]
    speech = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    batch = {"speech": speech, "speech_lengths": torch.tensor([len(clip) for clip in clips])}
    before, after = (
        build_model(tiny_config | {"encoders": specs, "pool": pool}, online=True)
        for pool in ("before", "after")
    )
    states, frames, nothing = before.states(batch)
    native, own_frames, pooling = after.states(batch)
    assert nothing is None and torch.equal(frames, own_frames)
    for state, own, pool in zip(states, native, pooling, strict=True):
        torch.testing.assert_close(pool(own), state)
