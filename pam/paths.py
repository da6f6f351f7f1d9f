"""Paths of the configurations and of the cache, which all clones of a user share."""

import os
from pathlib import Path

from pam.errors import PamError
from pam.registry import nearest

PACKAGE = Path(__file__).resolve().parent
# conf/ is next to the package in a clone, and inside it in a wheel (setup.py).
ROOT = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent
CONF = ROOT / "conf"


def cache_dir() -> Path:
    """`$PAM_CACHE`, or `~/.cache/pam`."""
    return Path(os.environ.get("PAM_CACHE") or Path.home() / ".cache" / "pam")


def wordnet() -> Path | None:
    """The folder of WordNet in the cache; None until tools/fetch_wordnet.py has written its last
    file there."""
    folder = cache_dir() / "nltk_data/corpora/wordnet"
    return folder if (folder / "verb.exc").is_file() else None


def conf_file(kind: str, name: str) -> Path:
    """The file NAME.yaml of conf/KIND (`scale`, `systems`, `llm`). A path is returned unchanged."""
    if name.endswith(".yaml"):
        return Path(name)
    file = CONF / kind / f"{name}.yaml"
    if not file.is_file():
        raise PamError(f"{file}: there is no such file: {nearest(name, conf_names(kind))}")
    return file


def conf_names(kind: str) -> list[str]:
    return sorted(file.stem for file in (CONF / kind).glob("*.yaml"))


def resolve_model(path: str) -> str:
    """`cache:NAME` is a folder under the cache's models/; other paths are folders or hub names.

    `PamError` for a missing cached model: it must never be initialised at random.
    """
    if not path.startswith("cache:"):
        return path
    folder = cache_dir() / "models" / path.removeprefix("cache:")
    if not (folder / "config.json").is_file():
        raise PamError(
            f"model {path!r} is not at {folder}: run tools/fetch_models.py {folder.name}, "
            "or set the model's path to a local folder"
        )
    return str(folder)
