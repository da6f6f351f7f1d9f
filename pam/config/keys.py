"""Keys of configurations: their meaning and valid values, for checks and for --explain.

A section of options is a frozen dataclass whose fields are made by `option`. The options of a part
(a fusion, an encoder, the LLM) are the keyword arguments of its constructor. They are read from its
source code (`pam.config.source`), so that checks need not import torch.
"""

import functools
import json
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pam.errors import PamError
from pam.registry import nearest

LARGEST = 2**31 - 1  # no size, count or number of steps is larger; products of two fit 64 bits
ANY = "*"  # stands for all keys of a section whose keys are the user's own names


@dataclass(frozen=True)
class Rule:
    """A condition on values: `what` describes valid values, `holds` tests a value."""

    what: str
    holds: Callable[[Any], bool]


def whole(least: int) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return Rule(f"a whole number, at least {least}", holds)


def or_null(rule: Rule) -> Rule:
    return Rule(f"{rule.what}, or null", lambda value: value is None or rule.holds(value))


def one_of(*names: str) -> Rule:
    return Rule(f"one of {', '.join(names)}", lambda value: value in names)


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) < math.inf


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _are_names(value: Any) -> bool:
    return _are_texts(value) and bool(value) and all(value)


def _is_pattern(value: Any) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, str)
    return all(isinstance(name, str) and _are_rows(rows) for name, rows in value.items())


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, int) and not isinstance(row, bool) for row in value
    )


FINITE = Rule("a number", _is_number)
NUMBER = Rule("a number, at least 0", lambda value: _is_number(value) and value >= 0)
SHARE = Rule("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
POSITIVE = Rule("a number above 0", lambda value: _is_number(value) and value > 0)
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
TEXT = Rule("a text", lambda value: isinstance(value, str))
NAMES = Rule("a list of names", _are_texts)
SOME_NAMES = Rule("a list of one or more names", _are_names)
TEXTS = Rule("a text or a list of texts", lambda value: isinstance(value, str) or _are_texts(value))
SOME_TEXTS = Rule(
    "a name or a list of one or more names",
    lambda value: _are_names([value] if isinstance(value, str) else value),
)
LIST = Rule("a list", lambda value: isinstance(value, list))
ANYTHING = Rule("any value", lambda value: True)
BETAS = Rule(
    "two numbers from 0 to below 1, as in [0.9, 0.999]",
    lambda value: (
        isinstance(value, list) and len(value) == 2 and all(SHARE.holds(n) and n < 1 for n in value)
    ),
)
DISTINCT = Rule(
    "a list of names that differ", lambda value: _are_names(value) and len({*value}) == len(value)
)
PATTERNS = Rule(
    "a list of patterns of names, or of {PATTERN: [ROW, …]}",
    lambda value: isinstance(value, list) and all(map(_is_pattern, value)),
)

Keys = Mapping[str, "Key"]


@dataclass(frozen=True)
class Key:
    """One key of a configuration.

    `keys` are the keys of a section (ANY for the user's names). `rule` is the condition on other
    values. `choices` are the names of a registry, and `kind` is its word for them. `default` is a
    text.
    """

    help: str
    rule: Rule = ANYTHING
    default: str = ""
    unit: str = ""
    keys: Callable[[], Keys] | None = None
    kind: str = ""
    choices: Callable[[], list[str]] | None = None

    @property
    def type(self) -> str:
        if self.keys is not None:
            return "a section for each name" if ANY in self.keys() else "a section"
        return f"one of {', '.join(self.choices())}" if self.choices else self.rule.what


def option(help: str, rule: Rule = ANYTHING, *, default: Any = None, **key: Any) -> Any:
    """A dataclass field for a key of a configuration; `key`: further attributes of its `Key`.

    The default None means that the key is not set; `without` describes the value used then.
    """
    without = key.pop("without", "not set")
    text = without if default is None else shown(default)
    metadata = {"key": Key(help, rule, text, **key)}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def shown(value: Any) -> str:
    """A default in YAML."""
    return value if isinstance(value, str) else json.dumps(value)


@functools.cache
def keys_of(section: type) -> dict[str, Key]:
    """The keys of a dataclass with fields made by `option`."""
    hints = get_type_hints(section)
    return {f.name: _key_of(f.metadata["key"], hints[f.name]) for f in fields(section)}


def _key_of(key: Key, hint: Any) -> Key:
    inner, named = _section_in(hint)
    if inner is None:
        return key
    keys = functools.partial(keys_of, inner)
    if named:
        entry = Key(inner.__doc__.splitlines()[0], keys=keys)
        return _with_keys(key, lambda: {ANY: entry})
    return _with_keys(key, keys)


def _with_keys(key: Key, keys: Callable[[], Keys]) -> Key:
    return Key(key.help, key.rule, key.default, key.unit, keys)


def _section_in(hint: Any) -> tuple[type | None, bool]:
    """The dataclass in `Phase | None` or `dict[str, Budget]`, and whether it is in a dict."""
    if isinstance(hint, types.UnionType):
        found = [_section_in(part) for part in get_args(hint)]
        return next((pair for pair in found if pair[0]), (None, False))
    if get_origin(hint) is dict:
        return _section_in(get_args(hint)[1])[0], True
    return (hint, False) if is_dataclass(hint) else (None, False)


def check(conf: Mapping[str, Any], keys: Keys, where: str) -> None:
    """PamError for the first key, at any depth, that is unknown or has an invalid value."""
    _check_section(conf, keys, where, ": ")


def _check_section(conf: Any, keys: Keys, where: str, joint: str = ".") -> None:
    if not isinstance(conf, Mapping):
        raise PamError(f"{where}: {conf!r}: expected a section of options")
    for name, value in conf.items():
        if not isinstance(name, str):
            raise PamError(f"{where}: the name {name!r} is not a text: put it in quotes")
        if name not in keys and ANY not in keys:
            raise PamError(f"{where}: unknown option {name!r}: {nearest(name, keys)}")
        _check_value(value, keys.get(name) or keys[ANY], f"{where}{joint}{name}")


def _check_value(value: Any, key: Key, where: str) -> None:
    if key.choices and value not in (known := key.choices()):
        raise PamError(f"{where}: unknown {key.kind} {value!r}: {nearest(str(value), known)}")
    if key.keys is not None and key.rule is not LIST:
        _check_section(value, key.keys(), where)
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise PamError(f"{where}: {value}: expected a number of at most {LARGEST}")
    elif not key.rule.holds(value):
        raise PamError(f"{where}: {value!r}: expected {key.rule.what}")
    elif key.keys is not None:
        for number, entry in enumerate(value, 1):
            _check_section(entry, key.keys(), f"{where} {number}")


T = TypeVar("T")


def typed(section: type[T], conf: Mapping[str, Any]) -> T:
    """A checked mapping as an instance of its dataclass, including nested sections."""
    hints = get_type_hints(section)
    return section(**{name: _typed(hints[name], value) for name, value in conf.items()})


def _typed(hint: Any, value: Any) -> Any:
    inner, named = _section_in(hint)
    if inner is None or value is None:
        return value
    if named:
        return {name: typed(inner, entry) for name, entry in value.items()}
    return typed(inner, value)


def plain(section: Any) -> dict[str, Any]:
    """The inverse of `typed`: a mapping as in YAML, with defaults; unset keys are left out."""
    values = {f.name: getattr(section, f.name) for f in fields(section)}
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return plain(value)
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return value


def defaults_of(section: type) -> dict[str, Any]:
    """{key: default} of the keys that have one."""
    out = {}
    for entry in fields(section):
        made = entry.default_factory is not MISSING
        value = entry.default_factory() if made else entry.default
        if value is not None:
            out[entry.name] = value
    return out
