"""Where things live that all clones of a user share."""

import os
from pathlib import Path

from pam.errors import UserError


def cache_dir() -> Path:
    """`$PAM_CACHE`, or `~/.cache/pam`."""
    return Path(os.environ.get("PAM_CACHE") or Path.home() / ".cache" / "pam")


def resolve_model(path: str) -> str:
    """`cache:NAME` is a folder under the cache's models/; anything else is a folder or a hub name.

    A cached model that is not there is an error, never a random initialisation.
    """
    if not path.startswith("cache:"):
        return path
    folder = cache_dir() / "models" / path.removeprefix("cache:")
    if not (folder / "config.json").is_file():
        raise UserError(
            f"model {path!r} is not at {folder}: run tools/fetch_models.py {folder.name}, "
            "or set the model's path to a local folder"
        )
    return str(folder)
