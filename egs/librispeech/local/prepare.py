#!/usr/bin/env python3
"""Make data directories of LibriSpeech's parts, from the folders as they are distributed.

    python local/prepare.py --corpus LibriSpeech --out data [--size tiny|short|long]

PART/SPK/CHAP/SPK-CHAP.trans.txt holds "SPK-CHAP-UTT TEXT" lines, the audio is in the same folder.
Texts are written in lower case. `short` and `tiny` take an even sample of the part. An utterance
without audio or text is left out, with a warning; a part that is missing is an error.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam, installed or not

from download import PAPER_PARTS, part_folder  # noqa: E402

from pam.data.corpus import (  # noqa: E402
    even_sample,
    list_left_out,
    reading,
    report_count,
    report_left_out,
)
from pam.data.datadir import DataDir  # noqa: E402
from pam.data.scp import one_line  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.log import get_logger  # noqa: E402

TASK = "asr_clean"
# Utterances of a part as it is published.
PUBLISHED = {
    "train-clean-100": 28539,
    "train-clean-360": 104014,
    "train-other-500": 148688,
    "dev-clean": 2703,
    "dev-other": 2864,
    "test-clean": 2620,
    "test-other": 2939,
}
# Utterances of training parts and of others; None: all.
SIZES = {"tiny": (40, 8), "short": (3000, 200), "long": (None, None)}
GET_IT = "local/download.py FOLDER downloads it"
NO_TEXT, NO_AUDIO, NO_LINE = "no text in its line", "no audio file", "audio without a transcript"
TWICE = "the same id twice"
logger = get_logger("prepare")


def set_name(part: str) -> str:
    return f"librispeech_{part.replace('-', '_')}"


def read_part(folder: Path) -> tuple[dict[str, tuple[str, Path]], dict[str, list[str]]]:
    """{utterance: (text in lower case, audio)} of a part, and what is left out, by reason."""
    found: dict[str, tuple[str, Path]] = {}
    faults: dict[str, list[str]] = {NO_TEXT: [], NO_AUDIO: [], NO_LINE: [], TWICE: []}
    for chapter in sorted(folder.glob("*/*/")):
        audio = {file.stem: file for file in chapter.glob("[!.]*.flac")}  # ._NAME is of macOS
        for utt, text in transcripts(chapter):
            file = audio.pop(utt, None)
            if utt in found:
                faults[TWICE].append(utt)
            elif file is None:
                faults[NO_AUDIO].append(str(chapter / f"{utt}.flac"))
            elif not text:
                faults[NO_TEXT].append(utt)
            else:
                found[utt] = (text, file.absolute())
        faults[NO_LINE] += sorted(map(str, audio.values()))
    return found, faults


def transcripts(chapter: Path) -> Iterator[tuple[str, str]]:
    """(utterance, text in lower case) of a chapter's lines."""
    for file in sorted(chapter.glob("[!.]*.trans.txt")):
        with reading(file):
            lines = file.read_text(encoding="utf-8-sig").split("\n")
        for line in lines:
            if words := one_line(line).split():
                yield words[0], " ".join(words[1:]).lower()


def option_of(part: str) -> str:
    """The option of run.sh that lists the part's set."""
    kind = part.partition("-")[0]
    return f"--{kind}_sets" if kind in ("train", "dev", "test") else "the sets of run.sh"


def prepare_part(corpus: Path, part: str, out: Path, size: str) -> None:
    folder = part_folder(corpus, part)
    if not folder.is_dir():
        raise PamError(
            f"{folder.absolute()}: no such folder: {GET_IT}; or correct db.sh; or leave "
            f"{set_name(part)} out of {option_of(part)}"
        )
    found, faults = read_part(folder)
    if not found:
        raise PamError(f"{folder.absolute()}: no SPK/CHAP/*.trans.txt with audio in it: {GET_IT}")
    report_left_out(logger, part, faults)
    list_left_out(out / set_name(part), faults)
    if part in PUBLISHED:
        report_count(logger, part, len(found), PUBLISHED[part])
    utts = even_sample(sorted(found), SIZES[size][not part.startswith("train")])
    files = {
        "text": {utt: found[utt][0] for utt in utts},
        "wav.scp": {utt: str(found[utt][1]) for utt in utts},
        "utt2spk": {utt: utt.partition("-")[0] for utt in utts},
        "utt2task": dict.fromkeys(utts, TASK),
    }
    DataDir(files).write(out / set_name(part))
    logger.info("%s: %d of %d utterances", set_name(part), len(utts), len(found))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="", help="the folder that holds LibriSpeech/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--parts", nargs="+", default=PAPER_PARTS)
    parser.add_argument("--size", choices=SIZES, default="long")
    args = parser.parse_args(argv)
    if not args.corpus:
        raise PamError(
            "LIBRISPEECH is not set: in egs/librispeech/db.sh, name the folder that holds the "
            f"corpus ({GET_IT}, CC BY 4.0)"
        )
    for part in args.parts:
        prepare_part(Path(args.corpus), part, args.out, args.size)


if __name__ == "__main__":
    run_main(main)
