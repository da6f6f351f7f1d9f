"""What answers depend on: where it is the same, what was decoded or routed before still stands."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pam.data.prompts import Prompts
from pam.errors import UserError

DATA_TABLES = ("wav.scp", "text", "prompt", "choices", "utt2task", "utt2spk", "utt2cluster")
# Also what recordings and further references are; decode_inputs in utils/recipe.sh has the same.
MORE_TABLES = ("segments", "utt2num_samples", "text_ref*")


def model_stamp(exp: Path) -> list[int]:
    """Size and time of the checkpoint; `UserError` where there is none."""
    checkpoint = exp / "model.pth"
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no trained model here: run the recipe's train stage")
    stat = checkpoint.stat()
    return [stat.st_size, stat.st_mtime_ns]


def prompts_digest(prompts: Mapping[str, Prompts]) -> str:
    pools = {task: [list(pool.train), list(pool.unseen)] for task, pool in prompts.items()}
    return hashlib.sha256(json.dumps(pools, sort_keys=True).encode()).hexdigest()


def data_digest(data_dir: Path) -> str:
    digest = hashlib.sha256()
    more = [path.name for pattern in MORE_TABLES for path in sorted(data_dir.glob(pattern))]
    for name in (*DATA_TABLES, *more):
        if (data_dir / name).is_file():
            digest.update(f"\0{name}\0".encode() + (data_dir / name).read_bytes())
    return digest.hexdigest()
