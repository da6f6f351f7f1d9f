"""The rehearsal with tiny models: every program runs, and the training stops and resumes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from pam.errors import PamError  # noqa: E402
from tools import rehearse  # noqa: E402

SSL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
WHISPER = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}
LLM = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
AUDIO = {"inputs": {"input_values": [1, 16000]}, "seconds": 1}
MODELS = {
    "whisper": {
        "class": "transformers.models.whisper.modeling_whisper:WhisperEncoder",
        "config": WHISPER,
        "inputs": {"input_features": [1, 80, 3000]},
        "seconds": 30,
    },
    "wavlm": {"class": "transformers:WavLMModel", "config": SSL, **AUDIO},
    "wav2vec2": {"class": "transformers:Wav2Vec2Model", "config": SSL, **AUDIO},
    "llm": {"class": "transformers:Qwen2ForCausalLM", "config": LLM},
}
PARTS = ["plan", "models", "data", "libraries", "dump", "combine", "train until SIGTERM"]
PARTS += ["train again", "average", "decode"]


@pytest.fixture
def tiny_scale(tmp_path) -> Path:
    """The paper's scale with tiny models, which bring their own architectures."""
    for name, spec in MODELS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "architecture.json").write_text(json.dumps(spec))
    scale = yaml.safe_load((ROOT / "conf/scale/paper.yaml").read_text())
    scale["encoders"] = {
        name: {"family": name, "path": str(tmp_path / name), "dim": 32, "num_states": 3}
        for name in list(MODELS)[:3]
    }
    scale["llm_conf"]["path"] = str(tmp_path / "llm")
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(scale))
    return file


def test_every_program_runs_and_the_training_resumes(tmp_path, tiny_scale, tiny_llm):
    # On its own: a child starts with the memory of the process that forks it, here all of pytest's.
    command = [sys.executable, rehearse.__file__, "--scale", tiny_scale, "--tokenizer", tiny_llm]
    command += ["--work", tmp_path, "--out", tmp_path / "out.json", "--steps", 20, "--seconds", 1]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert [part["part"] for part in found["parts"]] == PARTS
    peaks = {part["part"]: part["peak_bytes"] for part in found["parts"]}
    assert found["measured_by_training"]["resident_bytes"] > peaks["libraries"] > 100e6
    assert all(f"| {part} | " in done.stdout for part in PARTS)
    assert "tools/rehearse.py --scale" in found["command"] and found["machine"]
    exp = tmp_path / "rehearsal/exp"
    assert json.loads((exp / "curves.json").read_text())[-1]["step"] == 20
    assert len((exp / "decoded/test/hyp").read_text().splitlines()) == 2


def test_a_machine_that_is_too_small_is_refused(tmp_path):
    memory = {"LLM": 1e15, "encoders": 1e9}
    plan = {"memory_bytes": memory, "parameters": {"trainable": 1}, "peak_bytes": 1e15}
    with pytest.raises(PamError, match="GiB of memory are lacking"):
        rehearse.refuse_too_large(plan, tmp_path, on_gpu=False)


def test_a_part_that_fails_is_named(tmp_path):
    running = rehearse.Rehearsal(tmp_path, threads=1, ngpu=0)
    with pytest.raises(PamError, match="average: ended with status 3: why"):
        running.run("average", "-c", "print('why'); raise SystemExit(3)")
