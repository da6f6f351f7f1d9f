"""A trained model is asked without the libraries of training, scoring, reports and the server."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Modules of the extras in setup.py. (transformers brings regex.)
BLOCKED = (
    *("espnet", "espnet2", "configargparse", "kaldiio", "gguf", "onnx", "onnxruntime", "tflite"),
    *("pyarrow", "pyroomacoustics", "jiwer", "kaldialign", "whisper_normalizer", "nltk", "punkt"),
    *("pycocoevalcap", "matplotlib", "tensorboard", "sentence_transformers"),
    *("fastapi", "uvicorn", "prometheus_client", "gradio", "wandb", "beartype", "pytest"),
)
IMPORTS = """
import sys
sys.modules.update(dict.fromkeys({blocked}))

import pam.bin.transcribe, pam.bin.doctor, pam.bin.export
import pam.hf.adapter, pam.hf.folder, pam.hf.vllm
from pam import Answer, PamError, SpeechLLM
from pam.decode.drafters import DRAFTERS
from pam.encoders import ENCODERS
from pam.fusion import FUSIONS

from pam.report.units import metric_digits
from pam.score import CAPTION_METRICS, METRICS

assert [metric_digits(name) for name in (*METRICS.names(), *CAPTION_METRICS.names())]

for registry in (ENCODERS, FUSIONS, DRAFTERS):
    for name in registry.names():
        assert registry.get(name)
print(len(ENCODERS.names()), SpeechLLM.__module__)
"""


def test_the_api_and_every_part_of_a_model_are_imported():
    code = IMPORTS.format(blocked=repr(BLOCKED))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" pam.decode.api\n")


def test_what_is_blocked_cannot_be_imported():
    code = "import sys; sys.modules['espnet2'] = None; import pam.train.task"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode != 0 and "espnet2" in done.stderr
