#!/usr/bin/env python3
"""Make data directories from train.tsv, dev.tsv and test.tsv in one folder.

    python local/prepare.py --corpus FOLDER --name NAME --task TASK --out data [--size …]

A line is AUDIO, SPEAKER and TEXT, separated by tabs; AUDIO is a path, relative to the folder. Every
preparation does this: it gives four text files with the same ids to `DataDir.write`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam, installed or not

from pam.data.corpus import even_sample, reading  # noqa: E402
from pam.data.datadir import DataDir  # noqa: E402
from pam.data.scp import one_line  # noqa: E402
from pam.data.tasks import get_task  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402

# Lines of each file, an even sample; None: all.
SIZES = {"tiny": 8, "short": 1000, "long": None}
Row = tuple[Path, str, str]  # audio, speaker, text


def read_rows(tsv: Path) -> list[Row]:
    """(audio, speaker, text) of each line; `PamError` names the line that is not like that."""
    if not tsv.is_file():
        raise PamError(f"{tsv}: missing: correct CORPUS in db.sh, make it as README.md says")
    with reading(tsv):
        lines = tsv.read_text(encoding="utf-8-sig").rstrip().split("\n")
    if lines == [""]:
        raise PamError(f"{tsv}: empty: write lines of AUDIO, SPEAKER, TEXT with tabs")
    rows = []
    for number, line in enumerate(lines, start=1):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 3 or not all(map(one_line, fields)):
            raise PamError(f"{tsv}:{number}: {line!r}: expected AUDIO, SPEAKER, TEXT with tabs")
        audio = tsv.parent / fields[0]
        if not audio.is_file():
            raise PamError(f"{tsv}:{number}: {audio}: no such file: correct the path")
        rows.append((audio.absolute(), one_line(fields[1]), one_line(fields[2])))
    return rows


def text_files(
    rows: Sequence[tuple[int, Row]], prefix: str, task: str
) -> dict[str, dict[str, str]]:
    """Files of a data directory; ids begin with the speaker, so that they sort together, and
    end with the line's number, whatever the size."""
    found: dict[str, dict[str, str]] = {"wav.scp": {}, "text": {}, "utt2spk": {}, "utt2task": {}}
    for number, (audio, speaker, text) in rows:
        speaker = f"{prefix}-{speaker}"
        utt = f"{speaker}-{number:06d}"
        entry = {"wav.scp": str(audio), "text": text, "utt2spk": speaker, "utt2task": task}
        for name, value in entry.items():
            found[name][utt] = value
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, help="folder of the three files")
    parser.add_argument("--name", required=True, help="of the corpus: sets are NAME_train …")
    parser.add_argument("--task", required=True, help="of all utterances")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--size", choices=SIZES, default="long")
    args = parser.parse_args(argv)
    if not args.corpus:
        raise PamError(f"--corpus: no folder is named: set CORPUS in egs/{args.name}/db.sh")
    task, corpus = get_task(args.task).name, Path(args.corpus).absolute()
    for part in ("train", "dev", "test"):
        rows = list(enumerate(read_rows(corpus / f"{part}.tsv")))
        chosen = even_sample(rows, SIZES[args.size])
        name = f"{args.name}_{part}"
        DataDir(text_files(chosen, name, task)).write(args.out / name)
        print(f"{name}: {len(chosen)} of {len(rows)} utterances")


if __name__ == "__main__":
    run_main(main)
