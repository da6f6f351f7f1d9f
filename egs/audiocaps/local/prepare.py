#!/usr/bin/env python3
"""Make the data directories of AudioCaps and of AudioBench's sets of it (see ../README.md).

python local/prepare.py --audiocaps DIR --audiobench DIR --out data [--size tiny|short|long]
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam, installed or not

from audiocaps_bench import BENCH_SETS, bench_set  # noqa: E402
from audiocaps_clips import find_clips, write_missing  # noqa: E402
from audiocaps_tables import captions_of, each_caption, each_clip  # noqa: E402

from pam.data.corpus import corpus_folder, report_count  # noqa: E402
from pam.data.datadir import DataDir  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.log import get_logger  # noqa: E402

# part of the corpus, captions as published
SETS = {
    "audiocaps_train": ("train", 49838),
    "audiocaps_val": ("val", 2475),
    "audiocaps_test": ("test", 4875),
}
# Clips of training sets and of others; None: all.
SIZES = {"tiny": (40, 8), "short": (3000, 200), "long": (None, None)}
logger = get_logger("prepare")


def make_set(args: argparse.Namespace, name: str) -> None:
    what = "the folder of train.csv and of the clips"
    corpus = corpus_folder(args.audiocaps, "AUDIOCAPS", what, "audiocaps")
    part, published = SETS[name]
    captions = captions_of(corpus, part)
    report_count(logger, name, len(captions), published, "captions")
    count = SIZES[args.size][part != "train"]
    found, missing = find_clips(corpus, part, captions, count, args.out / "audio" / name)
    total = len({caption.clip for caption in captions})
    write_missing(args.out / name, missing, total)
    if not found:
        raise PamError(f"{corpus}: none of the {total} clips of {name}: {_any(missing)}")
    there = [caption for caption in captions if caption.clip in found]
    make = each_caption if part == "train" else each_clip
    data = DataDir(make(name, there, found))
    data.write(args.out / name)
    clips = total - len(missing)
    logger.info("%s: %d utterances, %d of %d clips", name, len(data), len(found), clips)


def _any(missing: dict[str, str]) -> str:
    first = min(missing)
    return f"{first}: {missing[first]}"


def make_bench(args: argparse.Namespace, name: str) -> None:
    what = "the folder of audiocaps_test/ and audiocaps_qa_test/ (parquet)"
    corpus = corpus_folder(args.audiobench, "AUDIOBENCH", what, "audiocaps")
    data = bench_set(corpus, name, args.out / "audio" / name, SIZES[args.size][1])
    data.write(args.out / name)
    logger.info("%s: %d utterances", name, len(data))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audiocaps", default="", help="folder of the tables and the clips")
    parser.add_argument("--audiobench", default="", help="folder of AudioBench's parquet copies")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--sets", nargs="+", default=[*SETS, *BENCH_SETS])
    parser.add_argument("--size", choices=SIZES, default="long")
    args = parser.parse_args(argv)
    for name in args.sets:
        if name in SETS:
            make_set(args, name)
        elif name in BENCH_SETS:
            make_bench(args, name)
        else:
            raise PamError(f"--sets {name}: this recipe makes {', '.join([*SETS, *BENCH_SETS])}")


if __name__ == "__main__":
    run_main(main)
