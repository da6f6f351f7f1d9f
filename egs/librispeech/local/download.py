#!/usr/bin/env python3
"""Download parts of LibriSpeech and unpack them, as FOLDER/LibriSpeech/PART.

    local/download.py FOLDER [PART …]

train-clean-100 is 6.3 GB, train-clean-360 23 GB, train-other-500 30 GB, each other part 0.3 GB.
Without names: the parts of the paper, train-clean-100 and those that are no training parts.

CC BY 4.0, from https://www.openslr.org/12. The same command resumes; a part that is there is kept,
its archive is checked by md5 and removed once it is unpacked.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam and tools, installed or not

from pam.errors import PamError, run_main  # noqa: E402
from pam.registry import nearest  # noqa: E402
from tools.fetch_url import download, unpack  # noqa: E402

URL = "https://www.openslr.org/resources/12"
MD5 = {
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
}
PAPER_PARTS = [part for part in MD5 if part not in ("train-clean-360", "train-other-500")]


def part_folder(corpus: Path, part: str) -> Path:
    """Where a part is, or will be: parts lie in CORPUS itself or in CORPUS/LibriSpeech."""
    is_root = corpus.name == "LibriSpeech" or (corpus / part).is_dir()
    return corpus / part if is_root else corpus / "LibriSpeech" / part


def fetch_part(corpus: Path, part: str, url: str) -> None:
    folder = part_folder(corpus, part)
    if folder.is_dir():
        return
    archive = download(f"{url}/{part}.tar.gz", corpus / f"{part}.tar.gz", MD5[part])
    unpack(archive, folder, f"LibriSpeech/{part}")
    archive.unlink()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where LibriSpeech/ is, or will be")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"default: {', '.join(PAPER_PARTS)}"
    )
    parser.add_argument("--url", default=URL, help="a mirror")
    args = parser.parse_args(argv)
    if not args.folder:
        raise PamError("LIBRISPEECH is not set: in egs/librispeech/db.sh, name a folder for it")
    for part in args.parts or PAPER_PARTS:
        if part not in MD5:
            raise PamError(f"unknown part {part!r}: {nearest(part, MD5)}")
        fetch_part(Path(args.folder), part, args.url)


if __name__ == "__main__":
    run_main(main)
