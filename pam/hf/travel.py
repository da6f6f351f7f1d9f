"""The code that an exported model needs, as flat modules in its folder.

transformers copies a model's code file by file, and only what stands in `from .NAME import …`. So
each module `pam.a.b` becomes `pam_a_b.py` (`pam.hf.NAME`: `NAME.py`), its imports become relative,
and a registry keeps the parts in use only.
"""

import ast
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from pam.atomic import write_text

PAM = Path(__file__).resolve().parents[1]
IMPORT = re.compile(r"^( *)from (pam(?:\.\w+)+) import", re.MULTILINE)
ENTRY = re.compile(r'^( *"\w+": ")(pam(?:\.\w+)+):(\w+)",\n', re.MULTILINE)  # of a registry
NAMED = """

if TYPE_CHECKING:  # transformers copies the files that are named in imports, even here
{imports}
"""


def write_code(folder: Path, roots: Sequence[str], parts: Collection[str]) -> list[str]:
    """Write the modules `roots` and all that they need; returns the names of these modules.

    `parts`: the entries of registries that are in use, such as "pam.fusion.pam:PromptAwareMixture".
    """
    modules = closure(roots, parts)
    for module in modules:
        write_text(folder / f"{flat(module)}.py", rewritten(module, parts))
    return modules


def closure(roots: Sequence[str], parts: Collection[str]) -> list[str]:
    """The modules of pam that `roots` import, directly or not, and those of `parts`."""
    found, todo = set(), list(roots)
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += imported(module)
            todo += [part.partition(":")[0] for part in entries(module) if part in parts]
    return sorted(found)


def imported(module: str) -> list[str]:
    """The modules of pam that a module imports.

    ValueError for an import that cannot become a relative one of a flat module.
    """
    found = []
    for node in ast.walk(ast.parse(source(module))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if any(name.partition(".")[0] == "pam" for name in names):
            raise ValueError(f"{module}: write from {names[0]} import …, so that it can travel")
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pam":
            if any(file_of(f"{node.module}.{alias.name}").is_file() for alias in node.names):
                raise ValueError(f"{module}: imports a module from {node.module}: import its names")
            found.append(node.module)
    return found


def entries(module: str) -> list[str]:
    """The entries of a module's registries."""
    return [f"{home}:{name}" for _, home, name in ENTRY.findall(source(module))]


def rewritten(module: str, parts: Collection[str]) -> str:
    """A module's text with relative imports and with those entries that are in use."""
    used = [part for part in entries(module) if part in parts]

    def entry(match: re.Match) -> str:
        head, home, name = match.groups()
        return f'{head}.{flat(home)}:{name}",\n' if f"{home}:{name}" in parts else ""

    text = IMPORT.sub(
        lambda m: f"{m[1]}from .{flat(m[2])} import", ENTRY.sub(entry, source(module))
    )
    text = f"# From PaM (MIT licence): {file_of(module).relative_to(PAM.parent)}\n{text}"
    if not used:
        return text
    pairs = [part.split(":") for part in used]
    imports = "\n".join(f"    from .{flat(home)} import {name}  # noqa" for home, name in pairs)
    return f"{text}\n\nfrom typing import TYPE_CHECKING  # noqa{NAMED.format(imports=imports)}"


def third_party(modules: Sequence[str]) -> list[str]:
    """The packages that modules of pam import, without pam and the standard library."""
    names = {name for module in modules for name in packages(module)}
    return sorted(names - {"pam"} - sys.stdlib_module_names)


def with_versions(names: Iterable[str]) -> list[str]:
    """Each package with the version that is installed here: "torch 2.11.0"."""
    return [f"{name} {version(name).partition('+')[0]}" for name in sorted(names)]


def packages(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def flat(module: str) -> str:
    """The name of a module in an exported folder."""
    return module.removeprefix("pam.hf.").replace(".", "_")


def file_of(module: str) -> Path:
    path = PAM.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def source(module: str) -> str:
    return file_of(module).read_text(encoding="utf-8")
