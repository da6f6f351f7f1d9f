"""Print the keys of configurations: type, unit, default and meaning."""

import textwrap
from collections.abc import Iterator

from pam.config.documents import PaperTable, Prompts, TableScale
from pam.config.keys import ANY, Key, Keys, keys_of
from pam.config.schema import ENCODERS, Experiment
from pam.config.source import attribute_of, registered
from pam.errors import PamError
from pam.registry import nearest

# The files and the dataclass of each document, by the first word of its keys.
DOCUMENTS: dict[str, tuple[str, type]] = {
    "": ("conf/scale, conf/llm, conf/systems and --set", Experiment),
    "prompts": ("conf/prompts", Prompts),
    "tables": ("conf/tables", PaperTable),
    "scales": ("conf/tables/scales.yaml, in the section of a scale", TableScale),
}
WIDTH = 100


def explain(name: str | None = None) -> str:
    """All keys, or those under `name`, such as batch.max_utts, batch or tables.rows.

    PamError for an unknown name.
    """
    if name is None:
        return "\n\n".join(_document(word) for word in DOCUMENTS)
    path = name.split(".")
    if name in DOCUMENTS and name:
        return _document(name)
    word = path[0] if path[0] in DOCUMENTS and path[0] else ""
    key = find_key(path[1:] if word else path, word, f"--explain {name}")
    return "\n".join(_lines(name, key))


def find_key(path: list[str], document: str, where: str) -> Key:
    """The key of a path like ["encoders", "whisper", "dim"]. PamError with the nearest name."""
    keys: Keys = keys_of(DOCUMENTS[document][1])
    for depth, name in enumerate(path, 1):
        if name not in keys and ANY not in keys:
            known = keys if depth > 1 else [*keys, *filter(None, DOCUMENTS)]
            raise PamError(f"{where}: unknown option {name!r}: {nearest(name, known)}")
        key = keys.get(name) or keys[ANY]
        if key.keys is None and depth < len(path):
            raise PamError(f"{where}: {'.'.join(path[:depth])} has no options")
        keys = key.keys() if key.keys else {}
    return key


def every_key(keys: Keys, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """(path, key) of all keys, each section before its keys; names given by users are NAME."""
    for name, key in keys.items():
        path = prefix + ("NAME" if name == ANY else name)
        yield path, key
        if key.keys is not None:
            yield from every_key(key.keys(), f"{path}.")


def _document(word: str) -> str:
    files, section = DOCUMENTS[word]
    prefix = f"{word}." if word else ""
    entries = [
        line for path, key in every_key(keys_of(section), prefix) for line in _entry(path, key)
    ]
    return "\n".join([f"# {files}", *entries])


def _lines(name: str, key: Key) -> Iterator[str]:
    yield from _entry(name, key)
    if key.keys is not None:
        for path, inner in every_key(key.keys(), f"{name}."):
            yield from _entry(path, inner)


def _entry(path: str, key: Key) -> Iterator[str]:
    facts = [key.type, key.unit and f"in {key.unit}", key.default and f"default: {key.default}"]
    yield f"{path}  ({'; '.join(filter(None, facts))})"
    help = key.help[:1].upper() + key.help[1:]
    yield from textwrap.wrap(help, WIDTH, initial_indent="    ", subsequent_indent="    ")
    if key.kind == "encoder":
        yield from _families()


def _families() -> Iterator[str]:
    """Lines with the models of each family, with width × hidden states."""
    for family, part in registered(ENCODERS).items():
        models = attribute_of(part, "models") or {}
        shapes = ", ".join(f"{path} {dim}×{states}" for path, (dim, states) in models.items())
        yield from textwrap.wrap(
            f"{family}: {shapes}", WIDTH, initial_indent="    ", subsequent_indent="        "
        )
