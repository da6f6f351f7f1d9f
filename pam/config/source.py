"""Read the options of a part from its source code, without importing it (or torch).

The options are the keyword arguments with defaults of the part's constructor. Their meaning is in
the section `Args:` of the class's docstring, of a base class's, or of the class that the docstring
refers to: "rank, weights: see `PromptAwareMixture`". An option that is a section refers to its
class: "adapter: options of `PreFusionAdapter`".
"""

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pam.config.keys import (
    FLAG,
    NUMBER,
    SHARE,
    TEXT,
    TEXTS,
    Key,
    Rule,
    one_of,
    or_null,
    shown,
    whole,
)

PAM = Path(__file__).resolve().parents[1]
MAY_BE_ZERO = ("rank", "window")  # suffixes of the names of whole numbers that may be 0
Found = tuple[str, ast.AST]  # module of a definition, and the definition


@functools.cache
def registered(registry: str) -> dict[str, str]:
    """{name: "module.Class"} of a registry like "pam.fusion.FUSIONS"."""
    module, _, name = registry.rpartition(".")
    _, call = _resolve(module, name)
    entries = ast.literal_eval(call.args[1])
    return {name: entry.replace(":", ".") for name, entry in entries.items()}


@functools.cache
def options_of(part: str) -> dict[str, Key]:
    """The options of a class like "pam.fusion.pam.PromptAwareMixture"."""
    module, _, name = part.rpartition(".")
    found = _resolve(module, name)
    home, init = _constructor(*found)
    given = init.args.args[len(init.args.args) - len(init.args.defaults) :]
    pairs = [*zip(given, init.args.defaults, strict=True)]
    pairs += [p for p in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True) if p[1]]
    return {argument.arg: _key(home, found, argument, default) for argument, default in pairs}


@functools.cache
def attribute_of(part: str, name: str) -> Any:
    """A literal attribute of a class or its bases, such as `models` of an encoder, else None."""
    module, _, cls = part.rpartition(".")
    for _, node in _lineage(*_resolve(module, cls)):
        for entry in node.body:
            if isinstance(entry, ast.AnnAssign) and ast.unparse(entry.target) == name:
                return ast.literal_eval(entry.value) if entry.value else None
            if isinstance(entry, ast.Assign) and ast.unparse(entry.targets[0]) == name:
                return ast.literal_eval(entry.value)
    return None


@functools.cache
def _tree(module: str) -> ast.Module:
    path = PAM.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _resolve(module: str, name: str) -> Found:
    """Find the definition of a module's name through imports: a class, or the assigned value."""
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return module, node.value
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return _resolve(node.module, name)
    raise LookupError(f"{module}: no {name}")


def _lineage(module: str, node: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
    """A class, then its bases from this package."""
    yield module, node
    for base in node.bases:
        try:
            found = _resolve(module, ast.unparse(base))
        except (LookupError, OSError):  # torch's
            continue
        yield from _lineage(*found)


def _constructor(module: str, node: ast.ClassDef) -> tuple[str, ast.FunctionDef]:
    for home, cls in _lineage(module, node):
        for entry in cls.body:
            if isinstance(entry, ast.FunctionDef) and entry.name == "__init__":
                return home, entry
    raise LookupError(f"{module}.{node.name}: it has no constructor")


def _key(home: str, found: Found, argument: ast.arg, default: ast.expr) -> Key:
    help = _help(*found, argument.arg) or ""
    value = ast.literal_eval(_value(home, default))
    key = Key(help, _rule(home, argument), default=shown(value))
    if section := re.match(r"options of `(\w+)`", help):
        inner, cls = _find_class(*found, section[1])
        return replace(key, keys=functools.partial(options_of, f"{inner}.{cls.name}"), default="{}")
    return key


def _value(module: str, node: ast.expr) -> ast.expr:
    """Replace a module's constant by its value."""
    return _resolve(module, node.id)[1] if isinstance(node, ast.Name) else node


def _rule(module: str, argument: ast.arg) -> Rule:
    annotation = _value_of_alias(module, argument.annotation)
    kind = ast.unparse(annotation)
    if kind.endswith(" | None"):
        return or_null(_plain_rule(argument.arg, kind.removesuffix(" | None")))
    if kind.startswith("Literal["):
        names = ast.literal_eval(annotation.slice)
        return one_of(*((names,) if isinstance(names, str) else names))
    return _plain_rule(argument.arg, kind)


def _value_of_alias(module: str, node: ast.expr) -> ast.expr:
    known = isinstance(node, ast.Name) and node.id not in ("int", "float", "bool", "str")
    return _resolve(module, node.id)[1] if known else node


def _plain_rule(name: str, kind: str) -> Rule:
    if kind == "int":
        return whole(0 if name.endswith(MAY_BE_ZERO) else 1)
    if kind == "float":
        return SHARE if name.endswith("dropout") else NUMBER
    return {"bool": FLAG, "str": TEXT}.get(kind, TEXTS)


def _help(module: str, node: ast.ClassDef, name: str) -> str | None:
    """The description of an argument in the docstring of a class or of its bases."""
    for home, cls in _lineage(module, node):
        text = _arguments(ast.get_docstring(cls) or "").get(name)
        if text is None:
            continue
        if referred := re.match(r"see `(\w+)`", text):
            return _help(*_find_class(home, cls, referred[1]), name)
        return text
    return None


def _find_class(module: str, node: ast.ClassDef, name: str) -> tuple[str, ast.ClassDef]:
    """The class that a docstring names, from the module of the class or of one of its bases."""
    for home, _ in _lineage(module, node):
        try:
            return _resolve(home, name)
        except LookupError:
            continue
    raise LookupError(f"{module}: no {name}")


def _arguments(docstring: str) -> dict[str, str]:
    """{name: text} of the section `Args:`; an entry may have several names."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", inspect.cleandoc(docstring), re.MULTILINE)
    entries = re.split(r"^ {4}(?=\S)", section[1], flags=re.MULTILINE)[1:] if section else []
    out = {}
    for entry in entries:
        names, _, text = entry.partition(":")
        out |= dict.fromkeys((name.strip() for name in names.split(",")), " ".join(text.split()))
    return out
