"""The command `pam`: a sub-command for each program of pam/bin.

pam                       all commands
pam transcribe --help     the options of one, with an example
"""

import ast
import importlib
import sys
from pathlib import Path

from pam import __version__
from pam.errors import PamError, run_main
from pam.registry import nearest

FOLDER = Path(__file__).parent
# Programs that only recipes start, and this one: they run, but are not listed.
INNER = ("cli", "data", "exit_analysis", "recipe")
FOOT = "pam COMMAND --help shows its options. pam doctor says what is missing here."


def main(argv: list[str] | None = None) -> int | None:
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"pam {__version__}")
        return 0
    verb, *rest = words
    if verb not in programs():
        raise PamError(f"pam {verb}: there is no such command: {nearest(verb, verbs())}")
    sys.argv = [f"pam {verb}", *rest]  # argparse takes the program's name from here
    return start(verb, rest)


def start(verb: str, rest: list[str]) -> int | None:
    """Run pam.bin.VERB. `PamError` for a library that is not installed."""
    try:
        return importlib.import_module(f"pam.bin.{verb}").main(rest)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in ("", "pam"):
            raise
        raise PamError(
            f"pam {verb} needs the Python package {library}, which is not installed: "
            "`pam doctor` says how to get it"
        ) from error


def overview() -> str:
    listed = verbs()
    width = max(map(len, listed))
    lines = [f"  {verb:{width}}  {what}" for verb, what in listed.items()]
    return "\n".join([f"usage: pam COMMAND …  (version {__version__})", "", *lines, "", FOOT])


def verbs() -> dict[str, str]:
    """The commands that users type: {name: the first line of its docstring}."""
    return {verb: what for verb, what in programs().items() if verb not in INNER}


def programs() -> dict[str, str]:
    """All programs of this folder: files with a function `main`. They are read, not imported."""
    found = {}
    for file in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[file.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def run() -> None:
    """The entry point of the command (setup.py)."""
    run_main(main)


if __name__ == "__main__":
    run()
