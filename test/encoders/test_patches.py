"""BEATs and EAT against slow transcriptions of their papers and originals: one clip, one head, one
pair of patches at a time; and against ESPnet's BEATs."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny import BEATS_CFG, EAT_CONFIG, beats_weights, eat_weights, save_beats, save_eat
from torch import Tensor
from torchaudio.compliance import kaldi

from pam.encoders import load_encoder
from pam.errors import PamError

# 16 windows a step: nothing left over, nothing left over but samples, one window over, one missing.
SAMPLES = [2560 * 3 + 240, 2560 * 3 + 399, 2560 * 3 + 400, 2560 * 4 + 239, 500]


def clip(samples: int) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples)) + 0.02


def run(encoder, audio: Tensor) -> Tensor:
    return encoder(audio[None], torch.tensor([len(audio)]))[0][0]


def check(ours: Tensor, theirs: Tensor) -> None:
    # Worst measured over this file: 1.9e-7 of the largest state.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5 * theirs.abs().max().item())


def linear(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(x: Tensor, w: dict[str, Tensor], name: str, epsilon: float) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def patches(spectrum: Tensor) -> Tensor:
    """[P, 256]: for every 16 windows, low bands first."""
    steps = len(spectrum) // 16
    return torch.stack(
        [
            spectrum[16 * j : 16 * j + 16, 16 * m : 16 * m + 16].flatten()
            for j in range(steps)
            for m in range(8)
        ]
    )


def frames(states: list[Tensor], samples: int) -> Tensor:
    """Mean over the bands of a step, each step 4 frames long, cut at the clip's end."""
    per_step = torch.stack(states).unflatten(1, (-1, 8)).mean(dim=2)
    return per_step.repeat_interleave(4, dim=1)[:, : math.ceil(samples / 640)]


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float) -> Tensor:
    scores = q @ k.T / q.shape[1] ** 0.5 + bias
    weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    return weights @ v


def bucket(distance: int) -> int:
    """T5's, for 16 buckets and a largest distance of 20."""
    start, distance = (8 if distance > 0 else 0), abs(distance)
    if distance < 4:
        return start + distance
    return start + min(4 + int(math.log(distance / 4) / math.log(20 / 4) * 4), 7)


def plain_beats(audio: Tensor, w: dict[str, Tensor]) -> list[Tensor]:
    windows = (len(audio) - 400) // 160 + 1
    missing = -windows % 16 * 160
    whole = torch.cat([audio, torch.zeros(missing)]) * 2**15
    mel = kaldi.fbank(whole[None], num_mel_bins=128, sample_frequency=16000)
    x = patches((mel - 15.41663) / (2 * 6.55582)) @ w["patch_embedding.weight"].flatten(1).T
    x = linear(norm(x, w, "layer_norm", 1e-5), w, "post_extract_proj")
    x = norm(x + F.gelu(plain_positions(x, w)), w, "encoder.layer_norm", 1e-5)
    table = w["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    buckets = torch.tensor([[bucket(j - i) for j in range(len(x))] for i in range(len(x))])
    alpha, states = (2 * 3) ** 0.25, [x]
    for i in range(3):
        layer = f"encoder.layers.{i}"
        attended = plain_gated_attention(x, w, f"{layer}.self_attn", table[buckets])
        x = norm(alpha * x + attended, w, f"{layer}.self_attn_layer_norm", 1e-5)
        hidden = F.gelu(linear(x, w, f"{layer}.fc1"))
        x = alpha * x + linear(hidden, w, f"{layer}.fc2")
        x = norm(x, w, f"{layer}.final_layer_norm", 1e-5)
        states.append(x)
    return states


def plain_positions(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """The grouped convolution with kernel 6, which reaches from 3 before to 2 after."""
    v, g = w["encoder.pos_conv.0.weight_v"], w["encoder.pos_conv.0.weight_g"]
    weight = g * v / v.square().sum(dim=(0, 1), keepdim=True).sqrt()
    padded = torch.cat([torch.zeros(3, 32), x, torch.zeros(2, 32)])
    out = w["encoder.pos_conv.0.bias"].repeat(len(x), 1)
    for at in range(len(x)):
        for group in range(4):
            part = slice(8 * group, 8 * group + 8)
            seen = padded[at : at + 6, part]
            out[at, part] += torch.einsum("ock,kc->o", weight[part], seen)
    return out


def plain_gated_attention(x: Tensor, w: dict[str, Tensor], name: str, bias: Tensor) -> Tensor:
    q, k, v = (linear(x, w, f"{name}.{part}_proj") for part in "qkv")
    heads = []
    for h in range(2):
        part = slice(16 * h, 16 * h + 16)
        sums = linear(q[:, part], w, f"{name}.grep_linear")
        update, reset = sums[:, :4].sum(1).sigmoid(), sums[:, 4:].sum(1).sigmoid()
        gate = update * (reset * w[f"{name}.grep_a"][0, h, 0, 0] - 1) + 2
        distances = gate[:, None] * bias[:, :, h]
        heads.append(softmax_attention(q[:, part], k[:, part], v[:, part], distances))
    return linear(torch.cat(heads, dim=1), w, f"{name}.out_proj")


def plain_eat(audio: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    w = {key.removeprefix("model."): value for key, value in weights.items()}
    centred = (audio - audio.mean())[None]
    mel = kaldi.fbank(
        centred,
        num_mel_bins=128,
        sample_frequency=16000,
        window_type="hanning",
        htk_compat=True,
        use_energy=False,
        dither=0.0,
    )
    mel = torch.cat([mel, torch.zeros(-len(mel) % 16, 128)])
    x = patches((mel + 4.268) / (2 * 4.569)) @ w["local_encoder.proj.weight"].flatten(1).T
    x = x + w["local_encoder.proj.bias"]
    for at in range(len(x)):
        step, band = divmod(at, 8)
        for i in range(8):
            rate = 1 / 10_000 ** (i / 8)
            x[at, i] += math.sin(band * rate)
            x[at, 8 + i] += math.cos(band * rate)
            x[at, 16 + i] += math.sin(step * rate)
            x[at, 24 + i] += math.cos(step * rate)
    x = norm(torch.cat([w["extra_tokens"][0], x]), w, "pre_norm", 1e-6)
    states = [x[1:]]
    for i in range(2):
        block, parts = f"blocks.{i}", []
        qkv = linear(x, w, f"{block}.attn.qkv")
        for h in range(2):
            q, k, v = (qkv[:, 32 * s + 16 * h : 32 * s + 16 * h + 16] for s in range(3))
            parts.append(softmax_attention(q, k, v, 0.0))
        attended = linear(torch.cat(parts, dim=1), w, f"{block}.attn.proj")
        x = norm(x + attended, w, f"{block}.norm1", 1e-6)
        hidden = F.gelu(linear(x, w, f"{block}.mlp.fc1"))
        x = norm(x + linear(hidden, w, f"{block}.mlp.fc2"), w, f"{block}.norm2", 1e-6)
        states.append(x[1:])
    return states


PLAIN = {"beats": (plain_beats, beats_weights), "eat": (plain_eat, eat_weights)}


@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("case", PLAIN)
def test_equals_the_plain_transcription(tiny_encoders, case, samples):
    plain, weights = PLAIN[case]
    audio = clip(samples)
    check(run(tiny_encoders[case], audio), frames(plain(audio, weights()), samples))


@torch.no_grad()
def test_beats_is_espnets(tiny_encoders):
    """A clip that ends with a patch: ESPnet, as the original, drops what is left over."""
    from espnet2.asr.encoder.beats_encoder import BeatsEncoder

    theirs = BeatsEncoder(input_size=1, beats_config=BEATS_CFG).eval()
    weights = {k: v for k, v in beats_weights().items() if not k.startswith("predictor")}
    theirs.load_state_dict(weights)
    audio = clip(2560 * 6 + 240)
    states = []
    hooks = [
        layer.register_forward_hook(lambda module, args, out: states.append(out[0][:, 0]))
        for layer in theirs.encoder.layers
    ]
    theirs.encoder.layers[0].register_forward_pre_hook(
        lambda module, args: states.append(args[0][:, 0])
    )
    theirs.extract_features(audio[None], torch.zeros(1, len(audio), dtype=torch.bool))
    assert len(states) == len(hooks) + 1 == tiny_encoders["beats"].num_states
    check(run(tiny_encoders["beats"], audio), frames(states, len(audio)))


@pytest.mark.parametrize("case", PLAIN)
def test_lengths_are_those_of_kaldis_windows(tiny_encoders, case):
    """From 0.03 to 31 s, on and beside the edges of windows and of steps."""
    for samples in (480, 559, 560, 2799, 2800, 2959, 2960, 479_999, 480_000, 496_000):
        mel = kaldi.fbank(torch.zeros(1, samples), num_mel_bins=23, sample_frequency=16000)
        assert tiny_encoders[case].native_length(samples) == math.ceil(len(mel) / 16)


def test_steps_of_160_ms_become_frames_of_40_ms(tiny_encoders):
    """1 s fills 98 windows: 7 steps of 4 frames, of which the clip has time for 25."""
    for case in PLAIN:
        encoder = tiny_encoders[case]
        assert encoder.native_length(16000) == 7 and encoder.output_length(16000) == 25
        states = run(encoder, clip(16000))
        steps = states[:, :24].unflatten(1, (6, 4))
        assert torch.equal(steps, steps[:, :, :1].expand_as(steps))
        assert (steps[:, 1:, 0] - steps[:, :-1, 0]).abs().amax(dim=(1, 2)).gt(0.01).all()


@pytest.mark.parametrize("case", PLAIN)
def test_a_folder_made_of_the_loaded_model_is_the_model(tiny_encoders, tmp_path, case):
    encoder = tiny_encoders[case]
    encoder.model.save_pretrained(tmp_path)
    again = load_encoder({"family": case, "path": str(tmp_path)})
    assert torch.equal(run(again, clip(9000)), run(encoder, clip(9000)))


def test_beats_whose_safetensors_keep_the_original_names(tiny_encoders, tmp_path):
    config = {"model_type": "beats", **BEATS_CFG}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = {k: v.clone() for k, v in beats_weights().items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = load_encoder({"family": "beats", "path": str(tmp_path)})
    assert torch.equal(run(again, clip(9000)), run(tiny_encoders["beats"], clip(9000)))


def original_eat() -> dict:
    """As fairseq saves a pre-training: one modality, decoder, teacher."""
    model = {}
    for key, value in eat_weights().items():
        key = key.removeprefix("model.")
        if not key.startswith("blocks."):
            key = "modality_encoders.IMAGE." + key.replace("pre_norm.", "context_encoder.norm.")
        model[key] = value
    model["modality_encoders.IMAGE.decoder.proj.weight"] = torch.zeros(2, 2)
    model["_ema"] = {"blocks.0.norm1.weight": torch.zeros(32)}
    names = ("embed_dim", "depth", "num_heads", "mlp_ratio", "norm_eps", "layer_norm_first")
    cfg = {"_name": "data2vec_multi", "clone_batch": 16} | {n: EAT_CONFIG[n] for n in names}
    return {"args": None, "cfg": {"model": cfg}, "model": model}


def test_eat_in_fairseqs_layout(tiny_encoders, tmp_path):
    torch.save(original_eat(), tmp_path / "eat.pt")
    again = load_encoder({"family": "eat", "path": str(tmp_path / "eat.pt")})
    assert torch.equal(run(again, clip(9000)), run(tiny_encoders["eat"], clip(9000)))


def test_eat_that_was_fine_tuned_loses_its_classifier(tiny_encoders, tmp_path):
    save_eat(tmp_path)
    head = {"model.head.weight": torch.ones(5, 32), "model.fc_norm.bias": torch.ones(32)}
    save_file(eat_weights() | head, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = load_encoder({"family": "eat", "path": str(tmp_path)})
    assert torch.equal(run(again, clip(9000)), run(tiny_encoders["eat"], clip(9000)))


def change_beats(path: Path, cfg: dict | None = None, weights: dict | None = None) -> str:
    checkpoint = {"cfg": BEATS_CFG | (cfg or {}), "model": beats_weights() | (weights or {})}
    checkpoint["model"] = {k: v for k, v in checkpoint["model"].items() if v is not None}
    torch.save(checkpoint, path)
    return str(path)


@pytest.mark.parametrize(
    ("cfg", "weights", "message"),
    [
        ({}, {"encoder.layers.1.fc1.bias": None}, r"lacks the weights encoder\.layers\.1\.fc1"),
        ({}, {"encoder.pos_conv.0.weight_g": None}, "lacks the weights encoder.pos_conv"),
        ({}, {"mask_emb": torch.zeros(32)}, "has unknown weights mask_emb"),
        ({}, {"layer_norm.bias": torch.zeros(3)}, r"shape: layer_norm\.bias \[3\], not \[24\]"),
        ({"encoder_layers": 4}, {}, r"lacks the weights encoder\.layers\.3"),
        ({"layer_norm_first": True}, {}, "layer_norm_first is True, only False is supported"),
        ({"activation_fn": "glu"}, {}, "activation_fn is 'glu', only 'gelu'"),
        ({"gru_rel_pos": False}, {}, "gru_rel_pos is False, only True"),
    ],
)
def test_beats_that_is_not_whole_or_not_ours_is_refused(tmp_path, cfg, weights, message):
    path = change_beats(tmp_path / "beats.pt", cfg, weights)
    with pytest.raises(PamError, match=message):
        load_encoder({"family": "beats", "path": path})


class Code:
    def __reduce__(self):
        return (print, ("the checkpoint ran its code",))


def test_original_files_that_are_something_else_are_refused(tmp_path, capsys):
    path = tmp_path / "model.pt"
    for content, message in [
        ({"cfg": BEATS_CFG, "model": beats_weights(), "more": Code()}, "cannot be read"),
        ({"state_dict": beats_weights()}, "not a dictionary with 'cfg' and 'model'"),
        (torch.zeros(3), "not a dictionary with 'cfg' and 'model'"),
    ]:
        torch.save(content, path)
        for family in PLAIN:
            with pytest.raises(PamError, match=message):
                load_encoder({"family": family, "path": str(path)})
    assert "ran its code" not in capsys.readouterr().out
    for damaged in (b"half a file", path.read_bytes()[:100], b""):
        path.write_bytes(damaged)
        with pytest.raises(PamError, match="cannot be read") as error:
            load_encoder({"family": "beats", "path": str(path)})
        assert "\n" not in str(error.value)
    with pytest.raises(PamError, match="missing.pt.* cannot be read"):
        load_encoder({"family": "beats", "path": str(tmp_path / "missing.pt")})
    with pytest.raises(PamError, match="does not describe EAT"):
        load_encoder({"family": "eat", "path": str(save_beats(tmp_path))})


def test_eat_with_another_shape_of_patch_is_refused(tmp_path):
    save_eat(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(EAT_CONFIG | {"stride": 10}))
    with pytest.raises(PamError, match="stride is 10, only 16 is supported"):
        load_encoder({"family": "eat", "path": str(tmp_path)})
