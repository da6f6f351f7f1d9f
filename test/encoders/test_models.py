"""The mini scale's real weights against what their packages ship; needs the cache.

A model that is not there fails its test, with the command that fetches it.
"""

import importlib.util
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch

from pam.checkpoint import read_checkpoint
from pam.encoders import load_encoder
from pam.encoders.pooling import pool_frames
from pam.encoders.yamnet import LOG_OFFSET, WINDOW_SAMPLES
from pam.paths import resolve_model

pytestmark = pytest.mark.models
TOOLS = Path(__file__).parents[2] / "tools"
# YAMNet's score of Speech in 256ths, for every 0.48 s of `speech`, two pauses among them.
SPEECH_SCORES = [
    245, 252, 248, 241, 252, 253, 253, 248, 252, 245, 245, 248,
    5, 228, 245, 251, 228, 248, 241, 11, 11,
]  # fmt: skip


@pytest.fixture(scope="module")
def fetch():
    sys.path.insert(0, str(TOOLS))
    spec = importlib.util.spec_from_file_location("fetch_models", TOOLS / "fetch_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def speech(fetch) -> torch.Tensor:
    """10 s of a man reading Beckett, which Moonshine's package brings."""
    wheel = fetch._wheel("moonshine-base", fetch.SOURCES["moonshine-base"])
    member = "moonshine_cpp-0.1.4.data/purelib/moonshine_cpp/test-data/beckett.wav"
    audio, rate = soundfile.read(io.BytesIO(zipfile.ZipFile(wheel).read(member)), dtype="float32")
    assert rate == 16000
    return torch.from_numpy(audio)


def original(fetch, name: str, folder: Path, audio: torch.Tensor) -> np.ndarray:
    """What the package's own graph makes of `audio`."""
    file = fetch._model_file(name, fetch.SOURCES[name], None, folder)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: audio[None].numpy()})[0]


def test_moonshine_is_its_graph(fetch, speech, tmp_path):
    encoder = load_encoder({"family": "moonshine", "path": "cache:moonshine-base"})
    assert (encoder.dim, encoder.num_states) == (416, 9)
    theirs = torch.from_numpy(original(fetch, "moonshine-base", tmp_path, speech))
    with torch.no_grad():
        ours = encoder.encode(speech[None], torch.tensor([len(speech)]))[:, -1]
    assert ours.shape == theirs.shape
    # Worst measured: 1.5e-4, of states up to 6.7 (inner states reach 770).
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_wakehubert_is_its_graph(fetch, speech, tmp_path):
    """Its dropped head, applied to our last state, gives the graph's features."""
    encoder = load_encoder({"family": "wakehubert", "path": "cache:wakehubert-tiny"})
    assert (encoder.dim, encoder.num_states) == (256, 9)
    import onnx

    file = fetch._model_file("wakehubert-tiny", fetch.SOURCES["wakehubert-tiny"], None, tmp_path)
    constants = {
        t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy())
        for t in onnx.load(str(file)).graph.initializer
    }
    late = torch.nn.functional.pad(speech, (0, 5 * 320))  # 100 ms of silence, as the encoder adds
    theirs = torch.from_numpy(original(fetch, "wakehubert-tiny", tmp_path, late))[:, 5:]
    with torch.no_grad():
        last = encoder.encode(speech[None], torch.tensor([len(speech)]))[:, -1]
    head = constants["student.out.weight"][:, :, 0]
    ours = last @ head.T + constants["student.out.bias"]
    assert ours.shape == theirs.shape
    # Worst measured: 2.7e-6, of features up to 3.4.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5)


def test_yamnet_is_its_graph(fetch, speech, tmp_path):
    """Its front end is the graph's, and its dropped classes, applied to our last state, hear speech
    as the graph does in Google's runtime (ai-edge-litert 2.3.0, which is not needed here)."""
    from convert.tflite_graph import read_tflite

    file = fetch._model_file("yamnet", fetch.SOURCES["yamnet"], None, tmp_path)
    constants, nodes = read_tflite(file)
    to_mel, to_classes = (n.inputs[1:] for n in nodes if n.op == "FULLY_CONNECTED")
    encoder = load_encoder({"family": "yamnet", "path": "cache:yamnet"})
    assert (encoder.dim, encoder.num_states) == (1024, 2)
    np.testing.assert_allclose(constants[to_mel[0]], encoder.filters, atol=1e-6)
    np.testing.assert_allclose(constants[to_mel[1]], LOG_OFFSET)
    (window,) = (constants[i] for n in nodes if n.op == "MUL" for i in n.inputs if i in constants)
    np.testing.assert_allclose(window, torch.hann_window(WINDOW_SAMPLES), atol=1e-6)
    weight, bias = (torch.from_numpy(constants[i]) for i in to_classes)
    with torch.no_grad():
        last = encoder.encode(speech[None], torch.tensor([len(speech)]))[0, -1]
    scores = (last @ weight.T + bias).sigmoid()
    assert scores.mean(dim=0).argmax() == 0  # Speech
    # Worst measured: 0.008, for the graph rounds to int8 after every layer and we do not.
    theirs = torch.tensor(SPEECH_SCORES) / 256
    torch.testing.assert_close(scores[:, 0], theirs, rtol=0, atol=0.03)


def test_resemblyzers_embeddings_are_the_originals(fetch, speech, tmp_path):
    """With its windows of 1.6 s: a slow transcription of `embed_utterance` at a rate of 1.25."""
    librosa = pytest.importorskip("librosa")
    file = fetch._model_file("resemblyzer", fetch.SOURCES["resemblyzer"], None, tmp_path)
    weights = read_checkpoint(file)["model_state"]
    lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
    lstm.load_state_dict({k[5:]: v for k, v in weights.items() if k.startswith("lstm.")})
    quiet = 0.1 * speech  # -37 dBFS: to be made louder
    wav = (quiet * 10 ** (-30 / 20) / quiet.square().mean().sqrt()).numpy()
    starts = [s for s in range(0, len(wav) // 160, 80) if len(wav) / 160 - s >= 0.75 * 160]
    wav = np.pad(wav, (0, max((starts[-1] + 160) * 160 - len(wav), 0)))
    mel = librosa.feature.melspectrogram(y=wav, sr=16000, n_fft=400, hop_length=160, n_mels=40).T
    with torch.no_grad():
        windows = torch.stack([torch.tensor(mel[s : s + 160]) for s in starts])
        hidden = lstm(windows)[1][0]
        raw = (hidden[-1] @ weights["linear.weight"].T + weights["linear.bias"]).relu()
    theirs = raw / raw.norm(dim=1, keepdim=True)
    spec = {"family": "resemblyzer", "path": "cache:resemblyzer", "conf": {"window_frames": 160}}
    encoder = load_encoder(spec)
    assert (encoder.dim, encoder.num_states) == (256, 4)
    states = encoder.native(quiet[None], torch.tensor([len(quiet)]))[0][0]
    ends = [s + 159 - 40 for s in starts]  # a state is shown 40 frames before its window's end
    # Worst measured: 7.5e-7, of states up to 0.8.
    torch.testing.assert_close(states[:3, ends], hidden, rtol=0, atol=5e-5)
    torch.testing.assert_close(states[3, ends], theirs, rtol=0, atol=5e-5)
    embedding = torch.nn.functional.normalize(theirs.mean(dim=0), dim=0)
    assert (theirs @ embedding).min() > 0.8  # one man


def test_whisper_transcribes(speech):
    """The converted weights, decoder included, are sure of what they hear."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    folder = resolve_model("cache:whisper-tiny-en")
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    mel = WhisperFeatureExtractor.from_pretrained(folder)(
        speech.numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_features
    encoder = load_encoder({"family": "whisper", "path": "cache:whisper-tiny-en"})
    tokens, log_probs = [50257, 50362], []  # start of transcript, no timestamps
    with torch.no_grad():
        states = model.model.encoder(mel, output_hidden_states=True)
        while tokens[-1] != 50256 and len(tokens) < 60:
            logits = model(encoder_outputs=states, decoder_input_ids=torch.tensor([tokens])).logits
            best = logits[0, -1].log_softmax(-1).max(-1)
            log_probs.append(best.values.item())
            tokens.append(best.indices.item())
        ours = encoder(speech[None], torch.tensor([len(speech)]))[0]
    assert tokens[-1] == 50256 and 20 < len(tokens) < 60
    assert np.mean(log_probs) > -0.4  # measured: -0.18; wrong weights babble at -3 and below
    real = torch.stack([*states.hidden_states[:-1], states.last_hidden_state], dim=1)[:, :, :498]
    theirs = pool_frames(real, torch.tensor([498]), 320)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def test_encoders_speak_of_the_same_moment(speech):
    """Half a second of silence before the clip moves every encoder's states by as much."""
    silence = torch.zeros(8000)
    padded = torch.cat([silence, speech])
    specs = [
        ("whisper", "cache:whisper-tiny-en"),
        ("moonshine", "cache:moonshine-base"),
        ("wakehubert", "cache:wakehubert-tiny"),
        ("resemblyzer", "cache:resemblyzer"),
    ]
    for family, path in specs:
        encoder = load_encoder({"family": family, "path": path})
        plain = encoder(speech[None], torch.tensor([len(speech)]))[0][0, -1]
        moved = encoder(padded[None], torch.tensor([len(padded)]))[0][0, -1]
        scores = [
            torch.nn.functional.cosine_similarity(plain[:200], moved[s : s + 200], dim=-1).mean()
            for s in range(8, 18)
        ]
        assert 8 + int(torch.stack(scores).argmax()) in (12, 13), family
