r"""FENSE (Zhou et al., ICASSP 2022): sBERT's similarity, reduced for captions that are not fluent.

.. math:: \mathrm{FENSE} = \frac{1}{U} \sum_u s_u \, (1 - 0.9 \cdot [p_u > 0.9])

s is the similarity of sbert.py, and p the published detector's probability of any error. All
references of an item are used. (The public code splits references that are passed as strings into
letters. It then compares each caption with single letters, and scores are near 0.1.)
"""

# B captions, P tokens, C kinds of errors
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pam.checkpoint import read_checkpoint
from pam.errors import PamError
from pam.paths import cache_dir, resolve_model
from pam.score import SBERT
from pam.score import sbert as sentence_bert
from pam.score.items import Item
from pam.score.metric import Metric
from pam.score.normalize import one_line
from pam.score.utterances import Statistics

CHECKPOINT = "echecker_clotho_audiocaps_base.ckpt"
SHA256 = "1a719f090af70614bbdb9f9437530b7e133c48cfa4a58d964de0d47fc974a2fa"
SOURCE = "github.com/blmoistawinde/fense/releases, V0.1"
THRESHOLD = PENALTY = 0.9
MAX_TOKENS = 64
HEAD_WIDTH = 64  # of BERT in all its sizes
BATCH = 32
# The detector's tokens are those of bert-base-uncased; this model has the same vocabulary file.
VOCABULARY = "cache:all-minilm-l6-v2"


class Fense(Metric):
    """sBERT's similarity, reduced for captions that are not fluent, −1 to 1."""

    name = "fense"
    title = "FENSE"
    digits = 3
    needs = ("FENSE's error detector, by hand", "a model of sentence-transformers (--sbert)")

    def measure(
        self, items: Sequence[Item], sbert: str = SBERT
    ) -> tuple[Statistics, dict[str, Any]]:
        return measure(items, sbert)


def measure(items: Sequence[Item], sbert: str = SBERT) -> tuple[Statistics, dict[str, Any]]:
    """FENSE, −1 to 1; `penalised` counts the captions that the detector rejects."""
    detector = load_detector(cache_dir() / "fense" / CHECKPOINT)
    wrong = [p > THRESHOLD for p in error_probabilities(detector, [item.hyp for item in items])]
    similar = sentence_bert.similarities(items, sbert)
    points = [s * (1 - PENALTY * w) for s, w in zip(similar, wrong, strict=True)]
    return Statistics(points), {"model": sbert, "penalised": sum(wrong)}


class ErrorDetector(nn.Module):
    """BERT and a linear layer on its first token: logits [B, C], the last for any error at all."""

    def __init__(self, config: Any, kinds: int):
        from transformers import BertModel

        super().__init__()
        self.encoder = BertModel(config)
        self.clf = nn.Linear(config.hidden_size, kinds)

    def forward(self, **tokens: Tensor) -> Tensor:
        return self.clf(self.encoder(**tokens).last_hidden_state[:, 0])


@torch.inference_mode()
def error_probabilities(detector: ErrorDetector, captions: Sequence[str]) -> list[float]:
    """The probability of any error for each caption, without its punctuation."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(VOCABULARY))
    texts = [re.sub(r"[^\w\s]", "", one_line(caption)).lower() for caption in captions]
    found: list[float] = []
    for start in range(0, len(texts), BATCH):
        tokens_BP = tokenizer(
            texts[start : start + BATCH],
            truncation=True,
            max_length=MAX_TOKENS,
            padding=True,
            return_tensors="pt",
        )
        found += detector(**tokens_BP)[:, -1].sigmoid().tolist()
    return found


@functools.cache
def load_detector(path: Path) -> ErrorDetector:
    """Load the published checkpoint. `PamError` names a missing file and its place."""
    if not path.is_file():
        raise PamError(f"FENSE needs {path.name} of {SOURCE} (sha256 {SHA256}): put it at {path}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise PamError(f"{path}: sha256 is {found}, expected {SHA256}: fetch it again")
    saved = read_checkpoint(path)
    # Older versions of transformers saved the position ids, which are just 0, 1, 2, …
    weights = {k: v for k, v in saved["state_dict"].items() if not k.endswith("position_ids")}
    detector = ErrorDetector(_config(weights), saved["num_classes"])
    detector.load_state_dict(weights)
    return detector.eval()


def _config(weights: Mapping[str, Tensor]) -> Any:
    """BERT's configuration, from the shapes of its weights."""
    from transformers import BertConfig

    words, width = weights["encoder.embeddings.word_embeddings.weight"].shape
    layers = {k.split(".")[3] for k in weights if k.startswith("encoder.encoder.layer.")}
    return BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=len(weights["encoder.encoder.layer.0.intermediate.dense.bias"]),
        max_position_embeddings=len(weights["encoder.embeddings.position_embeddings.weight"]),
    )
