"""Resemblyzer against a slow transcription: one window, one frame, one gate at a time."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pam.encoders import load_encoder
from pam.encoders.pooling import pool_frames
from pam.encoders.resemblyzer import louder, mel_filters
from pam.errors import PamError
from pam.model.architecture import count, encoder_flops, on_meta


def clip(samples: int, level: float = 0.01) -> Tensor:
    return level * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


def plain_filter(band: int, hertz: float, bands: int) -> float:
    """Slaney's: 15 mels to 1000 Hz, then 27 for each factor of 6.4; triangles of area 1 in Hz."""
    top = 15 + 27 * math.log(8) / math.log(6.4)

    def hz(mel: float) -> float:
        return 200 / 3 * mel if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    left, centre, right = (hz(top * i / (bands + 1)) for i in (band, band + 1, band + 2))
    height = min((hertz - left) / (centre - left), (right - hertz) / (right - centre))
    return max(0.0, height) * 2 / (right - left)


def plain_mel(audio: Tensor, frames: int, bands: int = 8) -> Tensor:
    """[F, M]: of windows around every 10 ms, in silence, of a clip of -30 dBFS at least."""
    rms = math.sqrt(sum(x * x for x in audio.tolist()) / len(audio))
    audio = audio * max(10**-1.5 / rms, 1)
    window = torch.tensor([0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)])
    around = torch.cat([torch.zeros(200), audio, torch.zeros(160 * frames + 400)])
    filters = torch.tensor(
        [[plain_filter(m, 40.0 * f, bands) for f in range(201)] for m in range(bands)]
    )
    starts = [160 * i for i in range(frames)]
    return torch.stack(
        [filters @ torch.fft.rfft(around[s : s + 400] * window).abs().square() for s in starts]
    )


def plain_states(mel: Tensor, w: dict[str, Tensor], layers: int) -> Tensor:
    """[S, F, D]: LSTM cells from a zero state, then the embedding at every frame."""
    x, states = list(mel), []
    for i in range(layers):
        own = {k.removeprefix(f"layers.{i}."): v for k, v in w.items()}
        width = own["weight_hh_l0"].shape[1]
        hidden, cell, out = torch.zeros(width), torch.zeros(width), []
        for frame in x:
            gates = own["weight_ih_l0"] @ frame + own["bias_ih_l0"]
            gates += own["weight_hh_l0"] @ hidden + own["bias_hh_l0"]
            enter, forget, new, leave = gates.split(width)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            hidden = leave.sigmoid() * cell.tanh()
            out.append(hidden)
        states.append(torch.stack(out))
        x = out
    raw = [(w["linear.weight"] @ frame + w["linear.bias"]).clamp(min=0) for frame in x]
    return torch.stack([*states, torch.stack([r / r.norm() for r in raw])])


def plain_windows(mel: Tensor, w: dict[str, Tensor], window: int) -> Tensor:
    """Frame j, shown a quarter of a window early: from the start of the window before its own
    half, or of the clip."""
    half, states = window // 2, []
    for j in range(len(mel)):
        start = max(j // half - 1, 0) * half
        states.append(plain_states(mel[start : j + 1], w, layers=2)[:, -1])
    return torch.stack(states, dim=1)[:, window // 4 :]


@pytest.mark.parametrize("samples", [1, 640, 5000, 9001])
@pytest.mark.parametrize("window", [None, 16])
def test_equals_the_plain_transcription(tiny_specs, samples, window):
    spec = tiny_specs["resemblyzer"] | {"conf": {"window_frames": window}}
    w = load_file(Path(spec["path"], "model.safetensors"))
    frames = math.ceil(samples / 160)
    mel = plain_mel(clip(samples), frames + (window or 0) // 4)
    theirs = plain_windows(mel, w, window) if window else plain_states(mel, w, layers=2)
    encoder = load_encoder(spec)
    ours = encoder.native(clip(samples)[None], torch.tensor([samples]))[0][0]
    assert ours.shape == (3, frames, 16) and encoder.native_length(samples) == frames
    # Worst measured: 8.6e-7, of states up to 0.9.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5)
    pooled, _ = encoder(clip(samples)[None], torch.tensor([samples]))
    lengths = torch.tensor([frames]), 160, torch.tensor([samples])
    torch.testing.assert_close(pooled, pool_frames(ours[None], *lengths)[0])


def test_filters_are_slaneys():
    plain = torch.tensor([[plain_filter(m, 40.0 * f, 40) for f in range(201)] for m in range(40)])
    torch.testing.assert_close(mel_filters(40), plain, rtol=0, atol=1e-7)


@pytest.mark.filterwarnings("ignore:n_fft=400 is too large")
@pytest.mark.parametrize("samples", [1, 159, 160, 16_001])
def test_the_spectrum_is_librosas(tiny_encoders, samples):
    """As the original calls it."""
    librosa = pytest.importorskip("librosa")
    theirs = librosa.feature.melspectrogram(
        y=clip(samples, 0.1).numpy(), sr=16000, n_fft=400, hop_length=160, n_mels=8
    ).T
    ours = tiny_encoders["resemblyzer"].mel(clip(samples, 0.1)[None], len(theirs))[0]
    torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-5, atol=1e-6)


def test_only_a_quiet_clip_is_made_louder():
    """To -30 dBFS, over its own samples; silence stays."""
    audio = torch.stack([clip(800, 1e-4), clip(800, 0.2), torch.zeros(800)])
    audio[0, 400:] = 0
    lengths = torch.tensor([400, 800, 800])
    quiet, loud, silent = louder(audio, lengths)
    assert quiet[:400].square().mean().log10().item() * 10 == pytest.approx(-30, abs=1e-3)
    assert torch.equal(loud, audio[1]) and silent.eq(0).all()


def test_a_frame_depends_on_its_windows_alone(tiny_encoders):
    """The click reaches frames from 0.2 s (look-ahead) before it to at most 0.6 s after it."""
    encoder, samples = tiny_encoders["resemblyzer"], 48_000
    audio = clip(samples, 0.1)  # louder than -30 dBFS
    plain = encoder.native(audio[None], torch.tensor([samples]))[0][0]
    audio[24_000] += 1
    moved = encoder.native(audio[None], torch.tensor([samples]))[0][0]
    changed = (moved - plain).abs().amax(dim=(0, 2)).nonzero().flatten()
    assert 150 - 20 - 2 <= changed.min() <= 150 - 20 and 150 < changed.max() < 150 + 60


@pytest.mark.parametrize("window", [-4, 0, 2, 81])
def test_windows_that_have_no_quarter_are_refused(tiny_specs, window):
    with pytest.raises(PamError, match=f"window_frames {window}: expected a multiple of 4"):
        load_encoder(tiny_specs["resemblyzer"] | {"conf": {"window_frames": window}})


def original_weights(encoder) -> dict[str, Tensor]:
    """Under the names of the original checkpoint, with those of its loss."""
    ours = encoder.model.state_dict()
    lstm = {f"lstm.{k[9:-1]}{k[7]}": v for k, v in ours.items() if k.startswith("layers.")}
    linear = {k: v for k, v in ours.items() if k.startswith("linear.")}
    return lstm | linear | {f"similarity_{x}": torch.ones(1) for x in ("weight", "bias")}


def test_the_converter_of_fetch_models(tiny_encoders, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    from convert.resemblyzer import convert

    encoder = tiny_encoders["resemblyzer"]
    weights = original_weights(encoder)
    # A single LSTM of two layers gives what our two LSTMs give.
    theirs = torch.nn.LSTM(8, 16, 2, batch_first=True)
    theirs.load_state_dict({k[5:]: v for k, v in weights.items() if k.startswith("lstm.")})
    mel = torch.rand(2, 30, 8)
    with torch.no_grad():
        torch.testing.assert_close(encoder.model(mel)[1], theirs(mel)[0])
    torch.save({"step": 1, "model_state": weights, "optimizer_state": None}, tmp_path / "x.pt")
    convert(tmp_path / "x.pt", tmp_path / "made")
    again = load_encoder({"family": "resemblyzer", "path": str(tmp_path / "made")})
    assert all(
        torch.equal(value, again.model.state_dict()[key])
        for key, value in encoder.model.state_dict().items()
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lstm.weight_ih_l0", None, "no 'lstm.weight_ih_l0' in 'model_state'"),
        ("lstm.bias_hh_l1", None, r"missing \['layers.1.bias_hh_l0'\]"),
        ("lstm.weight_hr_l0", torch.ones(1), r"unknown \['layers.0.weight_hr_l0'\]"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(
    tiny_encoders, tmp_path, monkeypatch, key, value, message
):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    from convert.resemblyzer import convert

    weights = original_weights(tiny_encoders["resemblyzer"]) | {key: value}
    weights = {k: v for k, v in weights.items() if v is not None}
    torch.save({"model_state": weights}, tmp_path / "x.pt")
    with pytest.raises(PamError, match=message):
        convert(tmp_path / "x.pt", tmp_path / "made")


def test_sizes_of_the_published_network():
    """Without the two numbers of its loss. 37 windows of 0.8 s, 0.4 s apart, are 15 s of states."""
    assert count(on_meta("cache:resemblyzer")) == 1_423_616
    weights = (40 + 256) * 1024 + 2 * 512 * 1024 + 256 * 256
    assert encoder_flops("cache:resemblyzer") == (37 * 80 * 2 * weights, 15)
