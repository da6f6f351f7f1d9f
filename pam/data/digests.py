"""Digests of data and prompts. A changed digest means that results made from them are outdated."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pam.config.made import digest
from pam.data.prompts import Prompts

# The text files that decoding and scoring depend on: recordings, prompts and references.
DECODED = ("wav.scp", "text", "prompt", "choices", "utt2task", "utt2spk", "utt2cluster")
DECODED += ("segments", "utt2num_samples", "text_ref*")
# The text files of a prepared set, all of which a dump takes over.
PREPARED = (*DECODED, "text_warmup", "utt2dur")
# The text files that training depends on. The paths of recordings do not count.
LEARNED = ("text", "text_warmup", "prompt", "choices", "utt2task", "utt2num_samples")


def data_digest(folder: Path, patterns: Sequence[str] = DECODED) -> str | None:
    """Digest of the files of a data directory; None if the directory does not exist."""
    if not folder.is_dir():
        return None
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    found = hashlib.sha256()
    for file in files:
        found.update(f"\0{file.name}\0".encode())
        with file.open("rb") as stream:  # a million lines take 100 MB
            hashlib.file_digest(stream, lambda: found)
    return found.hexdigest()


def prompts_digest(prompts: Mapping[str, Prompts]) -> str:
    """Digest of all prompts that decoding may use."""
    return _digest(prompts, ("train", "unseen", "plain"))


def training_prompts_digest(prompts: Mapping[str, Prompts]) -> str:
    return _digest(prompts, ("train", "plain_train"))


def _digest(prompts: Mapping[str, Prompts], splits: Sequence[str]) -> str:
    texts = {task: [list(getattr(own, split)) for split in splits] for task, own in prompts.items()}
    return digest(json.dumps(texts, sort_keys=True))
