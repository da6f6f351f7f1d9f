#!/usr/bin/env python3
"""Make data directories of LibriSpeech's parts, from the folders as they are distributed.

    python local/prepare.py --corpus LibriSpeech --out data [--size tiny|short|long]

PART/SPK/CHAP/SPK-CHAP.trans.txt holds "SPK-CHAP-UTT TEXT" lines, the audio is beside it. Texts are
written in lower case. `short` and `tiny` take utterances evenly spread over the part.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam, installed or not

from pam.data.datadir import DataDir  # noqa: E402
from pam.errors import UserError, run_main  # noqa: E402
from pam.log import get_logger  # noqa: E402

TASK = "asr_clean"
# Utterances of a part as it is published: fewer means an incomplete download.
PUBLISHED = {
    "train-clean-100": 28539,
    "dev-clean": 2703,
    "dev-other": 2864,
    "test-clean": 2620,
    "test-other": 2939,
}
# Utterances of training parts and of others; None: all.
SIZES = {"tiny": (40, 8), "short": (3000, 200), "long": (None, None)}
logger = get_logger("prepare")


def set_name(part: str) -> str:
    return f"librispeech_{part.replace('-', '_')}"


def transcripts(part: Path) -> dict[str, tuple[str, Path]]:
    """{utterance: (text in lower case, audio)} of a part's folder."""
    found = {}
    for file in sorted(part.glob("*/*/*.trans.txt")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            utt, _, text = line.partition(" ")
            audio = file.with_name(f"{utt}.flac")
            if not text.strip():
                raise UserError(f"{file}:{number}: {line!r} has no text: download the part again")
            if not audio.is_file():
                raise UserError(f"{audio}: missing, {file.name} names it: unpack the part again")
            found[utt] = (" ".join(text.lower().split()), audio.absolute())
    return found


def spread(utterances: list[str], count: int | None) -> list[str]:
    """`count` of the utterances at even distances; all where there are no more, or for None."""
    if count is None or count >= len(utterances):
        return utterances
    return [utterances[n * len(utterances) // count] for n in range(count)]


def prepare_part(corpus: Path, part: str, out: Path, size: str) -> None:
    folder = corpus / part
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: unpack {part}.tar.gz there, or correct db.sh")
    found = transcripts(folder)
    if not found:
        raise UserError(f"{folder}: no SPK/CHAP/*.trans.txt in it: unpack {part}.tar.gz again")
    if part in PUBLISHED and len(found) != PUBLISHED[part]:
        logger.warning("%s: %d utterances, published: %d", folder, len(found), PUBLISHED[part])
    utts = spread(sorted(found), SIZES[size][not part.startswith("train")])
    tables = {
        "text": {utt: found[utt][0] for utt in utts},
        "wav.scp": {utt: str(found[utt][1]) for utt in utts},
        "utt2spk": {utt: utt.partition("-")[0] for utt in utts},
        "utt2task": dict.fromkeys(utts, TASK),
    }
    DataDir(tables).write(out / set_name(part))
    logger.info("%s: %d of %d utterances", set_name(part), len(utts), len(found))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="", help="the folder that holds train-clean-100 …")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--parts", nargs="+", default=list(PUBLISHED))
    parser.add_argument("--size", choices=SIZES, default="long")
    args = parser.parse_args(argv)
    if not args.corpus:
        raise UserError(
            "LIBRISPEECH is not set: in egs/librispeech/db.sh, name the folder that holds "
            "train-clean-100 (download the parts from https://www.openslr.org/12, CC BY 4.0)"
        )
    for part in args.parts:
        prepare_part(Path(args.corpus), part, args.out, args.size)


if __name__ == "__main__":
    run_main(main)
