"""YAML configurations: defaults in the code < scale < system < command line."""

import copy
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from pam.errors import PamError, is_utf8
from pam.registry import nearest

DEEPEST = 50  # levels of nested sections and lists; ours have six at most
SHOWN = 40  # characters of a wrong value


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # in C, ten times as fast
    """SafeLoader that reads `1e-4` as a float (YAML 1.2); PyYAML reads a string.

    Its errors are YAMLErrors with a line. PyYAML keeps the last of repeated keys without a word,
    and fails with various exceptions at a value like 2020-13-45, a date that does not exist.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, ArithmeticError) as error:
            what = f"{_cut(str(node.value))!r} is not a valid {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(
                None, None, f"{what}: correct it, or put a text in quotes", node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        scalars = [key for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
        seen = set()
        for key in (key for key in scalars if key.tag in self.yaml_constructors):  # not `<<`
            name = self.construct_object(key)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} is given twice: remove one of them", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)
# The float pattern also matches integers. So integers must come first: the first match counts.
for _first in "-+0123456789":
    _Loader.yaml_implicit_resolvers[_first].sort(key=lambda pair: pair[0].endswith("float"))
# PyYAML fills these later, and lets them contain themselves; all at once, that is an error.
_Loader.add_constructor(
    "tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True)
)
_Loader.add_constructor(
    "tag:yaml.org,2002:seq", lambda loader, node: loader.construct_sequence(node, deep=True)
)


def parse_value(text: str) -> Any:
    """Text as YAML: `1e-4` gives a float. `PamError` says what is wrong, and in which line."""
    if not is_utf8(text):
        raise PamError("it is not UTF-8")
    try:
        _check_depth(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = f"{_line(mark.line, text)}{error.problem}" if mark else str(error)
        raise PamError(" ".join(what.split())) from error


def _check_depth(text: str) -> None:
    """PyYAML would end the process, with a segmentation fault."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            where = _line(event.start_mark.line, text)
            raise PamError(f"{where}more than {DEEPEST} nested levels: remove some")


def _line(number: int, text: str) -> str:
    """`line 3: ` for 2; a text of one line needs no number. Its end is in the last line."""
    lines = len(text.splitlines())
    return f"line {min(number + 1, lines)}: " if lines > 1 else ""


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping. `PamError` names the file, and the line if YAML knows it."""
    try:
        value = parse_value(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PamError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PamError(f"{path}: line {line}: it is not UTF-8: save it as UTF-8") from error
    except PamError as error:
        raise PamError(f"{path}: not valid YAML: {error}") from error
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
    if not is_utf8(assignment):
        raise PamError(f"--set {assignment!r}: it is not UTF-8: type it in UTF-8")
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
    except PamError as error:
        given = " ".join(assignment.split())
        raise PamError(f"--set {_cut(given)}: not a YAML value: {error}") from error
    return keys, node
