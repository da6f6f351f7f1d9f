"""Print the completion of the command `pam` for a shell.

pam completion bash > ~/.local/share/bash-completion/completions/pam
pam completion zsh > ~/.zfunc/_pam      a folder of $fpath
"""

import argparse
import importlib
from pathlib import Path
from typing import Any

from pam.bin.cli import verbs
from pam.errors import run_main


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    import shtab  # no other program needs it

    print(shtab.complete(whole_parser(shtab.FILE), args.shell))


def whole_parser(files: Any) -> argparse.ArgumentParser:
    """One parser of all commands, for shtab; `files` is its mark of arguments that are files.

    A command whose libraries are missing has no options in it.
    """
    parser = argparse.ArgumentParser(prog="pam")
    commands = parser.add_subparsers()
    for verb, what in verbs().items():
        try:
            own = importlib.import_module(f"pam.bin.{verb}").get_parser()
        except ModuleNotFoundError:
            own = argparse.ArgumentParser()
        mark(own, files)
        what = what.replace("%", "%%")
        commands.add_parser(verb, parents=[own], add_help=False, help=what, description=what)
    return parser


def mark(parser: argparse.ArgumentParser, files: Any) -> None:
    """Options that are paths, and the files of `transcribe`, are completed as files."""
    for action in parser._actions:
        if action.type is Path or action.dest in ("files", "output"):
            action.complete = files


if __name__ == "__main__":
    run_main(main)
