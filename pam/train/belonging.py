"""What a checkpoint belongs to: its weights mean nothing with other experts, tokens or states."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pam.config.made import digest, read_record
from pam.data.digests import LEARNED, data_digest
from pam.data.scp import read_text_file
from pam.encoders.shards import STAGE, bytes_of, fingerprint
from pam.errors import PamError
from pam.model.speech_llm import ESPnetPaMModel

KEY = "belongs_to"  # in checkpoint.pth and midpoint.pth


def belonging(model: ESPnetPaMModel, train: Path) -> dict[str, Any]:
    """What the weights of `model` depend on besides its configuration, as names and digests."""
    vocabulary = json.dumps(model.tokenizer.get_vocab(), sort_keys=True)
    return {
        "order of experts": list(model.tasks),
        "vocabulary": digest(vocabulary)[:16],
        "token embeddings": digest(bytes_of(model.llm.embeddings).tobytes())[:16],
        "encoders": [
            f"{shape.name} {states_of(model, shape.name, train)}" for shape in model.shapes
        ],
        "training data": data_digest(train, LEARNED)[:16],
    }


def states_of(model: ESPnetPaMModel, name: str, train: Path) -> str:
    """Digests of the weights of an encoder: of the one that runs, or of those of the dumps."""
    if model.encoders is not None:
        return fingerprint(model.encoders[name])
    pointers = read_text_file(train / f"feats_{name}.scp").values()
    folders = sorted({pointer.rpartition("/")[0] for pointer in pointers})
    records = [read_record(Path(folder), STAGE) for folder in folders]
    return " ".join(sorted({record["inputs"]["weights"] for record in records if record}))


def refuse_another(file: Path, found: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """PamError if a checkpoint belongs to something else; `found` is its content."""
    before = found.get(KEY, now)  # earlier versions wrote none
    for name, value in now.items():
        if before[name] != value:
            raise PamError(
                f"{file}: was trained with other {name}: {before[name]}, now {value}: "
                "restore them, or give another --expname"
            )
