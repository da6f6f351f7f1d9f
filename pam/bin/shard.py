"""Pack the audio of a data directory into tar shards, in the layout of WebDataset.

pam shard dump/raw/my_train dump_shards/raw/my_train --size 1G
"""

import argparse
import re
from pathlib import Path

from pam.data.pack import pack
from pam.errors import run_main
from pam.lock import alone_at
from pam.log import get_logger

BYTES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(text: str) -> int:
    """Bytes of `500M`, `1G` …"""
    found = re.fullmatch(r"([1-9]\d*)([KMG])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: write a size like 500M or 1G")
    return int(found[1]) * BYTES[found[2]]


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a data directory: data/SET or DUMPDIR/raw/SET")
    parser.add_argument("out", type=Path, help="the data directory to write, with OUT/shards")
    parser.add_argument("--size", type=size, default="1G", help="of a shard")
    return parser


def main(argv: list[str] | None = None) -> int:
    """python -m pam.bin.shard DIR OUT [--size 1G]; an interrupted run resumes."""
    args = get_parser().parse_args(argv)
    with alone_at(args.out, "packing"):
        packed = pack(args.data, args.out, args.size)
    get_logger(__name__).info("%s: %d utterances", args.out, len(packed))
    return 0


if __name__ == "__main__":
    run_main(main)
