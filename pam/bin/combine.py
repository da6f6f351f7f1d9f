"""Combine dumped sets into one multitask directory."""

import argparse

from pam.data.combine import SetSpec, combine
from pam.errors import run_main
from pam.log import get_logger


def main(argv: list[str] | None = None) -> None:
    """python -m pam.bin.combine --sets DIR[:task] … --out DIR [--encoders NAME …]"""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", required=True, metavar="DIR[:task]")
    parser.add_argument("--out", required=True, help="the multitask directory to write")
    parser.add_argument("--encoders", nargs="*", default=[], help="none: features made online")
    parser.add_argument("--encoder_dir", default="dump", help="holds <encoder>/<set>/feats.scp")
    args = parser.parse_args(argv)
    specs = [SetSpec.parse(text) for text in args.sets]
    summary = combine(specs, args.out, args.encoders, args.encoder_dir)
    for name, counts in summary.items():
        get_logger(__name__).info(
            "%s: %s utterances, %s h, %s",
            name,
            counts["utterances"],
            counts["hours"],
            counts["task"],
        )


if __name__ == "__main__":
    run_main(main)
