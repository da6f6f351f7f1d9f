"""The settings of decoding. This module does not import torch."""

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pam.errors import PamError

EXACT = True
NONE = "none"  # no drafter, no early exit
BATCH_SIZE = 32  # utterances at once
PLAIN_BATCH_SIZE = 8
MAX_NEW_TOKENS = 128  # of an answer, where the scale says nothing else
# Where the scale says nothing else. Fast speech has 6. None of the 5,000 speech utterances of the
# mini corpora reaches 8; of AMI's test set 14 of 12,644 do.
MAX_TOKENS_PER_SECOND = 8.0
# Scores of `pam.decode.checks` from which an answer is doubtful.
NO_SPEECH, REPEATED = 0.5, 0.3


@dataclass(frozen=True)
class Settings:
    """All settings that the answers depend on.

    `exact`: batches give the same answers as single utterances (`pam.decode.exact`). Without it,
    answers in bfloat16 depend slightly on `batch_size`. `drafter` (`pam.decode.drafters`, or
    "none") saves passes of the LLM and changes no answer; `exit_layer` is the layer of the drafter
    that has one. `early_exit` is a criterion of `pam.decode.exits`, which changes answers; the
    other settings of early exit belong to it. No answer has a sequence of `no_repeat_ngram_size`
    tokens twice (0: all may). `beam` > 1 is beam search; `temperature` > 0 samples
    from the nucleus `top_p`, by `seed`. `dtype` is that of the LLM's weights. `skip_silence`: the
    no-speech score from which an answer is empty; None: never.
    """

    prompts: str = "unseen"
    seed: int = 0
    max_new_tokens: int = MAX_NEW_TOKENS
    max_tokens_per_second: float = MAX_TOKENS_PER_SECOND
    feats: str = "dumped"
    exact: bool = EXACT
    batch_size: int = BATCH_SIZE if EXACT else PLAIN_BATCH_SIZE
    drafter: str = NONE
    exit_layer: int | None = None
    early_exit: str = NONE
    threshold: float = 0.9
    exit_stride: int = 1
    exit_decay: float = 0.0
    exit_cache: str = "recompute"
    no_repeat_ngram_size: int = 0
    beam: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    dtype: str | None = None
    skip_silence: float | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the answers are those of greedy search."""
        return self.early_exit == NONE and self.beam == 1 and self.temperature == 0


def answer_limits(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Settings` that an experiment's configuration (config.yaml) gives."""
    per_second = config.get("max_tokens_per_second")
    return {
        "max_new_tokens": config.get("max_new_tokens") or MAX_NEW_TOKENS,
        "max_tokens_per_second": MAX_TOKENS_PER_SECOND if per_second is None else per_second,
        "no_repeat_ngram_size": config.get("no_repeat_ngram_size") or 0,
    }


def add_skip_silence(parser: ArgumentParser) -> None:
    """The option --skip_silence."""
    parser.add_argument(
        "--skip_silence",
        type=float,
        metavar="SCORE",
        help="give the empty answer where the no-speech score, from 0 to 1, is at least this; "
        f"{NO_SPEECH} is a good value",
    )


def check_threshold(score: float, name: str = "skip_silence") -> None:
    """`PamError` if a threshold of a score is not in 0 to 1."""
    if not 0 <= score <= 1:
        raise PamError(f"{name} {score:g}: the score is from 0 to 1; {NO_SPEECH} is a good value")
