"""YAML configurations: defaults in the code < scale < system < command line."""

import copy
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from pam.errors import PamError
from pam.registry import nearest


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # in C, ten times as fast
    """SafeLoader that reads `1e-4` as a float (YAML 1.2); PyYAML reads a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)
# The float pattern also matches integers. So integers must come first: the first match counts.
for _first in "-+0123456789":
    _Loader.yaml_implicit_resolvers[_first].sort(key=lambda pair: pair[0].endswith("float"))


def parse_value(text: str) -> Any:
    """A value from the command line, read as YAML: `1e-4` gives a float."""
    return yaml.load(text, Loader=_Loader)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping. `PamError` names the file, and the line if YAML knows it."""
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise PamError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise PamError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise PamError(f"{path}: expected a mapping of options, found {type(value).__name__}")
    return value


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings into a new one. Later values win; nested mappings are merged key by key."""
    out: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
            out[key] = merge(out[key], value) if both else copy.deepcopy(value)
    return out


def set_option(
    conf: dict[str, Any], assignment: str, optional: Collection[str] = ()
) -> tuple[list[str], Any]:
    """Apply one `a.b=value` of the command line in place.

    `a` must be an existing section, or one of the `optional` sections, which are created. Returns
    the keys, and the section of the last key.
    """
    path, equals, text = assignment.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise PamError(
            f"--set {assignment!r}: expected KEY=VALUE with KEY like fusion_conf.num_fused"
        )
    node: Any = conf
    for depth, key in enumerate(keys[:-1], 1):
        if key in optional and node.get(key) is None:
            node[key] = {}
        if key not in node:
            where = ": ".join(["--set", ".".join(keys[: depth - 1])]).removesuffix(": ")
            raise PamError(f"{where}: unknown option {key!r}: {nearest(key, map(str, node))}")
        node = node[key]
        if not isinstance(node, dict):
            raise PamError(f"--set {assignment}: {'.'.join(keys[:depth])} has no options")
    try:
        node[keys[-1]] = parse_value(text)
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise PamError(f"--set {assignment}: not a YAML value: {why}") from error
    return keys, node
