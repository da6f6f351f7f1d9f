"""Explain the keys of conf/**/*.yaml and of --set.

pam config --explain                        every key
pam config --explain batch.max_utts         one key
pam config --explain phases                 a section
pam config --explain tables.rows            conf/tables (prompts.…: conf/prompts)
"""

import argparse

from pam.config.explain import explain
from pam.errors import run_main


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--explain", nargs="?", required=True, metavar="KEY", help="a key or section; default: all"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    print(explain(get_parser().parse_args(argv).explain))


if __name__ == "__main__":
    run_main(main)
