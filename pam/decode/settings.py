"""What answers depend on; torch is not imported."""

from dataclasses import dataclass

EXACT = True  # costs 2 to 17 % more than plain batches of 8 (tools/bench_decode.py)
BATCH_SIZE = 32  # utterances that wait for each other: fewer fill the LLM's rows less well
PLAIN_BATCH_SIZE = 8
# Fast speech has 6; of the 5,000 utterances of the mini corpora that are speech none has 8.
MAX_TOKENS_PER_SECOND = 8.0


@dataclass(frozen=True)
class Settings:
    """What the answers depend on.

    `exact`: a batch gives what single utterances give (`pam.decode.exact`). Of other batches the
    answers depend a little on `batch_size`, in bfloat16. `dtype` is that of the LLM's weights.
    """

    prompts: str = "unseen"
    seed: int = 0
    max_new_tokens: int = 128
    max_tokens_per_second: float = MAX_TOKENS_PER_SECOND
    feats: str = "dumped"
    exact: bool = EXACT
    batch_size: int = BATCH_SIZE if EXACT else PLAIN_BATCH_SIZE
    dtype: str | None = None
