"""Where pretrained weights come from: names and revisions of hubs, not paths of this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from pam.errors import PamError

CACHED = "cache:"


def origin(path: str) -> dict[str, str | None]:
    """`path` and `revision` of a pretrained model; of a folder, its name and no revision."""
    if path.startswith(CACHED) or Path(path).exists():
        return {"path": Path(path).name, "revision": None}
    file = try_to_load_from_cache(path, "config.json")
    return {"path": path, "revision": Path(file).parent.name if isinstance(file, str) else None}


def origins(config: Mapping[str, Any]) -> dict[str, dict[str, str | None]]:
    """Those of the LLM ("llm") and of each encoder of an experiment's configuration."""
    paths = {"llm": config["llm_conf"]["path"]}
    paths |= {f"encoders.{name}": spec["path"] for name, spec in config["encoders"].items()}
    return {name: origin(path) for name, path in paths.items()}


def refuse_local(found: Mapping[str, Mapping[str, str | None]]) -> None:
    """`PamError` for weights that others could not get by name."""
    for name, where in found.items():
        if where["revision"] is None:
            raise PamError(
                f"{name}: {where['path']} is a folder of this machine, which others do not have: "
                "give --bundle to include its weights"
            )
