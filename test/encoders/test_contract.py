"""Every encoder of the registry keeps the contract."""

import pytest
import torch
from tiny import CASES, SSL_SHAPE
from torch import nn
from transformers import HubertConfig, HubertModel

from pam.config.source import attribute_of, registered
from pam.encoders import ENCODERS, load_encoder
from pam.encoders.pooling import pool_frames
from pam.errors import PamError

# Of the largest state. Worst measured over all cases: 1.4e-6 (wav2vec2_large).
TOLERANCE = 5e-5
SECONDS = [0.03, 0.04, 0.05, 0.061, 0.08, 0.1, 0.123, 0.2, 0.333, 0.5, 0.999, 1.0, 1.37, 2.0, 3.1]


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def run_one(encoder, clip):
    states, mask = encoder(clip[None], torch.tensor([len(clip)]))
    assert mask.all()
    return states[0]


def test_every_family_of_the_registry_has_a_tiny_case():
    assert {family for family, _, _ in CASES.values()} == set(ENCODERS.names())


@pytest.mark.parametrize("family", ENCODERS.names())
def test_a_family_declares_its_shapes(family):
    """As the configurations have them: (width, hidden states) by the model's path."""
    cls = ENCODERS.get(family)
    assert cls.hop_samples > 0 and cls.models
    assert all(dim > 0 and states > 1 for dim, states in cls.models.values())
    assert attribute_of(registered("pam.encoders.ENCODERS")[family], "models") == cls.models


def test_shape_and_mask(encoder):
    lengths = torch.tensor([9000, 16000, 4000])
    audio = torch.stack([noise(16500, i) for i in range(3)])
    states, mask = encoder(audio, lengths)
    frames = [encoder.output_length(n) for n in lengths.tolist()]
    assert states.shape == (3, encoder.num_states, encoder.output_length(16000), encoder.dim)
    assert states.dtype == torch.float32
    assert torch.equal(mask.sum(dim=1), torch.tensor(frames))
    assert torch.isfinite(states).all()
    assert states[2, :, frames[2] :].eq(0).all()
    assert states[2, :, : frames[2]].std(dim=-1).gt(0).all()


@pytest.mark.parametrize("seconds", SECONDS)
def test_output_length_is_what_forward_gives(encoder, seconds):
    samples = round(seconds * 16000)
    frames = encoder.output_length(samples)
    if frames == 0:
        with pytest.raises(PamError, match=f"{samples} samples is too short"):
            run_one(encoder, noise(samples))
    else:
        assert run_one(encoder, noise(samples)).shape[1] == frames


def test_native_states_are_what_is_pooled(encoder):
    lengths = torch.tensor([9000, 16000, 4000])
    audio = torch.stack([noise(16500, i) for i in range(3)])
    native, frames = encoder.native(audio, lengths)
    assert frames.tolist() == [encoder.native_length(n) for n in lengths.tolist()]
    assert native.shape == (3, encoder.num_states, frames.max(), encoder.dim)
    pooled, mask = pool_frames(native, frames, encoder.hop_samples, lengths)
    states, expected = encoder(audio, lengths)
    assert torch.equal(states, pooled) and torch.equal(mask, expected)


def test_a_family_has_one_frame_rate(encoder):
    """Known without loading a model: the class says what its frames are."""
    seconds = 20
    spanned = encoder.native_length(seconds * 16000) * type(encoder).hop_samples
    assert abs(spanned - seconds * 16000) <= max(1000, encoder.hop_samples)


def test_other_strides_than_the_familys_are_an_error(tmp_path):
    strides = (5, 2, 2, 2, 2, 2, 1)
    HubertModel(HubertConfig(**SSL_SHAPE, conv_stride=strides)).save_pretrained(tmp_path)
    spec = {"family": "hubert", "path": str(tmp_path), "conf": {"normalize": True}}
    with pytest.raises(PamError, match="its convolutions stride 160 samples, those of .* 320"):
        load_encoder(spec)


@pytest.mark.parametrize("samples", [479_999, 480_000, 480_001, 496_000])
def test_around_thirty_seconds(encoder, samples):
    assert run_one(encoder, noise(samples)).shape[1] == encoder.output_length(samples)


def test_output_length_grows_by_one_frame_for_640_samples(encoder):
    lengths = [encoder.output_length(n) for n in range(2000, 500_000, 640)]
    steps = {b - a for a, b in zip(lengths, lengths[1:], strict=False)}
    assert steps <= {0, 1, 2} and lengths[-1] - lengths[0] == pytest.approx(len(lengths) - 1, abs=2)


def test_a_clip_takes_at_least_its_own_samples(encoder):
    """And a longer clip does not take less: batches are made of clips in the order of length."""
    lengths = [320, 1600, 16000, 479_999, 480_000, 480_001, 500_000, 960_000, 961_600]
    padded = [encoder.padded_samples(samples) for samples in lengths]
    assert padded == sorted(padded)
    assert all(took >= samples for took, samples in zip(padded, lengths, strict=True))


def test_padding_and_neighbours_change_nothing(encoder):
    clips = [noise(n, seed=n) for n in (5000, 16000, 7777, 16000, 1300)]
    lengths = torch.tensor([len(clip) for clip in clips])
    audio = torch.full((5, 17000), float("nan"))
    for row, clip in zip(audio, clips, strict=True):
        row[: len(clip)] = clip
    states, mask = encoder(audio, lengths)
    assert torch.isfinite(states).all()
    for i, clip in enumerate(clips):
        alone = run_one(encoder, clip)
        torch.testing.assert_close(
            states[i, :, mask[i]], alone, rtol=0, atol=TOLERANCE * alone.abs().max().item()
        )


def test_neighbours_on_both_sides_of_thirty_seconds(encoder):
    """A short clip beside one that needs a second piece of 30 s."""
    clips = [noise(490_000, 1), noise(4000, 2)]
    audio = torch.zeros(2, 490_000)
    for row, clip in zip(audio, clips, strict=True):
        row[: len(clip)] = clip
    states, mask = encoder(audio, torch.tensor([490_000, 4000]))
    alone = run_one(encoder, clips[1])
    tolerance = TOLERANCE * alone.abs().max().item()
    torch.testing.assert_close(states[1, :, mask[1]], alone, rtol=0, atol=tolerance)


def test_silence_is_finite(encoder):
    assert torch.isfinite(run_one(encoder, torch.zeros(8000))).all()


class Outer(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.own = nn.Linear(2, 2)


def test_stays_frozen_and_keeps_its_dtype_inside_an_outer_model(tiny_specs):
    for case in CASES:
        encoder = load_encoder(tiny_specs[case])
        before = run_one(encoder, noise(4000))
        outer = Outer(encoder).train().to(torch.bfloat16)
        assert outer.own.weight.dtype == torch.bfloat16
        assert not any(module.training for module in encoder.modules())
        assert not any(p.requires_grad for p in encoder.parameters())
        assert all(p.dtype == torch.float32 for p in encoder.parameters())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            after = run_one(encoder, noise(4000))
        assert torch.equal(before, after) and not after.requires_grad


def test_an_outer_model_can_move_it_between_devices(tiny_specs):
    encoder = load_encoder(tiny_specs["moonshine"])
    Outer(encoder).to("meta")
    assert {p.device.type for p in encoder.parameters()} == {"meta"}


@pytest.mark.parametrize(
    "case",
    [
        "whisper",
        "wav2vec2_base",
        "hubert_large",
        "wavlm_large",
        "moonshine",
        "beats",
        "eat",
        "ecapa",
        "yamnet",
        "resemblyzer",
    ],
)
def test_dtype_option(tiny_specs, tiny_encoders, case):
    """What the model reads is rounded, not the audio: quiet speech on an offset survives."""
    offset = 0.0 if case == "moonshine" else 0.9  # Moonshine reads the audio itself
    clip = 0.1 * noise(8000) + offset
    spec = tiny_specs[case]
    coarse = load_encoder({**spec, "conf": spec["conf"] | {"dtype": "bfloat16"}})
    states, exact = run_one(coarse, clip), run_one(tiny_encoders[case], clip)
    assert states.dtype == torch.bfloat16
    similar = torch.nn.functional.cosine_similarity(states.float(), exact, dim=-1)
    assert similar.min() > 0.99, similar.min()


def test_a_front_end_that_disagrees_with_its_lengths_fails(tiny_specs, monkeypatch):
    encoder = load_encoder(tiny_specs["wakehubert"])
    monkeypatch.setattr(encoder, "native_length", lambda samples: samples // 320 + 1)
    with pytest.raises(RuntimeError, match=r"\(1, 4, 25, 16\).*\(1, 4, 26, 16\)"):
        run_one(encoder, noise(8000))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"family": "wisper", "path": "x"}, "did you mean 'whisper'"),
        ({"family": "whisper"}, "'path' is missing"),
        ({"family": "whisper", "path": "x", "config": {}}, "unknown option 'config'"),
        ({"family": "whisper", "path": "cache:no-such-model"}, "run tools/fetch_models.py"),
        ({"family": "whisper", "path": "x", "conf": {"pad": 1}}, "unknown option 'pad'"),
        ({"family": "whisper", "path": "x", "conf": {"dtype": "int8"}}, "encoder dtype 'int8'"),
    ],
)
def test_wrong_specs_say_what_to_mend(spec, message):
    with pytest.raises(PamError, match=message):
        load_encoder(spec)
