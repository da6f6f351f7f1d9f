"""Each family against transformers' own forward pass, with tiny random weights."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModel,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from pam.encoders import load_encoder
from pam.encoders.pooling import pool_frames
from pam.errors import PamError

SAMPLES = 20_000
SSL_CASES = [
    "wav2vec2_base", "wav2vec2_large", "hubert", "hubert_large", "wavlm", "wavlm_large",
]  # fmt: skip


def clip(samples: int = SAMPLES) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(3)) + 0.02


def ours(encoder, audio):
    return encoder(audio[None], torch.tensor([len(audio)]))[0]


def pooled(states, frames, hop=320):
    stacked = torch.stack(states, dim=1)[:, :, :frames]
    return pool_frames(stacked, torch.tensor([frames]), hop)[0]


def check(ours, theirs):
    # Measured: identical to the bit; the tolerance is for other processors and thread counts.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * theirs.abs().max().item())


# From the shortest clip of all to beyond Whisper's 30 s, on and beside the edges of frames.
LENGTHS = [480, 799, *range(1200, 496_000, 12_345), 479_999, 480_000, 480_161, 480_480, 496_000]


@pytest.mark.parametrize("case", SSL_CASES)
def test_ssl_lengths(tiny_encoders, case):
    encoder = tiny_encoders[case]
    theirs = encoder.model._get_feat_extract_output_lengths(torch.tensor(LENGTHS))
    assert [encoder.native_length(n) for n in LENGTHS] == theirs.tolist()


# Of one frame, of a usual clip, and of 31 s.
STATES_OF = [480, SAMPLES, 496_000]


@pytest.mark.parametrize("samples", STATES_OF)
@pytest.mark.parametrize("case", SSL_CASES)
@torch.no_grad()
def test_ssl(tiny_specs, tiny_encoders, case, samples):
    folder = tiny_specs[case]["path"]
    encoder = tiny_encoders[case]
    model = AutoModel.from_pretrained(folder).eval()
    audio = clip(samples)
    normalise = tiny_specs[case]["conf"].get("normalize", True)
    features = Wav2Vec2FeatureExtractor(do_normalize=normalise)(audio.numpy(), sampling_rate=16000)
    values = torch.as_tensor(features["input_values"][0])[None]
    out = model(values, output_hidden_states=True)
    # transformers keeps the last state from before the large models' final layer norm.
    states = [*out.hidden_states[:-1], out.last_hidden_state]
    assert len(states) == encoder.num_states == 3
    check(ours(encoder, audio), pooled(states, (samples - 400) // 320 + 1))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("case", ["wav2vec2_base", "hubert_large", "wavlm_large"])
@torch.no_grad()
def test_ssl_hears_what_the_preprocessor_config_says(tiny_specs, tmp_path, case, normalise):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(Path(tiny_specs[case]["path"], name).read_bytes())
    Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(tmp_path)
    encoder = load_encoder({"family": tiny_specs[case]["family"], "path": str(tmp_path)})
    assert encoder.normalize == normalise
    features = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)(
        clip().numpy(), sampling_rate=16000, return_tensors="pt"
    )
    theirs = AutoModel.from_pretrained(tmp_path).eval()(features.input_values).last_hidden_state
    check(ours(encoder, clip())[:, -1], pooled([theirs], theirs.shape[1])[:, 0])


@pytest.mark.parametrize("case", ["wav2vec2_large", "hubert_large", "wavlm_large"])
@torch.no_grad()
def test_ssl_batch_is_that_of_models_that_expect_padding(tiny_specs, tiny_encoders, case):
    """Models whose front end is layer-normalised take a mask, and their own batches are right."""
    clips = [clip(), clip()[:7000] * 2]
    features = Wav2Vec2FeatureExtractor(return_attention_mask=True)(
        [c.numpy() for c in clips], sampling_rate=16000, padding=True, return_tensors="pt"
    )
    theirs = AutoModel.from_pretrained(tiny_specs[case]["path"]).eval()(**features)
    lengths = torch.tensor([len(c) for c in clips])
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    states, mask = tiny_encoders[case](batch, lengths)
    for i, samples in enumerate(lengths.tolist()):
        frames = (samples - 400) // 320 + 1
        last = theirs.last_hidden_state[i : i + 1, :frames]
        check(states[i : i + 1, -1, mask[i]], pooled([last], frames)[:, 0])


@pytest.mark.parametrize("samples", [480, SAMPLES, 480_000])
@pytest.mark.parametrize("case", ["whisper", "whisper_v3"])
@torch.no_grad()
def test_whisper_padded_to_30_s(tiny_specs, case, samples):
    """With 80 bands, and with the 128 of large-v3."""
    spec = {**tiny_specs[case], "conf": {"pad_to_30s": True}}
    model = WhisperForConditionalGeneration.from_pretrained(spec["path"]).eval()
    mel = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)(
        clip(samples).numpy(), sampling_rate=16000, return_tensors="pt"
    )
    out = model.model.encoder(mel.input_features, output_hidden_states=True)
    states = [*out.hidden_states[:-1], out.last_hidden_state]
    encoder = load_encoder(spec)
    assert len(states) == encoder.num_states
    check(ours(encoder, clip(samples)), pooled(states, (samples // 160 + 1) // 2))


@pytest.mark.parametrize("samples", [480, 799, 20_161, 479_999, 480_000])
def test_whisper_lengths(tiny_encoders, samples):
    """Its own frames without padding; a longer clip is a run of 30 s, then the rest."""
    mel = WhisperFeatureExtractor()(
        torch.zeros(samples).numpy(), sampling_rate=16000, padding=False, return_tensors="pt"
    ).input_features
    encoder = tiny_encoders["whisper"]
    theirs = encoder.model._get_feat_extract_output_lengths(mel.shape[2])
    assert encoder.native_length(samples) == theirs
    assert encoder.native_length(480_000 + samples) == 1500 + theirs


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("samples", [SAMPLES, 480_000])
def test_whisper_log_mel(tiny_encoders, mels, samples):
    encoder = tiny_encoders["whisper" if mels == 80 else "whisper_v3"]
    audio = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(5))
    theirs = WhisperFeatureExtractor(feature_size=mels)(
        audio.numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_features
    mel = encoder.log_mel(audio[None], [3000])
    torch.testing.assert_close(mel, theirs, rtol=0, atol=1e-4)


def test_whisper_hears_no_frame_past_a_clips_own(tiny_encoders):
    """A click after the last frame's window is in a frame that only a longer neighbour brings."""
    encoder = tiny_encoders["whisper_v3"]  # no tail
    click = torch.zeros(160 * 50 + 159)
    click[-99:] = 1.0
    audio = torch.stack([torch.cat([click, torch.zeros(16_000 - len(click))]), clip(16_000)])
    states, mask = encoder(audio, torch.tensor([len(click), 16_000]))
    check(states[:1, :, mask[0]], ours(encoder, click))


class Shapes(TorchDispatchMode):
    """Notes the shapes of all tensors that operations return."""

    def __init__(self):
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.seen |= {tuple(x.shape) for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
        return out


@pytest.mark.parametrize("seconds", [1, 31])
def test_whisper_holds_no_states_of_the_silence_after_a_clip(tiny_encoders, seconds):
    """Of all layers: 1 s of 30 s is what a clip of 1 s needs."""
    encoder = tiny_encoders["whisper"]
    with Shapes() as shapes:
        states = ours(encoder, clip(16_000 * seconds))
    layers, dim = encoder.num_states, encoder.dim
    of_all_layers = {s for s in shapes.seen if len(s) == 4 and (s[1], s[3]) == (layers, dim)}
    assert max(shape[2] for shape in of_all_layers) == 50 * seconds
    assert states.shape[2] == 25 * seconds


def test_whisper_pieces_of_30_s_are_independent(tiny_encoders):
    encoder = tiny_encoders["whisper_unpadded"]
    audio = 0.1 * torch.randn(500_000, generator=torch.Generator().manual_seed(6))
    parts = torch.cat([ours(encoder, audio[:480_000]), ours(encoder, audio[480_000:])], dim=2)
    check(ours(encoder, audio), parts)


def test_moonshine_lengths(tiny_encoders):
    encoder = tiny_encoders["moonshine"]
    known = [n for n in LENGTHS if encoder.native_length(n)]
    assert len(known) >= len(LENGTHS) - 2  # the shortest are too short for its convolutions
    theirs = [encoder.model._get_feat_extract_output_lengths(n) for n in known]
    assert [encoder.native_length(n) for n in known] == theirs


@pytest.mark.parametrize("samples", [1200, SAMPLES, 496_000])
@torch.no_grad()
def test_moonshine(tiny_specs, tiny_encoders, samples):
    model = AutoModel.from_pretrained(tiny_specs["moonshine"]["path"]).eval()
    # Its preprocessor_config.json says do_normalize: false, and padding with zeros.
    hears = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    audio = clip(samples)
    encoder = tiny_encoders["moonshine"]
    values = hears(audio.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    out = model.encoder(values, output_hidden_states=True)
    states = [*out.hidden_states[:-1], out.last_hidden_state]
    assert encoder.native_length(samples) == states[0].shape[1]
    check(ours(encoder, audio), pooled(states, states[0].shape[1], hop=384))


def test_group_norm_models_do_feel_padding_unless_we_take_care(tiny_encoders):
    """The reason for running clips of one length at a time; if this fails, the care is moot."""
    encoder = tiny_encoders["wav2vec2_base"]
    audio = clip()[None]
    padded = torch.nn.functional.pad(audio, (0, 20_000))
    frames = encoder.native_length(SAMPLES)
    with torch.no_grad():
        alone = encoder._front_end(audio)
        beside = encoder._front_end(padded)[:, :frames]
    assert (alone - beside).abs().max() > 0.01


def test_a_checkpoint_that_lacks_weights_is_refused(tiny_specs, tmp_path):
    for case in ("whisper", "wavlm", "moonshine", "wakehubert"):
        spec = tiny_specs[case]
        folder = tmp_path / case
        folder.mkdir()
        for name in ("config.json", "preprocessor_config.json"):
            source = Path(spec["path"], name)
            if source.exists():
                (folder / name).write_bytes(source.read_bytes())
        weights = load_file(f"{spec['path']}/model.safetensors")
        key = next(k for k in weights if "1." in k and k.endswith("weight") and "decoder" not in k)
        kept = {k: v for k, v in weights.items() if k != key}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(PamError, match=f"lacks the weights .*{key[-12:]}"):
            load_encoder({**spec, "path": str(folder)})


def test_a_checkpoint_that_is_cut_off_is_one_line(tiny_specs, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_specs["moonshine"]["path"], folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PamError, match="damaged' cannot be loaded: ") as error:
        load_encoder({"family": "moonshine", "path": str(folder)})
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_family_is_refused(tiny_specs):
    with pytest.raises(PamError, match="whisper|moonshine|checkpoint of this family"):
        load_encoder({"family": "whisper", "path": tiny_specs["moonshine"]["path"]})
    with pytest.raises(PamError):
        load_encoder({"family": "hubert", "path": tiny_specs["wavlm"]["path"]})


def test_checkpoints_with_the_old_names_of_weight_norm(tiny_specs, tiny_encoders, tmp_path):
    """Those of facebook/wav2vec2-base-960h and its time."""
    spec = tiny_specs["wav2vec2_base"]
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes(Path(spec["path"], name).read_bytes())
    old = "parametrizations.weight.original"
    weights = {
        key.replace(f"{old}0", "weight_g").replace(f"{old}1", "weight_v"): value
        for key, value in load_file(f"{spec['path']}/model.safetensors").items()
        if "masked_spec_embed" not in key  # which checkpoints with a CTC head lack
    }
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_encoder({**spec, "path": str(tmp_path)})
    assert torch.equal(ours(loaded, clip()), ours(tiny_encoders["wav2vec2_base"], clip()))


def test_whether_to_normalise_must_be_known(tiny_specs, tmp_path):
    spec = tiny_specs["hubert"]
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(Path(spec["path"], name).read_bytes())
    with pytest.raises(PamError, match="has no preprocessor_config.json"):
        load_encoder({**spec, "path": str(tmp_path)})
    assert load_encoder({**spec, "path": str(tmp_path), "conf": {"normalize": True}}).normalize
